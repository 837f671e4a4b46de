from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from al_lightning.pool.sampler import PartSampler


@pytest.mark.parametrize(("old", "new", "size", "epochs"), [(20, 5, 15, 4), (7, 3, 9, 7), (4, 2, 2, 3), (3, 9, 10, 6)])
def test_every_old_record_has_its_turn(old: int, new: int, size: int, epochs: int) -> None:
    sampler = PartSampler(old=old, new=new, size=size, seed=0)
    seen: Counter[int] = Counter()
    for _ in range(epochs):
        positions = list(sampler)
        assert len(positions) == len(set(positions)) == len(sampler) == size
        assert set(range(old, old + new)) <= set(positions)
        seen.update(positions)
    counts = [seen[i] for i in range(old)]
    assert max(counts) - min(counts) <= 1


def test_the_order_is_the_seeds_and_another_every_epoch() -> None:
    a, b, c = (PartSampler(old=30, new=10, size=40, seed=seed) for seed in (1, 1, 2))
    first, second = list(a), list(a)
    assert sorted(first) == sorted(second)
    assert first != second
    assert list(b) == first
    assert list(c) != first


def test_a_loader_reads_by_it() -> None:
    data = TensorDataset(torch.arange(12))
    loader = DataLoader(data, batch_size=5, sampler=PartSampler(old=8, new=4, size=8, seed=0))
    epochs = [torch.cat([x for (x,) in loader]).tolist() for _ in range(2)]
    assert sorted([*epochs[0], *epochs[1]]) == sorted([*range(8), *range(8, 12), *range(8, 12)])
