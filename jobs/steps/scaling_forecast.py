"""A plan for N workers: measured here, forecast by `classifier.profiling.scaling`, and told as a table."""

import dataclasses
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.fields import suggest
from classifier.config.files import read_yaml
from classifier.errors import ConfigError
from classifier.profiling import step_time
from classifier.profiling.scaling import Forecast, MachineType, Workload, forecast, find_waste
from classifier.runtime.distributed import pick_device
from classifier.training.resolve import resolve


@dataclass(frozen=True)
class MeasuredForecast:
    """A forecast with the load that it is made of."""

    workload: Workload
    forecast: Forecast


def find_machine_type(name: str, path: str) -> MachineType:
    """A machine from the file of prices, or this one. ConfigError names what is wrong in the file."""
    if name == "here":
        return MachineType(name="here", cores=len(os.sched_getaffinity(0)))
    table = read_yaml(path)
    if not isinstance(table, dict) or name not in table:
        known = [*table] if isinstance(table, dict) else []
        raise ConfigError(f"--kind {name}: {path} has no such machine{suggest(name, ['here', *known])}")
    fields = {field.name for field in dataclasses.fields(MachineType)} - {"name"}
    entry = table[name]
    if not isinstance(entry, dict) or not entry.keys() <= fields or "tflops" not in entry:
        raise ConfigError(f"{path}: {name} must have tflops, and of the rest only {', '.join(sorted(fields))}")
    wrong = [key for key, value in entry.items() if not isinstance(value, int | float) or not value > 0]
    if wrong:
        raise ConfigError(f"{path}: {name}.{wrong[0]} is {entry[wrong[0]]!r}: it must be a number above 0")
    return MachineType(name=name, **entry)


def forecast_workers(experiment: Experiment, kind: MachineType, up_to: int) -> list[MeasuredForecast]:
    """Forecasts for 1, 2, 4, ... workers. Workers that share this machine's cores are measured with their share."""
    dataset = data.load(experiment.data)
    resolved = resolve(experiment, dataset)
    shares_cores = kind.tflops is None and pick_device(resolved.train.device).type == "cpu"
    counts = [2**n for n in range(int(math.log2(up_to)) + 1)]
    if counts[-1] != up_to:
        counts.append(up_to)
    if kind.tflops is None:  # no more than there are here
        counts = [n for n in counts if n <= (kind.cores if shares_cores else 1)]
    loads: dict[int, Workload] = {}
    found = []
    for count in counts:
        threads = max(1, kind.cores // count) if shares_cores else (resolved.train.threads or 1)
        if threads not in loads:
            beside = count - 1 if shares_cores else 0
            loads[threads] = step_time.measure_workload(resolved.override("train.threads", threads), dataset, beside)
        load = loads[threads]
        here = dataclasses.replace(kind, gpus=max(counts)) if shares_cores else kind
        found.append(MeasuredForecast(load, forecast(load, here, count, one_worker=next(iter(loads.values())))))
    return found


def describe(planned: list[MeasuredForecast], kind: MachineType) -> Iterator[Any]:
    """For people."""
    first = planned[0].workload
    yield (
        f"measured here: {1000 * first.image_seconds:.2f} ms an image and {1000 * first.step_seconds:.1f} ms a step "
        f"beside, {first.parameters:,} parameters, {first.flops / 1e9:.2f} GFLOP an image, batch {first.batch}"
    )
    table = Table(title=f"on {kind.name}", title_justify="left", box=None, pad_edge=False)
    names = ["workers", "step", "compute", "network", "waiting", "input"]
    names += ["efficiency", "images/s", "GiB", "Gbit/s", "time"]
    for name in names + (["dollars", "spot"] if kind.dollars_an_hour else []):
        table.add_column(name, justify="right")
    for one in planned:
        f = one.forecast
        parts = (f"{1000 * seconds:.1f} ms" for seconds in (f.step, f.compute, f.exchange, f.waiting, f.input))
        row = [str(f.workers), *parts, f"{f.efficiency:.0%}", f"{f.images_per_second:,.0f}", f"{f.memory_gib:.2f}"]
        row += [f"{f.network_gbit:.2f}", _format_hours(f.hours)]
        if kind.dollars_an_hour:
            row += [f"{f.dollars:,.2f}", f"{f.spot_dollars:,.2f}" if f.spot_dollars is not None else ""]
        table.add_row(*row)
    yield table
    yield "efficiency: against one worker; waiting: for the slowest worker; network: what the computing does not hide"
    for one in planned:
        for word in find_waste(one.workload, kind, one.forecast):
            yield f"note: {word}"
    if kind.tflops is not None:
        yield "note: nothing was measured on such a machine: a third of its peak is taken as what a training reaches"


def _format_hours(hours: float) -> str:
    """In the unit that a person would say it in."""
    if hours < 1 / 60:
        return f"{3600 * hours:.1f} s"
    return f"{60 * hours:.1f} min" if hours < 2 else f"{hours:,.1f} h"


def as_result(planned: list[MeasuredForecast], kind: MachineType) -> dict[str, Any]:
    """For result.json."""
    rows = [dataclasses.asdict(one.forecast) | {"step": one.forecast.step} for one in planned]
    return {"kind_of_machine": kind.name, "load": dataclasses.asdict(planned[0].workload), "forecasts": rows}
