"""Energy: on the bill where it was measured, and nowhere else."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from al_lightning.cost.energy import CodeCarbonEnergy, EnergyUnknown, NvmlEnergy
from al_lightning.errors import MissingExtra
from al_lightning.report.read import read
from tests.helpers import learner, net, pool_of, quiet


class Counter:
    """A stand-in for a meter: every reading is one more kWh, and it can only be read while open."""

    def __init__(self) -> None:
        self.readings = self.closed = 0

    def kwh(self) -> float:
        self.readings += 1
        return float(self.readings)

    def close(self) -> None:
        self.closed += 1


class NVMLError(Exception):
    pass


def nvml(counters: list[float | None]) -> Any:
    def energy(handle: int) -> float:
        value = counters[handle]
        if value is None:
            raise NVMLError("Not Supported")
        return value

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: len(counters),
        nvmlDeviceGetHandleByIndex=lambda device: device,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_kwh_stand_beside_the_seconds_of_what_was_measured(tmp_path):
    meter = Counter()
    result = learner(tmp_path, energy=meter, stop_set=6).fit(net(), datamodule=pool_of())
    bill = result.bill
    # A difference of two readings around the preflight, three fits, two scorings and three passes over the stop set.
    assert bill.kwh == {"preflight": 1.0, "train": 3.0, "score": 2.0, "agree": 3.0}
    written = json.loads(json.dumps(bill.to_json()))
    assert written["kwh"] == 9.0
    assert {phase: line["kwh"] for phase, line in written["phases"].items() if "kwh" in line} == bill.kwh
    assert "kwh" not in written["phases"]["select"]
    assert "9 kWh measured (preflight 1, train 3" in str(bill)
    assert meter.closed == 1
    assert read(tmp_path).bill.kwh == bill.kwh


def test_without_a_meter_no_bill_speaks_of_energy(tmp_path):
    result = learner(tmp_path).fit(net(), datamodule=pool_of())
    assert "kwh" not in json.dumps(result.bill.to_json()).lower()
    assert "kWh" not in str(result.bill)
    assert not read(tmp_path).bill.kwh


def test_a_run_that_goes_on_keeps_what_was_measured(tmp_path):
    def stop(record, model):
        raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        learner(tmp_path, energy=Counter(), on_round=stop).fit(net(), datamodule=pool_of())
    result = learner(tmp_path, energy=Counter()).fit(net(), datamodule=pool_of())
    assert result.bill.kwh["train"] == 3.0


def test_a_run_may_go_on_without_the_meter_it_began_with(tmp_path):
    def stop(record, model):
        raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        learner(tmp_path, energy=Counter(), on_round=stop).fit(net(), datamodule=pool_of())
    result = learner(tmp_path).fit(net(), datamodule=pool_of())
    assert result.bill.kwh == {"preflight": 1.0, "train": 1.0}


def test_nvml_counts_the_gpus_that_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([3.6e9, 7.2e9]))
    assert NvmlEnergy().kwh() == pytest.approx(3.0)
    assert NvmlEnergy(devices=[1]).kwh() == pytest.approx(2.0)


def test_a_gpu_without_a_counter_is_refused_before_the_folder_is_made(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([3.6e9, None]))
    folder = tmp_path / "run"
    with pytest.raises(EnergyUnknown, match="GPUs all: Not Supported"):
        learner(folder, quiet(), energy=NvmlEnergy()).fit(net(), datamodule=pool_of())
    assert not folder.exists() or not (folder / "run.sqlite").exists()


@pytest.mark.parametrize("meter", [NvmlEnergy(), CodeCarbonEnergy()])
def test_a_meter_that_is_not_installed_names_the_extra(meter, monkeypatch):
    for module in ("pynvml", "codecarbon"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"al_lightning\[energy\]"):
        meter.kwh()


def test_codecarbon_is_asked_offline_and_stopped(monkeypatch):
    asked: dict[str, Any] = {}
    steps: list[str] = []

    class Tracker:
        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def start_task(self) -> None:
            steps.append("start task")

        def stop_task(self) -> Any:
            steps.append("stop task")
            return SimpleNamespace(energy_consumed=0.25)

        def stop(self) -> None:
            steps.append("stop")

    monkeypatch.setitem(sys.modules, "codecarbon", SimpleNamespace(OfflineEmissionsTracker=Tracker))
    meter = CodeCarbonEnergy()
    assert [meter.kwh(), meter.kwh(), meter.kwh()] == [0.0, 0.25, 0.5]
    meter.close()
    assert steps[-2:] == ["stop task", "stop"]
    assert steps.count("start task") == steps.count("stop task")
    assert asked["save_to_file"] is False
