"""Forecasts for this machine and for rented ones, and errors in the prices file."""

from pathlib import Path

import pytest
import yaml

from classifier.profiling.scaling import Workload
from jobs.steps.scaling_forecast import _describe_doubts, _format_hours, _format_range, _is_stable, find_machine_type

SMALL = ("--model.name", "cnn", "--data.batch", "128")
BIG = "big: {gpus: 8, tflops: 100, cores: 64, network_gbit: 100, dollars_an_hour: 10}\n"


def test_forecast_for_this_machine(verb):
    done = verb("plan", *SMALL)
    assert done.code == 0, done.err
    rows = done.result["forecasts"]
    assert rows[0]["workers"] == rows[0]["efficiency"] == 1
    for row in rows:
        assert row["images_per_second"] > 100
        assert 0 < row["efficiency"] <= 1
        assert row["hours_range"][0] <= row["hours"] <= row["hours_range"][1]
        assert row["step"] == pytest.approx(row["compute"] + row["exchange"] + row["waiting"] + row["input"])
    assert "measured here:" in done.out
    assert "GFLOP per image" in done.out


def test_forecast_for_rented_machines(verb, tmp_path):
    (tmp_path / "mine.yaml").write_text(BIG)
    done = verb("plan", *SMALL, "--kind", "big", "--prices", "mine.yaml", "--up_to", "32")
    assert done.code == 0, done.err
    rows = done.result["forecasts"]
    assert [(row["workers"], row["machines"]) for row in rows] == [(1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4)]
    assert rows[0]["dollars"] == pytest.approx(10 * rows[0]["hours"])
    assert rows[0]["exchange"] == 0 < rows[-1]["exchange"]
    assert "32 workers share a batch of 128: 4.0 images each" in done.out


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("big: {tflops: 1}", "bog", "did you mean big"),
        ("big: {tflops: -1}", "big", "must be a number above 0"),
        ("big: {tflops: 1, price: 2}", "big", "only cores"),
        ("big: 3", "big", "must have tflops"),
        ("- 1", "big", "no such machine"),
        ("{", "big", "not valid YAML"),
    ],
)
def test_errors_in_a_prices_file(here, tmp_path, text, kind, word):
    (tmp_path / "mine.yaml").write_text(text)
    done = here("plan", "--kind", kind, "--prices", "mine.yaml")
    assert (done.code, done.out) == (2, "")
    assert word in done.err
    assert "mine.yaml" in done.err


@pytest.mark.parametrize(
    ("hours", "text"), [(0.001, "3.6 s"), (0.5, "30.0 min"), (1.5, "90.0 min"), (30, "30.0 h"), (5000, "5,000.0 h")]
)
def test_hours_are_formatted_in_a_fitting_unit(hours, text):
    assert _format_hours(hours) == text


@pytest.mark.parametrize(
    ("fastest", "slowest", "busy_share", "time", "note"),
    [
        (1.0, 1.05, 0.0, "30.0 min", None),
        (0.4, 1.2, 0.6, "12.0 min to 36.0 min", "other work took up to 60% of the processor's time"),
        (0.9, 1.8, 0.02, "27.0 min to 54.0 min", "the slowest took 1.8 times as long as most"),
    ],
)
def test_uncertain_times_are_given_as_a_range_with_its_cause(fastest, slowest, busy_share, time, note):
    workload = Workload(
        **dict.fromkeys(("batch", "images", "epochs", "parameters"), 1),
        **dict.fromkeys(("image_seconds", "step_seconds", "input_seconds", "flops", "memory_bytes"), 1.0),
        fastest=fastest,
        slowest=slowest,
        busy_share=busy_share,
    )
    assert _format_range(0.5, (0.5 * fastest, 0.5 * slowest)) == time
    assert _is_stable(workload) == (note is None)  # or no efficiency is given
    notes = list(_describe_doubts([workload]))
    assert len(notes) == (note is not None)
    assert (note or "") in " ".join(notes)


def test_shipped_prices_are_valid():
    path = Path(__file__).resolve().parents[3] / "cluster" / "prices.yaml"
    for name in yaml.safe_load(path.read_text()):
        assert find_machine_type(name, str(path)).dollars_an_hour > 0
