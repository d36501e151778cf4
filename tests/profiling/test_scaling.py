"""The scaling model: its arithmetic, and its agreement with published runs."""

import dataclasses
import itertools
import math

import pytest

from classifier.profiling import scaling
from classifier.profiling.scaling import MachineType, Workload, find_waste, forecast

# ResNet-50 on ImageNet: 25.6 million parameters, 4.1 GFLOP (multiply-adds twice) forward, three times that in all.
RESNET50 = Workload(
    batch=256,
    images=1_281_167,
    epochs=90,
    parameters=25_557_032,
    image_seconds=1 / 225,
    step_seconds=0.0,
    input_seconds=0.0,
    flops=3 * 8.2e9,
    memory_bytes=20e9,
)


def test_one_worker_takes_the_measured_time():
    workload = dataclasses.replace(RESNET50, batch=32, step_seconds=0.01)
    found = forecast(workload, MachineType(name="here"), 1)
    assert found.efficiency == 1
    assert found.step == pytest.approx(32 / 225 + 0.01)
    assert found.hours == pytest.approx(90 * math.ceil(1_281_167 / 32) * found.step / 3600)
    assert found.network_gbit == found.exchange == found.waiting == 0


def test_overhead_measured_on_a_cpu_is_not_a_gpus():
    here, gpu = MachineType(name="here"), MachineType(name="g5.xlarge", tflops=70)
    slow = dataclasses.replace(RESNET50, step_seconds=1.0, batches=8)
    compute_seconds = 256 * RESNET50.flops / (scaling.ASSUMED_UTILISATION * 70e12)
    assert forecast(slow, here, 1).step == pytest.approx(256 / 225 + 1)
    assert forecast(slow, gpu, 1).step == pytest.approx(compute_seconds)
    assert forecast(slow, gpu, 64).compute == pytest.approx(8 * scaling.MAX_LAUNCH_SECONDS)
    quick = dataclasses.replace(slow, step_seconds=0.05)
    assert forecast(quick, gpu, 64).compute == pytest.approx(0.05)


def test_forecast_matches_facebooks_run_of_2017():
    """Goyal et al.: 32 images per P100, 8 GPUs per machine, 50 Gbit Ethernet; about 90 % from 8 to 256 GPUs."""
    machine = MachineType(name="big basin", gpus=8, network_gbit=50, cores=80)
    by_8, by_256 = (forecast(dataclasses.replace(RESNET50, batch=32 * n), machine, n) for n in (8, 256))
    efficiency = by_256.images_per_second / by_8.images_per_second / 32
    assert efficiency == pytest.approx(0.90, abs=0.07)


def test_forecast_matches_sonys_run_of_2018():
    """Mikami et al.: 2,176 V100, 4 per machine, 2 x 100 Gbit InfiniBand, fp16 gradients; 91.6 % of one machine."""
    machine = MachineType(name="abci", gpus=4, network_gbit=200, cores=40)
    fast = dataclasses.replace(RESNET50, image_seconds=1 / 700)
    one, all_ = (forecast(dataclasses.replace(fast, batch=64 * n), machine, n, gradient_bytes=2) for n in (4, 2176))
    assert all_.images_per_second / one.images_per_second / 544 == pytest.approx(0.916, abs=0.05)


def test_more_workers_on_one_batch_are_less_efficient():
    machine = MachineType(name="g5.xlarge", tflops=70, network_gbit=10, dollars_an_hour=1.0, spot_dollars_an_hour=0.4)
    found = [forecast(RESNET50, machine, n) for n in (1, 2, 4, 8, 16)]
    assert all(a.efficiency > b.efficiency for a, b in itertools.pairwise(found))
    assert all(a.dollars < b.dollars for a, b in itertools.pairwise(found))
    assert found[0].dollars == pytest.approx(found[0].hours)
    assert found[3].machines == 8
    assert found[0].spot_dollars == pytest.approx(0.4 * found[0].hours)


def test_find_waste_names_batch_network_input_and_memory():
    machine = MachineType(name="slow net", network_gbit=1, memory_gib=1)
    notes = " ".join(find_waste(RESNET50, machine, forecast(RESNET50, machine, 64)))
    assert "64 workers share a batch of 256: 4.0 images each" in notes
    assert "--data.batch 2048" in notes
    assert "on the network" in notes
    slow_input = dataclasses.replace(RESNET50, input_seconds=0.1)
    assert "waiting for images" in " ".join(find_waste(slow_input, machine, forecast(slow_input, machine, 1)))
    assert "GiB and has 1" in " ".join(find_waste(RESNET50, machine, forecast(RESNET50, machine, 1)))
    assert find_waste(RESNET50, MachineType(name="here"), forecast(RESNET50, MachineType(name="here"), 1)) == []


@pytest.mark.parametrize("tflops", [None, 100])
@pytest.mark.parametrize(
    "changes",
    [
        {"image_seconds": 0.0, "step_seconds": 0.1},
        {"image_seconds": 0.0, "flops": 0.0},  # nothing took any time
        {"image_seconds": 0.0, "flops": 0.0, "parameters": 0},
    ],
)
def test_forecast_of_steps_that_took_no_measurable_time(tflops, changes):
    workload = dataclasses.replace(RESNET50, **changes)
    for count in (1, 8, 16):
        found = forecast(workload, MachineType(name="big", gpus=8, tflops=tflops, network_gbit=10), count)
        assert found.step > 0
        assert 0 < found.efficiency <= 1
        assert math.isfinite(found.images_per_second)


def test_no_efficiency_is_above_1_where_one_worker_was_measured_slower_than_its_share():
    slow = dataclasses.replace(RESNET50, image_seconds=17 * RESNET50.image_seconds)
    assert forecast(RESNET50, MachineType(name="here"), 2, one_worker=slow).efficiency == 1


def test_time_has_the_range_of_the_measured_steps():
    workload = dataclasses.replace(RESNET50, fastest=0.5, slowest=3.0)
    found = forecast(workload, MachineType(name="here"), 1)
    assert found.hours_range == pytest.approx((0.5 * found.hours, 3 * found.hours))
    rented = forecast(workload, MachineType(name="big", tflops=100), 1)  # its steps were not measured
    assert rented.hours_range == (rented.hours, rented.hours)
