"""The fire drill passes where resuming is exact, and reports the difference where it is not."""

import json
import subprocess
import sys

import pytest

from jobs.steps.compare_runs import compare_runs

SMALL = ("--model.name", "cnn", "--data.batch", "128", "--faults", "3")


@pytest.mark.slow
def test_drill_on_one_worker_passes(verb):
    done = verb("drill", *SMALL)
    assert done.code == 0, done.err + done.out
    result = done.result
    assert result["passed"]
    assert [fault["kind"] for fault in result["faults"]] == ["driver", "stop", "driver"]
    assert result["weights"] == result["equal_weights"] > 1000
    assert result["epochs"] == result["equal_orders"] == result["equal_figures"] >= 3
    assert done.out.count("\nfault ") == 3
    assert "PASSED: 3 faults" in done.out
    steps = [fault["step"] for fault in result["faults"]]
    assert steps == sorted(steps)
    assert steps[0] > 0
    assert json.loads((done.folder / "unbroken" / "result.json").read_text())["status"] == "finished"


def test_drill_reports_what_differs(verb, tmp_path):
    """A second training from another seed stands in for a resume that forgot something."""
    done = verb("drill", *SMALL, "--faults", "1", "--storage", "far")
    assert done.code == 0, done.err + done.out
    other = verb("train", "--experiment", done.folder / "piece.yaml", "--seed", "1", "--name", "other")
    comparison = compare_runs(done.folder / "unbroken", other.folder)
    assert not comparison.is_equal
    assert comparison.equal_orders == 0
    assert comparison.equal_weights < comparison.weights
    assert comparison.largest_difference > 0


@pytest.mark.slow
@pytest.mark.usefixtures("joined")
def test_drill_on_two_workers_passes(verb):
    done = verb("drill", *SMALL, "--workers.count", "2", "--storage", "far")
    assert done.code == 0, done.err + done.out
    assert [fault["kind"] for fault in done.result["faults"]] == ["worker", "driver", "worker"]
    assert done.result["passed"]


@pytest.mark.usefixtures("joined")
def test_the_head_is_never_killed():
    lines = (
        "from jobs.cli import environment",
        "environment.setup()",
        "from jobs.launch.cluster import connect, kill_on_node",
        "import ray",
        "connect()",
        "kill_on_node(ray.nodes()[0]['NodeID'])",
    )
    done = subprocess.run([sys.executable, "-c", "; ".join(lines)], capture_output=True, text=True, check=False)
    assert "ConfigError: a worker runs on the cluster's head" in done.stderr
