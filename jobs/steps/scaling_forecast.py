"""Forecast a training on N workers: measure here, apply `classifier.profiling.scaling`, show a table."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.fields import suggest
from classifier.config.files import read_yaml
from classifier.errors import ConfigError
from classifier.profiling import step_time
from classifier.profiling.scaling import Forecast, MachineType, Workload, find_waste, forecast
from classifier.profiling.step_time import STABLE_SPREAD
from classifier.runtime.cpu import available_cores
from classifier.runtime.distributed import pick_device
from classifier.training.resolve import resolve

# A machine is busy if other work took more than this share of the processor's time from the measured steps.
BUSY_SHARE = 0.1


@dataclass(frozen=True)
class MeasuredForecast:
    """A forecast, and the measured workload that it is based on."""

    workload: Workload
    forecast: Forecast


def find_machine_type(name: str, path: str) -> MachineType:
    """A machine type from the prices file, or this machine. ConfigError names what is wrong in the file."""
    if name == "here":
        return MachineType(name="here", cores=available_cores())
    table = read_yaml(path)
    if not isinstance(table, dict) or name not in table:
        known = [*table] if isinstance(table, dict) else []
        raise ConfigError(f"--kind {name}: {path} has no such machine type{suggest(name, ['here', *known])}")
    fields = {field.name for field in dataclasses.fields(MachineType)} - {"name"}
    entry = table[name]
    if not isinstance(entry, dict) or not entry.keys() <= fields or "tflops" not in entry:
        raise ConfigError(f"{path}: {name} must have tflops, and of the other keys only {', '.join(sorted(fields))}")
    invalid = [key for key, value in entry.items() if not isinstance(value, int | float) or not value > 0]
    if invalid:
        raise ConfigError(f"{path}: {name}.{invalid[0]} is {entry[invalid[0]]!r}: it must be a number above 0")
    return MachineType(name=name, **entry)


def forecast_workers(experiment: Experiment, machine: MachineType, up_to: int) -> list[MeasuredForecast]:
    """Forecast 1, 2, 4, ... workers. Workers that share this machine's cores are measured with their share of them."""
    dataset = data.load(experiment.data)
    resolved = resolve(experiment, dataset)
    shares_cores = machine.tflops is None and pick_device(resolved.train.device).type == "cpu"
    counts = [2**n for n in range(int(math.log2(up_to)) + 1)]
    if counts[-1] != up_to:
        counts.append(up_to)
    if machine.tflops is None:  # no more workers than this machine has cores or GPUs for
        counts = [n for n in counts if n <= (machine.cores if shares_cores else 1)]
    if shares_cores:
        machine = dataclasses.replace(machine, gpus=max(counts))
    workloads: dict[int, Workload] = {}
    forecasts = []
    for count in counts:
        threads = max(1, machine.cores // count) if shares_cores else (resolved.train.threads or 1)
        if threads not in workloads:
            others = count - 1 if shares_cores else 0
            with_threads = resolved.override("train.threads", threads)
            workloads[threads] = step_time.measure_workload(with_threads, dataset, others)
        workload, one_worker = workloads[threads], next(iter(workloads.values()))
        forecasts.append(MeasuredForecast(workload, forecast(workload, machine, count, one_worker=one_worker)))
    return forecasts


def describe(forecasts: list[MeasuredForecast], machine: MachineType) -> Iterator[Any]:
    """What was measured, the forecasts of a step and of the whole training in a table each, and warnings."""
    first = forecasts[0].workload
    yield (
        f"measured here: {1000 * first.image_seconds:.2f} ms per image plus {1000 * first.step_seconds:.1f} ms per "
        f"step, {first.parameters:,} parameters, {first.flops / 1e9:.2f} GFLOP per image, batch {first.batch}"
    )
    yield from _describe_doubts([one.workload for one in forecasts])
    steps = _make_table(f"milliseconds per step on {machine.name}")
    training = _make_table("training")
    for name in ("workers", "step", "compute", "network", "waiting", "input", "efficiency"):
        steps.add_column(name, justify="right")
    names = ["workers", "images/s", "GiB", "Gbit/s", "time"]
    for name in names + (["dollars", "spot"] if machine.dollars_an_hour else []):
        training.add_column(name, justify="right")
    for one in forecasts:
        f = one.forecast
        parts = (f"{1000 * seconds:,.1f}" for seconds in (f.step, f.compute, f.exchange, f.waiting, f.input))
        is_known = f.workers == 1 or machine.tflops is not None or all(map(_is_stable, (first, one.workload)))
        steps.add_row(str(f.workers), *parts, f"{f.efficiency:.0%}" if is_known else "not known")
        row = [str(f.workers), f"{f.images_per_second:,.0f}", f"{f.memory_gib:.2f}"]
        row += [f"{f.network_gbit:.2f}", _format_range(f.hours, f.hours_range)]
        if machine.dollars_an_hour:
            row += [f"{f.dollars:,.2f}", f"{f.spot_dollars:,.2f}" if f.spot_dollars is not None else ""]
        training.add_row(*row)
    yield steps
    yield training
    yield "efficiency: relative to one worker; waiting: for the slowest worker; network: not hidden by compute"
    for one in forecasts:
        for warning in find_waste(one.workload, machine, one.forecast):
            yield f"note: {warning}"
    if machine.tflops is not None:
        yield "note: nothing was measured on this machine type: a training is assumed to reach a third of its peak"


def _describe_doubts(workloads: Sequence[Workload]) -> Iterator[str]:
    """What makes the measured times uncertain: other work on the machine, or steps that disagree."""
    busy = max(one.busy_share for one in workloads)
    slowest = max(workloads, key=lambda one: one.slowest)
    if busy > BUSY_SHARE:
        yield (
            f"note: this machine is busy: other work took up to {busy:.0%} of the processor's time from the steps that "
            "were measured, so they may be faster without it; plan again when it is idle"
        )
    elif slowest.slowest > STABLE_SPREAD:
        yield (
            f"note: the steps that were measured do not agree: the slowest took {slowest.slowest:.1f} times as long as "
            "most; plan again for a surer forecast"
        )


def _is_stable(workload: Workload) -> bool:
    return workload.slowest <= STABLE_SPREAD * workload.fastest


def _make_table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=None, pad_edge=False)


def _format_range(hours: float, ends: tuple[float, float]) -> str:
    """The time, or the shortest and the longest where they differ enough to matter."""
    low, high = map(_format_hours, ends)
    return _format_hours(hours) if ends[1] <= STABLE_SPREAD * ends[0] else f"{low} to {high}"


def _format_hours(hours: float) -> str:
    """In seconds, minutes or hours."""
    if hours < 1 / 60:
        return f"{3600 * hours:.1f} s"
    return f"{60 * hours:.1f} min" if hours < 2 else f"{hours:,.1f} h"


def as_result(forecasts: list[MeasuredForecast], machine: MachineType) -> dict[str, Any]:
    """As in result.json."""
    rows = [dataclasses.asdict(one.forecast) | {"step": one.forecast.step} for one in forecasts]
    return {"kind_of_machine": machine.name, "load": dataclasses.asdict(forecasts[0].workload), "forecasts": rows}
