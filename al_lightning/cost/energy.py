"""Energy, where something measures it. kWh are never made from seconds or FLOPs here: what is not measured has none."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

from al_lightning.errors import ActiveLearningError, MissingExtra
from al_lightning.fit.ranks import Ranks

_MILLIJOULES = 3.6e9
"""In a kilowatt-hour."""


class EnergyMeter(Protocol):
    """A counter of energy; anything with these two methods is one."""

    def kwh(self) -> float:
        """Kilowatt-hours since some moment that stays the same; it never falls."""

    def close(self) -> None:
        """Let go of what it reads; the next reading may open it again, and count from another moment."""


class EnergyUnknown(ActiveLearningError):
    """A meter that cannot be read on this machine."""


class NvmlEnergy:
    """Read the total-energy counters of NVIDIA GPUs, Volta and later, through NVML.

    The GPUs alone, whoever uses them: not CPU, memory or cooling. The driver counts; a reading takes microseconds.

    Args:
        devices: NVML's numbers of the GPUs, whatever ``CUDA_VISIBLE_DEVICES`` says; default: all of the machine.

    Example:
        >>> result = learner.fit(model, pool, energy=NvmlEnergy())  # doctest: +SKIP
    """

    def __init__(self, devices: Sequence[int] | None = None) -> None:
        self.devices = None if devices is None else tuple(devices)
        self._nvml: Any = None

    def kwh(self) -> float:
        """Kilowatt-hours since the driver was loaded.

        Raises:
            MissingExtra: nvidia-ml-py is not installed.
            EnergyUnknown: no driver, no such GPU, or one without a counter.
        """
        nvml = self._nvml or _imported("pynvml", "nvidia-ml-py")
        try:
            if self._nvml is None:
                nvml.nvmlInit()
                self._nvml = nvml
            devices = range(nvml.nvmlDeviceGetCount()) if self.devices is None else self.devices
            handles = [nvml.nvmlDeviceGetHandleByIndex(device) for device in devices]
            return float(sum(nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for handle in handles)) / _MILLIJOULES
        except nvml.NVMLError as error:
            raise EnergyUnknown(
                f"NVML has no energy counter for GPUs {'all' if self.devices is None else self.devices}: {error}. "
                "Allowed: GPUs of the Volta generation and later that nvidia-smi lists; leave energy= out elsewhere."
            ) from error

    def close(self) -> None:
        """Shut NVML down."""
        if self._nvml is not None:
            self._nvml.nvmlShutdown()
            self._nvml = None


class CodeCarbonEnergy:
    """Measure CPU, memory and GPUs of this machine by codecarbon, offline: nothing is sent or written.

    codecarbon reads the counters there are (RAPL, NVML) and itself estimates what has none: a CPU without RAPL by its
    rated power, memory by its size. It prints which.

    Args:
        country: ISO code of three letters; codecarbon asks for one, kWh do not depend on it.

    Example:
        >>> result = learner.fit(model, pool, energy=CodeCarbonEnergy())  # doctest: +SKIP
    """

    def __init__(self, country: str = "USA") -> None:
        self.country = country
        self._tracker: Any = None
        self._kwh = 0.0

    def kwh(self) -> float:
        """Kilowatt-hours since the first reading.

        Raises:
            MissingExtra: codecarbon is not installed.
        """
        if self._tracker is None:
            codecarbon = _imported("codecarbon", "codecarbon")
            self._tracker = codecarbon.OfflineEmissionsTracker(
                country_iso_code=self.country, save_to_file=False, log_level="warning", allow_multiple_runs=True
            )
        else:
            self._kwh += float(self._tracker.stop_task().energy_consumed)
        self._tracker.start_task()
        return self._kwh

    def close(self) -> None:
        """Stop codecarbon's thread."""
        if self._tracker is not None:
            self._tracker.stop_task()
            self._tracker.stop()
            self._tracker = None


def _imported(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(package, "energy", "measuring energy") from error


class EnergyLedger:
    """kWh by phase, as they were measured around fits and scoring.

    The meter is rank 0's: what other machines of a job take is not in it.

    Args:
        meter: None measures nothing.
        ranks: of the job.
    """

    def __init__(self, meter: EnergyMeter | None, ranks: Ranks) -> None:
        self._meter, self._ranks = meter, ranks
        self.kwh: dict[str, float] = {}

    def reading(self) -> float:
        """The meter's counter on rank 0; 0 elsewhere, and without a meter."""
        return 0.0 if self._meter is None or self._ranks.rank else self._meter.kwh()

    def note(self, phase: str, since: float, *, before: float = 0.0) -> None:
        """Put what was taken since a reading on a phase; every rank has to call it, or none.

        Args:
            phase: of the ledger.
            since: an earlier reading.
            before: kWh that an interrupted process has put into the same work.
        """
        if self._meter is not None:
            spent = self._ranks.broadcast(max(0.0, self.reading() - since))
            self.kwh[phase] = self.kwh.get(phase, 0.0) + before + spent

    def close(self) -> None:
        """Let go of the meter."""
        if self._meter is not None:
            self._meter.close()


__all__ = ["CodeCarbonEnergy", "EnergyLedger", "EnergyMeter", "EnergyUnknown", "NvmlEnergy"]
