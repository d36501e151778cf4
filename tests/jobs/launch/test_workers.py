"""Training by several workers on a Ray cluster."""

import contextlib
import ipaddress
import threading

import psutil
import pytest

from tests.conftest import draw_photos


@contextlib.contextmanager
def watched_ports():
    """Collects (process, address) of what this test's processes listen on, the cluster's and the driver's."""
    found, is_over = set(), threading.Event()

    def watch():
        while not is_over.wait(1):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    name = process.name()
                    found.update(
                        (name, c.laddr.ip) for c in process.net_connections() if c.status == psutil.CONN_LISTEN
                    )

    thread = threading.Thread(target=watch)
    thread.start()
    yield found
    is_over.set()
    thread.join()


@pytest.mark.usefixtures("joined")
def test_two_workers_train_together(verb, tmp_path):
    draw_photos(tmp_path / "photos", {"a": 300, "b": 300})  # the workers find them where the driver does
    settings = ("--model.name", "cnn", "--data.batch", "128", "--train.epochs", "4", "--train.precision", "fp32")
    settings += ("--data.path", "photos", "--model.norm", "group", "--augment.policy", "none")
    settings += ("--optimizer.name", "sgd", "--optimizer.lr", "0.02")
    with watched_ports() as ports:
        done = verb("train", *settings, "--workers.count", "2", "--name", "two")
    assert done.code == 0, done.err
    assert {"gcs_server", "raylet", "ray::RayTrainWorker"} <= {name for name, _ in ports}
    open_ports = {one for one in ports if not ipaddress.ip_address(one[1].removeprefix("::ffff:")).is_loopback}
    assert open_ports == set()
    assert done.result["config"]["workers"]["count"] == 2
    assert done.result["config"]["train"]["threads"] == 1  # a worker's share, not what the driver may use
    assert done.result["epochs"] == 4
    assert "epoch 4/4" in done.out
    one = verb("train", *settings, "--name", "one").result
    assert done.result["validation"]["loss"] == pytest.approx(one["validation"]["loss"], rel=1e-3)
    resumed = verb("train", "--resume", "runs/two", "--train.epochs", "5", "--workers.count", "1")
    assert resumed.code == 0, resumed.err
    assert resumed.result["epochs"] == 5
