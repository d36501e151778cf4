"""Slow: `ray up cluster/local.yaml` starts machines over a real sshd, a job runs, and `ray down` leaves nothing."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.cluster.conftest import ROOT, Cluster, start_cluster
from tests.cluster.hosts import Host, can_create_hosts, wait_for

pytestmark = pytest.mark.slow
SSHD = shutil.which("sshd") or ("/usr/sbin/sshd" if os.path.exists("/usr/sbin/sshd") else None)


def set_up_ssh(cluster: Cluster, machine: Host, key: Path) -> Path:
    """Give the machine's root user a home and login with the key; start sshd."""
    home = cluster.home / machine.name
    (home / ".ssh").mkdir(parents=True)
    home.chmod(0o700)
    shutil.copy(key.with_suffix(".pub"), home / ".ssh" / "authorized_keys")
    path = f"export PATH={cluster.python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\n"
    for name in (".bashrc", ".profile"):
        (home / name).write_text(path)
    passwd = cluster.home / f"{machine.name}.passwd"
    users = Path("/etc/passwd").read_text().splitlines()
    users = [f"root:x:0:0:root:{home}:/bin/bash" if user.startswith("root:") else user for user in users]
    passwd.write_text("\n".join(users) + "\n")
    machine.sh("mount", "--bind", passwd, "/etc/passwd")
    machine.sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    machine.sh("mkdir", "/run/sshd")
    host_key = cluster.home / f"{machine.name}.key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(host_key)], check=True)
    args = (SSHD, "-D", "-e", "-f", "/dev/null", "-h", host_key, "-o", "PermitRootLogin=prohibit-password")
    cluster.nodes[f"{machine.name}-sshd"] = machine.start(*args, log=cluster.home / f"{machine.name}.sshd.log")
    return home


def test_up_submit_and_down():
    if not can_create_hosts() or SSHD is None or shutil.which("rsync") is None:
        pytest.skip("needs root, openssh-server and rsync")
    with start_cluster(3) as cluster:
        laptop, head, worker = cluster.machines
        key = cluster.home / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        script = cluster.python.parent / "ray"
        script.write_text(f'#!/bin/sh\nexec {cluster.python} -m ray.scripts.scripts "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        homes = {machine.name: set_up_ssh(cluster, machine, key) for machine in (head, worker)}
        config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
        config["provider"] |= {"head_ip": head.address, "worker_ips": [worker.address]}
        config["auth"] = {"ssh_user": "root", "ssh_private_key": str(key)}
        config |= {"min_workers": 1, "max_workers": 1}
        file = cluster.home / "local.yaml"
        file.write_text(yaml.safe_dump(config))

        def ray(*args: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
            path = f"{cluster.python.parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
            done = laptop.run(script, *args, timeout=timeout, PATH=path)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            return done

        ray("up", "--yes", "--no-config-cache", file)
        token = homes["host3"] / ".ray" / "auth_token"
        wait_for(token.exists, 120, "the worker's token")
        assert token.read_text() == cluster.token
        assert stat.S_IMODE(token.stat().st_mode) == 0o600
        wait_for(lambda: worker.processes("raylet/raylet"), 180, "Ray on the worker")
        out = cluster.shared / "runs"
        job = f"python {ROOT}/jobs/train.py --model.name cnn --train.epochs 2 --workers.count 2 --workers.wait 2"
        address = "RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265"
        done = ray("exec", "--no-config-cache", file, f"{address} ray job submit -- {job} --out {out} --name up")
        assert "succeeded" in done.stdout.lower()
        assert json.loads((out / "up" / "result.json").read_text())["status"] == "finished"
        ray("down", "--yes", file)
        wait_for(lambda: not any(m.processes("ray/") for m in (head, worker)), 150, "Ray to stop")
