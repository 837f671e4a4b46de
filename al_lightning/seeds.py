"""One seeded generator per (seed, round, purpose): what is drawn in one place never shifts what is drawn in another."""

from __future__ import annotations

import zlib

import numpy as np


def _entropy(seed: int, round: int, purpose: str) -> list[int]:
    return [seed, round, zlib.crc32(purpose.encode())]


def generator(seed: int, round: int, purpose: str) -> np.random.Generator:
    """A NumPy generator for one purpose in one round."""
    return np.random.default_rng(_entropy(seed, round, purpose))


def number(seed: int, round: int, purpose: str) -> int:
    """A seed for torch's global generator, for one purpose in one round."""
    return int(np.random.SeedSequence(_entropy(seed, round, purpose)).generate_state(1, np.uint32)[0])
