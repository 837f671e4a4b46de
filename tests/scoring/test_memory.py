"""Memory that runs out while scoring: smaller batches, the same scores, one word about it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from al_lightning.query import Margin
from al_lightning.scoring.trainer import ask_candidates
from tests.helpers import Net, learner, net, pool_of, quiet

OUT_OF_MEMORY = {
    "cuda": "CUDA out of memory. Tried to allocate 2.00 GiB",
    "cpu": "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried to allocate",
}


class Large(Net):
    """Has room for so many records outside of training."""

    def __init__(self, room: int, message: str = OUT_OF_MEMORY["cuda"]) -> None:
        super().__init__()
        self.load_state_dict(net().state_dict())
        self.room, self.message, self.sizes = room, message, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        if self.trainer.predicting:
            self.sizes.append(len(x))
            if len(x) > self.room:
                raise RuntimeError(self.message)
        return super().forward(x)


def ask(model: Net, pool: Any) -> np.ndarray:
    return ask_candidates(quiet(), model, pool, np.arange(59, 10, -1), Margin(), seed=0)[0]["score"]


@pytest.mark.parametrize("message", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY)
def test_batches_are_halved_until_they_fit_and_the_scores_are_the_same(message: str) -> None:
    pool, model = pool_of(eval_batch_size=16), Large(3, message)
    with pytest.warns(UserWarning, match=r"16 records at once do not fit in memory while scoring") as said:
        scores = ask(model, pool)
    assert sum("do not fit" in str(one.message) for one in said) == 1
    np.testing.assert_allclose(scores, ask(net(), pool_of()), rtol=1e-6)
    assert model.sizes[:4] == [16, 8, 4, 2]
    assert max(model.sizes[4:]) <= 3
    assert sum(size for size in model.sizes if size <= 3) == 49, "each record once"
    tried, model.sizes = model.sizes, []
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*do not fit in memory")
        np.testing.assert_array_equal(ask(model, pool), scores)
    assert max(model.sizes) == 2, "what was learnt stays"
    assert len(tried) > len(model.sizes)


def test_what_does_not_fit_alone_is_raised() -> None:
    with (
        pytest.warns(UserWarning, match="do not fit in memory"),
        pytest.raises(RuntimeError, match="CUDA out of memory"),
    ):
        ask(Large(0), pool_of())


def test_other_errors_are_raised_at_once() -> None:
    model = Large(3, "CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError, match="illegal memory access"):
        ask(model, pool_of())
    assert model.sizes == [8]


def test_a_run_goes_on_to_the_same_labels(tmp_path: Path) -> None:
    whole = learner(tmp_path / "whole").fit(net(), datamodule=pool_of())
    with pytest.warns(UserWarning, match="8 records at once do not fit"):
        small = learner(tmp_path / "small").fit(Large(2), datamodule=pool_of())
    assert small.labelled.tolist() == whole.labelled.tolist()
    assert small.bill.records_inferred == whole.bill.records_inferred
    assert small.bill.flops == whole.bill.flops
