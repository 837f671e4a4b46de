"""What the labels of a pilot say, drawn at random from a pool: of 1 % of what is bought, and of 1 % of the pool.

Whether a pilot says anything is decided beside what the labels of the other sources look like. The rule
(:mod:`al_lightning.planning.signal`) was set on made-up clusters before a pilot was drawn. There 20 to 25 labels, of
26 to 77 classes, could in no case be told from shuffled ones with confidence, clean ones mostly could, and ones of
which 60 % were shuffled could not; of 100 to 160, shuffled ones were seen in 71 % to 86 % of the cases, with 0 % to 8
% of false warnings. After the pilots had been looked at once, hand-made labels with a class of a hundredth, and many
that say little, were found to be warned about: what is expected of unequal classes was corrected, and p <= 0.05 rules
a warning out. Both are in the results; neither was chosen by them.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from al_lightning.planning.signal import MOST_RECORDS, LabelSignal, Reference, effect_of, label_signal
from benchmarks.protocols import PROTOCOLS

SHARE = 0.01
PILOTS = range(20)
SEEDS = range(3)
"""Of the data; pilot i is drawn from the data of seed i modulo 3."""
CLEAN = ("letter", "banking77", "fashion-mnist", "digits", "adult", "goemotions")
"""A protocol of every source, as it is."""


@dataclass(frozen=True)
class Pilots:
    """What the pilots of a data set said.

    Args:
        reading: ``labels``: 1 % of what is bought; ``pool``: 1 % of the pool.
        signals: one per pilot.
    """

    reading: str
    signals: Sequence[LabelSignal]

    def to_json(self) -> dict[str, Any]:
        """Its row of the results."""
        found = [signal.finding for signal in self.signals]
        return {
            "reading": self.reading,
            "records": statistics.mean(signal.records for signal in self.signals),
            "pairs": statistics.mean(signal.pairs for signal in self.signals),
            **{finding: found.count(finding) / len(found) for finding in ("nothing", "unclear", "something")},
            "p_values": [signal.p_value for signal in self.signals],
            "odds": [float(f"{signal.odds:.3g}") for signal in self.signals],
        }


@lru_cache(maxsize=3)
def _records(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    protocol = PROTOCOLS[name]
    arrays = protocol.arrays(seed)
    x = arrays.x.flatten(1).numpy() if protocol.features is None else protocol.features(seed)
    return x, arrays.y.numpy()


def _drawn(name: str, records: int, pilot: int) -> tuple[np.ndarray, np.ndarray]:
    seed = pilot % len(SEEDS)
    x, y = _records(name, seed)
    ids = np.random.default_rng([pilot, 4]).permutation(len(y))[:records]
    return x[ids], y[ids]


def pilots(name: str, references: Sequence[Reference]) -> dict[str, Pilots]:
    """The pilots of both readings.

    Args:
        name: of a protocol.
        references: what the labels of other sources look like.
    """
    bought, pool = PROTOCOLS[name].labels, len(_records(name, 0)[1])
    return {
        reading: Pilots(
            reading,
            [label_signal(*_drawn(name, round(SHARE * of), pilot), references=references) for pilot in PILOTS],
        )
        for reading, of in (("labels", bought), ("pool", pool))
    }


def references() -> dict[str, Reference]:
    """Source of data -> what its labels look like: the mean of three parts of 500 records."""
    found = {}
    for name in CLEAN:
        seen = [effect_of(*_drawn(name, MOST_RECORDS, pilot)) for pilot in SEEDS]
        found[name] = Reference(*(statistics.mean(values) for values in zip(*seen, strict=True)))
    return found
