from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.harness import outcome
from tests.compat.more_shapes import MORE_SHAPES
from tests.compat.shapes import SHAPES, Shape

ALL = [*SHAPES, *MORE_SHAPES]

pytestmark = [
    pytest.mark.filterwarnings("ignore:classes .* have no labelled"),
    pytest.mark.filterwarnings("ignore:You are using the `dataloader_iter` step flavor"),
    pytest.mark.filterwarnings("ignore:Found `dataloader_iter` argument"),
    pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist"),
    pytest.mark.filterwarnings("ignore:You requested to overfit but enabled train dataloader shuffling"),
    pytest.mark.filterwarnings("ignore:You are trying to `self.log"),
    pytest.mark.filterwarnings("ignore:Attribute 'net' is an instance of `nn.Module`"),
    pytest.mark.filterwarnings("ignore:Found .* module\\(s\\) in eval mode"),
]


@pytest.mark.parametrize("shape", ALL, ids=lambda shape: shape.name)
def test_a_run_trains_and_scores_as_plain_lightning_would(shape: Shape, tmp_path: Path) -> None:
    found = outcome(shape, tmp_path)
    assert found.broken == [], found


def test_the_table_is_wide_enough() -> None:
    assert len({shape.name for shape in ALL}) == len(ALL) >= 60
