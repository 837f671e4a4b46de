"""Several answers to one record: what is drawn, what is left alone, and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from al_lightning import DatasetOracle
from al_lightning.errors import OutputMismatch
from al_lightning.query import DistanceWeighted
from al_lightning.query.base import SampledStrategy
from al_lightning.scoring import Outputs
from al_lightning.scoring.samples import dropout_on, dropping
from al_lightning.scoring.trainer import ask_candidates
from tests.helpers import CLASSES, WIDTH, Net, learner, net, pool_of, quiet


@dataclass(frozen=True)
class EvenRounds(SampledStrategy):
    """Deviation of the first class's probability over the answers."""

    @staticmethod
    def score(samples: Iterable[Tensor]) -> Tensor:
        return torch.stack([p[..., 0] for p in samples]).std(dim=0)


class Dropping(Net):
    """A Net with dropout and BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, CLASSES))


class Ensemble(Net):
    """Three heads, whose logits are a multiple of the first's."""

    asked = 0

    def infer(self, batch):
        self.asked += 1
        logits = self(batch[0])
        return Outputs(logits, members=torch.stack([logits, 2 * logits, -logits]))


def dropping_model() -> Dropping:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dropping()


def ask(model, strategy, ids=range(20), *, seed=0, **pool):
    return ask_candidates(quiet(), model, pool_of(**pool), np.array(ids), strategy, seed=seed)


def test_answers_differ_and_the_seed_decides_how():
    scores = [ask(dropping_model(), EvenRounds(passes=5), seed=seed)[0]["score"] for seed in (0, 0, 1)]
    assert (scores[0] > 0).all()
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_batchnorm_learns_nothing_from_the_pool_and_normalises_by_what_it_learnt():
    model = dropping_model()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ask(model, EvenRounds(passes=5))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    model.eval()
    with dropout_on(model):
        assert [type(m).__name__ for m in model.modules() if m.training] == ["Dropout"]
    assert not any(m.training for m in model.modules())


def test_passes_are_on_the_bill():
    once, often = (ask(dropping_model(), EvenRounds(passes=n))[1] for n in (2, 10))
    # the first batch of 8 is asked once more, to see whether the model is an ensemble
    assert often / once == pytest.approx((10 * 20 + 8) / (2 * 20 + 8))


def test_an_ensemble_is_asked_once():
    model = Ensemble()
    arrays, flops, _, _ = ask(model, EvenRounds(passes=50))
    assert model.asked == 3  # batches of 8
    x = pool_of().eval_data.tensors[0][:20]
    with torch.no_grad():
        logits = model.eval()(x)
    wanted = torch.stack([v.softmax(1)[:, 0] for v in (logits, 2 * logits, -logits)]).std(dim=0)
    np.testing.assert_allclose(arrays["score"], wanted, rtol=1e-5)
    assert flops == pytest.approx(20 * 2 * (WIDTH * 8 + 8 * CLASSES))


def test_a_model_that_always_answers_the_same_is_refused():
    with pytest.raises(OutputMismatch, match=r"Net has no dropout layer.*Outputs\(members="):
        ask(net(), EvenRounds())


def test_layers_that_hold_their_own_rate_drop_too():
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True), 1, enable_nested_tensor=False
    ).eval()
    x = torch.randn(2, 3, 8)
    with torch.inference_mode(), dropout_on(encoder):
        assert not torch.equal(encoder(x), encoder(x))
    assert not dropping(nn.LSTM(4, 4))
    assert dropping(nn.LSTM(4, 4, num_layers=2, dropout=0.1))


def test_fewer_than_two_passes_are_refused():
    with pytest.raises(ValueError, match=r"EvenRounds\(passes=1\): allowed: 2 or more"):
        EvenRounds(passes=1)


def test_a_run_that_samples_is_the_same_run_twice(tmp_path):
    queries = []
    for name in "ab":
        model = dropping_model()
        run = learner(tmp_path / name, query=DistanceWeighted(EvenRounds(passes=3), dims=2), oracle=DatasetOracle())
        queries.append(run.fit(model, pool_of(features=pool_of().eval_data.tensors[0].numpy())).labelled.tolist())
    assert queries[0] == queries[1]
