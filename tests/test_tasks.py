"""Every task through the learner: the query is what the model's outputs say by hand, the labels arrive as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from al_lightning import DatasetOracle
from al_lightning.errors import OutputMismatch, PoolError
from al_lightning.oracles import SKIP, FunctionOracle
from al_lightning.oracles.oracle import check_labels, plain
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.items import ItemFormat
from al_lightning.pool.label_codec import decode, encode
from al_lightning.pool.views import LabelledView
from al_lightning.query import BALD, Entropy, LeastConfidence, Margin, Stochastic, Variance, VariationRatio
from al_lightning.round_size import Listed
from al_lightning.scoring import Outputs
from al_lightning.scoring.trainer import ask_candidates
from tests.helpers import Records, learner, quiet
from tests.pool.test_views import equal

N = 37  # with batches of 8 the last one holds five


class Model(L.LightningModule):
    """Any module and loss; notes the targets it was trained on."""

    def __init__(self, net: nn.Module, loss: Any) -> None:
        super().__init__()
        self.net, self.loss = net, loss
        self.targets: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.targets.append(y)
        return self.loss(self(x), y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class Ensemble(Model):
    """Three modules that answer apart."""

    def __init__(self, make: Any, loss: Any) -> None:
        super().__init__(nn.ModuleList(make() for _ in range(3)), loss)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([net(x) for net in self.net]).mean(dim=0)

    def infer(self, batch: Any) -> Outputs:
        members = torch.stack([net(batch[0]) for net in self.net])
        return Outputs(members.mean(dim=0), members=members)


class Tagger(Model):
    """A class for every token, from an embedding of it; padding is ignored by the loss."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Embedding(20, 6), nn.Linear(6, 4)), F.cross_entropy)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        assert input_ids.shape == attention_mask.shape
        # where there is no token, the model says anything
        return torch.where(attention_mask[..., None] == 1, self.net(input_ids), torch.nan)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.targets.append(batch["labels"])
        logits = self(batch["input_ids"], batch["attention_mask"])
        return self.loss(logits[batch["attention_mask"] == 1], batch["labels"][batch["labels"] >= 0])


def pad(items: list[dict[str, Any]]) -> dict[str, Tensor]:
    def padded(name: str, value: int) -> Tensor:
        return nn.utils.rnn.pad_sequence([i[name] for i in items], batch_first=True, padding_value=value)

    return {
        "input_ids": padded("input_ids", 0),
        "labels": padded("labels", -100),
        "attention_mask": nn.utils.rnn.pad_sequence([torch.ones(len(i["input_ids"])) for i in items], True),
    }


def softmax(x: Any) -> Any:
    return scipy.special.softmax(x, axis=-1)


def entropy(p: Any) -> Any:
    return scipy.stats.entropy(p, axis=-1)


def two(logits: Any) -> Any:
    p = scipy.special.expit(logits)
    return np.stack([1 - p, p], axis=-1)


def bald(p: Any) -> Any:
    return entropy(p.mean(axis=0)) - entropy(p).mean(axis=0)


def tabular(targets: Any) -> Any:
    x = np.random.default_rng(3).normal(size=(N, 5)).astype(np.float32)
    return TensorDataset(torch.from_numpy(x), torch.as_tensor(targets(x)))


def linear(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, width))


def images() -> Any:
    x = torch.tensor(np.random.default_rng(3).normal(size=(N, 1, 6, 5)), dtype=torch.float32)
    return TensorDataset(x, (x[:, 0] > 0.3).long() + (x[:, 0] > 1).long())


def sentences() -> Any:
    rng = np.random.default_rng(3)  # of its own: the records of a case do not depend on the cases before
    words = [torch.tensor(rng.integers(0, 20, size=rng.integers(1, 9))) for _ in range(N)]
    return Records([{"input_ids": w, "labels": w % 4} for w in words])


BCE = F.binary_cross_entropy_with_logits


def outputs_of(model: Any, data: Any) -> Any:
    """Logits of every record by itself, by the bare module."""
    model.eval()
    with torch.no_grad():
        if isinstance(model, Tagger):
            return [model.net(item["input_ids"]).double().numpy() for item in data.items]
        if isinstance(model, Ensemble):
            return np.stack([net(data.tensors[0]).double().numpy() for net in model.net])
        return model(data.tensors[0]).double().numpy()


# name: task, dataset, model, strategy, scores by hand from the bare model's outputs, further settings of the pool
CASES: dict[str, Any] = {
    "binary": ("binary", lambda: tabular(lambda x: (x[:, 0] > 0).astype(np.int64)),
               lambda: Model(linear(1), lambda z, y: BCE(z[:, 0], y.float())),
               Margin(), lambda z: 1 - np.abs(2 * scipy.special.expit(z[:, 0]) - 1), {}),
    "binary column": ("binary", lambda: tabular(lambda x: (x[:, :1] > 0).astype(np.float32)),
                      lambda: Model(linear(1), BCE), Entropy(), lambda z: entropy(two(z[:, 0])), {}),
    "binary votes": ("binary", lambda: tabular(lambda x: (x[:, 0] > 0).astype(np.float32)),
                     lambda: Ensemble(lambda: linear(1), lambda z, y: BCE(z[:, 0], y)),
                     BALD(), lambda z: bald(two(z[..., 0])), {}),
    "multilabel": ("multilabel", lambda: tabular(lambda x: (x[:, :3] > 0).astype(np.float32)),
                   lambda: Model(linear(3), BCE), Entropy(), lambda z: entropy(two(z)).mean(axis=1), {}),
    "multilabel max": ("multilabel", lambda: tabular(lambda x: (x[:, :3] > 0).astype(np.int64)),
                       lambda: Model(linear(3), lambda z, y: BCE(z, y.float())),
                       Margin("max"), lambda z: (1 - np.abs(2 * scipy.special.expit(z) - 1)).max(axis=1), {}),
    "multilabel BALD": ("multilabel", lambda: tabular(lambda x: (x[:, :3] > 0).astype(np.float32)),
                        lambda: Ensemble(lambda: linear(3), BCE),
                        BALD("sum"), lambda z: bald(two(z)).sum(axis=1), {}),
    "segmentation": ("segmentation", images, lambda: Model(nn.Conv2d(1, 3, 3, padding=1), F.cross_entropy), Entropy(),
                     lambda z: entropy(softmax(np.moveaxis(z, 1, -1))).mean(axis=(1, 2)), {}),
    "segmentation top": ("segmentation", images, lambda: Model(nn.Conv2d(1, 3, 3, padding=1), F.cross_entropy),
                         Entropy("top"),
                         lambda z: np.sort(entropy(softmax(np.moveaxis(z, 1, -1))).reshape(N, -1))[:, -3:].mean(axis=1),
                         {}),
    "segmentation BALD": ("segmentation", images,
                          lambda: Ensemble(lambda: nn.Conv2d(1, 3, 3, padding=1), F.cross_entropy), BALD(),
                          lambda z: bald(softmax(np.moveaxis(z, 2, -1))).mean(axis=(1, 2)), {}),
    "tokens": ("tokens", sentences, Tagger, Entropy(), lambda z: np.array([entropy(softmax(t)).mean() for t in z]),
               {"target_key": "labels", "loader": {"collate_fn": pad}}),
    "tokens sum": ("tokens", sentences, Tagger, Margin("sum"),
                   lambda z: np.array([(1 - np.diff(np.sort(softmax(t))[:, -2:], axis=1)).sum() for t in z]),
                   {"target_key": "labels", "loader": {"collate_fn": pad}}),
    "regression": ("regression", lambda: tabular(lambda x: x[:, 0] - x[:, 1]),
                   lambda: Ensemble(lambda: nn.Sequential(linear(1), nn.Flatten(0)), F.mse_loss), Variance(),
                   lambda z: z.var(axis=0, ddof=1), {}),
    "regression of two": ("regression", lambda: tabular(lambda x: x[:, :2] * 3),
                          lambda: Ensemble(lambda: linear(2), F.mse_loss), Variance("sum"),
                          lambda z: z.var(axis=0, ddof=1).sum(axis=1), {}),
}  # fmt: skip


def seeded(make: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.mark.parametrize(
    ("case", "asked"),
    [(name, "dataset") for name in CASES]
    + [(name, "function") for name in ("multilabel", "segmentation", "tokens", "regression of two")],
)
def test_the_query_is_what_the_outputs_say(tmp_path: Path, case: str, asked: str) -> None:
    task, data, make, strategy, by_hand, settings = CASES[case]
    data, model = data(), seeded(make)
    scores: list[Any] = []
    pool = PoolDataModule(data, task=task, batch_size=8, **settings)
    truth = (lambda i: data[i]["labels"]) if task == "tokens" else (lambda i: data[i][1])
    oracle = DatasetOracle() if asked == "dataset" else FunctionOracle(truth)
    run = learner(
        tmp_path,
        quiet(),
        query=strategy,
        round_size=Listed([11, 7]),
        oracle=oracle,
        on_round=lambda record, m: scores.append(by_hand(outputs_of(m, data))),
    )
    result = run.fit(model, pool)
    first, second = result.labelled[:11], result.labelled[11:]
    left = np.setdiff1d(np.arange(N), first)
    expected = left[np.argsort(-scores[0][left])][:7]
    assert second.tolist() == expected.tolist()
    np.testing.assert_allclose(pool.state.scores[left], scores[0][left], rtol=2e-3, atol=2e-6)
    # the labels arrived as the dataset's own would have, in the last epoch as in the first
    own = torch.cat([truth(i).flatten() for i in result.labelled])
    trained = torch.cat([t[t != -100] for t in model.targets[-3:]])  # 18 labels, batches of 8
    assert trained.dtype == own.dtype
    torch.testing.assert_close(trained.sort().values, own.sort().values)
    # and they survive the store
    again = learner(tmp_path, quiet(), query=strategy, round_size=Listed([11, 7]), oracle=oracle)
    assert again.fit(seeded(make), PoolDataModule(data, task=task, batch_size=8, **settings)).labelled.tolist() == (
        result.labelled.tolist()
    )


@pytest.mark.parametrize("case", ["binary votes", "multilabel BALD", "segmentation BALD", "regression of two"])
def test_scores_of_shuffled_candidates_stand_beside_their_ids(case: str) -> None:
    task, data, make, strategy, by_hand, settings = CASES[case]
    data, model = data(), seeded(make)
    ids = np.random.default_rng(3).permutation(N)[:21]  # the last batch holds five
    pool = PoolDataModule(data, task=task, batch_size=8, **settings)
    arrays, *_ = ask_candidates(quiet(), model, pool, ids, strategy, seed=0)
    np.testing.assert_allclose(arrays["score"], by_hand(outputs_of(model, data))[ids], rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize("strategy", [Margin(), Entropy(), LeastConfidence(), BALD(), VariationRatio()], ids=repr)
def test_a_class_that_is_ruled_out_is_no_bad_score(strategy: Any) -> None:
    logits = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(0))
    logits[..., 1] = -torch.inf  # as a model does that knows which classes there can be
    without = logits[..., [0, 2, 3]]

    def score(logits: Tensor) -> Tensor:
        if "samples" in strategy.requires:
            return strategy.payload_of(Outputs(answer) for answer in logits)["score"]
        return strategy.payload(Outputs(logits[0]))["score"]

    torch.testing.assert_close(score(logits), score(without))


def test_variance_of_dropout_is_the_models_own() -> None:
    class Dropped(Model):
        """Its predictions' variance is known: that of a sum of inputs, each dropped by itself."""

        def __init__(self) -> None:
            super().__init__(nn.Sequential(nn.Dropout(0.5), nn.Linear(5, 2)), F.mse_loss)

    data, model = tabular(lambda x: x[:, :2]), seeded(Dropped)
    pool = PoolDataModule(data, task="regression", batch_size=8)
    ids = np.random.default_rng(0).permutation(N)
    arrays, *_ = ask_candidates(quiet(), model, pool, ids, Variance(passes=600), seed=0)
    weights = model.net[1].weight.detach().double().numpy()
    exact = ((weights**2) @ (data.tensors[0].double().numpy() ** 2).T).mean(axis=0)[ids]
    assert np.corrcoef(arrays["score"], exact)[0, 1] > 0.99
    assert arrays["score"].mean() == pytest.approx(exact.mean(), rel=0.05)


def test_strategies_refuse_tasks_they_cannot_read(tmp_path: Path) -> None:
    regression = PoolDataModule(tabular(lambda x: x[:, 0]), task="regression")
    classes = PoolDataModule(tabular(lambda x: (x[:, 0] > 0).astype(np.int64)), task="multiclass")
    for i, (pool, strategy) in enumerate(
        [(regression, BALD()), (regression, Stochastic(Margin())), (classes, Variance())]
    ):
        with pytest.raises(OutputMismatch, match=f"cannot query for task='{pool.task}'"):
            learner(tmp_path / str(i), query=strategy).fit(seeded(lambda: Model(linear(1), F.mse_loss)), pool)


def test_an_ensemble_of_one_disagrees_with_nobody() -> None:
    with pytest.raises(OutputMismatch, match=r"members have shape \(1, 4, 3\).*M >= 2"):
        Outputs(torch.zeros(4, 3), members=torch.zeros(1, 4, 3)).check(4)


# ---- labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "answer", "expected"),
    [
        ("multilabel", torch.tensor([0.0, 1.0]), [0.0, 1.0]),
        ("regression", [np.float32(0.5), np.float64(1)], [0.5, 1.0]),
        ("multiclass", torch.tensor(2), 2),
        ("binary", torch.tensor([1.0]), [1.0]),
        ("binary", (np.int64(1),), [1]),
        ("tokens", (torch.tensor(1), 0), (torch.tensor(1), 0)),
        ("regression", {"boxes": np.ones((1, 4))}, {"boxes": np.ones((1, 4))}),
        ("tokens", [[np.int64(3)], np.array([1, 2])], [[np.int64(3)], np.array([1, 2])]),
        ("segmentation", torch.zeros(9, 9), torch.zeros(9, 9)),
        ("regression", torch.zeros(0, 4), torch.zeros(0, 4)),
        ("segmentation", "masks/1.png", "masks/1.png"),
    ],
    ids=str,
)
def test_class_numbers_and_short_arrays_become_plain_data_and_nests_stay(task: str, answer: Any, expected: Any) -> None:
    found = plain({np.int64(4): answer}, task)
    assert equal(found, {4: expected})
    assert equal(decode(encode(found[4])), expected)


def test_a_refusal_stays_one() -> None:
    assert plain({np.int64(4): SKIP}, "regression") == {4: SKIP}


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("regression", float("nan")),
        ("regression", [1.0, float("inf")]),
        ("regression", None),
        ("multilabel", [0.0, float("nan")]),
        ("segmentation", None),
        ("tokens", [1, None]),
    ],
)
def test_labels_that_cannot_be_trained_on_are_named(task: str, label: Any) -> None:
    with pytest.raises(PoolError, match=f"the label of id 3 .*task='{task}'"):
        check_labels({3: label}, task)


@pytest.mark.parametrize(
    ("task", "label"),
    [
        ("regression", 1.5), ("regression", [-2, 3.5]), ("multilabel", [0, 1, 1]), ("multilabel", [2, 7]),
        ("segmentation", [[0, 1], [2, 255]]), ("segmentation", "masks/1.png"), ("tokens", [1, -100]),
        ("regression", SKIP),
    ],
)  # fmt: skip
def test_labels_of_all_usual_forms_are_taken(task: str, label: Any) -> None:
    check_labels({3: label}, task)


def test_fractions_are_not_cut_off_inside_a_list_either() -> None:
    data = Records([(torch.zeros(2), torch.tensor([0, 1])) for _ in range(4)])
    with pytest.raises(PoolError, match=r"the label \[0\.5, 1\.0\] does not fit.*torch\.int64"):
        LabelledView(data, [1], [[0.5, 1.0]], ItemFormat())[0]
    item = LabelledView(data, [1], [[1.0, 0.0]], ItemFormat())[0]
    assert item[1].tolist() == [1, 0]
    assert item[1].dtype == torch.int64
