"""A run stopped after any of its steps goes on to the same labelled ids as one that was never stopped."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Subset

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.candidates import EveryK, RandomSubset, Representatives, WholePool
from al_lightning.contrib import Gated, Replay
from al_lightning.cost.budget import Budget
from al_lightning.errors import PoolChanged, PoolError, RunMismatch
from al_lightning.features.source import RawInputs
from al_lightning.oracles.oracle import SKIP, FunctionOracle, LabelRequest
from al_lightning.query import Entropy, Random
from al_lightning.round_size import Fixed, Growing, Listed
from al_lightning.run.store import Store
from tests.helpers import Net, blobs, learner, net, pool_of, quiet


class Stopped(Exception):
    """The program died here."""


def stop_after(round: int) -> Callable[..., None]:
    def on_round(record: Any, module: Any) -> None:
        if record.round == round and not record.final:
            raise Stopped

    return on_round


FLAVOURS: dict[str, dict[str, Any]] = {
    "reset": {},
    "keep": {"fit": WarmStart("keep", epochs=1, final="initial")},
    "shrink": {"fit": WarmStart("shrink_perturb")},
    "resume": {"fit": Replay(replay=0.5)},
    "agreement": {"fit": Gated("keep", gate=0.1), "stop_set": 9},
    "stale": {"candidates": EveryK(WholePool(), 2), "round_size": Listed([12, 4, 4, 4])},
    "clusters": {"candidates": Representatives(0.5)},
}


def setup(flavour: str) -> tuple[dict[str, Any], Callable[[], Any]]:
    features = {"features": RawInputs()} if flavour == "clusters" else {}
    return FLAVOURS[flavour], lambda: pool_of(**features)


class AdamNet(Net):
    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


def test_the_optimisers_state_survives_a_stop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    initial = AdamNet().state_dict()
    weights = {}
    for stops in ((), (1, 2)):
        for k in (*stops, None):
            model = AdamNet()
            model.load_state_dict(initial)
            parts: dict[str, Any] = {"fit": WarmStart("keep", epochs=1, stable=True, final="previous")}
            made = learner(tmp_path / str(len(stops)), **parts, on_round=stop_after(k) if k else None)
            with pytest.raises(Stopped) if k else nullcontext():
                made.fit(model, datamodule=pool_of())
        weights[len(stops)] = model.state_dict()
    for name in initial:
        assert torch.equal(weights[0][name], weights[2][name])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_stopped_after_every_round(tmp_path: Path, flavour: str) -> None:
    kwargs, pool = setup(flavour)
    whole = learner(tmp_path / "whole", **kwargs).fit(net(), datamodule=pool())
    for k in range(1, sum(not record.final for record in whole.history) + 1):
        with pytest.raises(Stopped):
            learner(tmp_path / "stopped", **kwargs, on_round=stop_after(k)).fit(net(seed=k), datamodule=pool())
    again = learner(tmp_path / "stopped", **kwargs).fit(net(seed=50), datamodule=pool())
    # Started from other weights in the second process: the folder's own are used.
    first = learner(tmp_path / "first", **kwargs).fit(net(seed=1), datamodule=pool())
    assert again.labelled.tolist() == first.labelled.tolist()
    assert torch.equal(again.model.net[0].weight, first.model.net[0].weight)
    assert [r.metrics for r in again.history] == [r.metrics for r in first.history]
    assert [r.agreement for r in again.history] == [r.agreement for r in first.history]
    assert [r.stale for r in again.history] == [r.stale for r in first.history]
    records = {phase: line.records for phase, line in again.bill.lines.items()}
    assert records == {phase: line.records for phase, line in first.bill.lines.items()}
    assert again.rho == pytest.approx(first.rho)


@pytest.mark.parametrize("when", ["before", "after"])
def test_stopped_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """The process dies right before a step is written, or right after, at each step in turn."""
    kwargs: dict[str, Any] = {"round_size": Listed([12, 6]), "fit": WarmStart("keep", final="initial")}
    commit, count, stop_at = Store.commit, 0, 0

    def dying(store: Store, change: Any) -> None:
        nonlocal count
        count += 1
        if count == stop_at and when == "before":
            raise Stopped
        commit(store, change)
        if count == stop_at:
            raise Stopped

    monkeypatch.setattr(Store, "commit", dying)
    whole = learner(tmp_path / "whole", quiet(max_epochs=1), **kwargs).fit(net(), datamodule=pool_of())
    steps = count
    assert steps >= 8
    for stop in range(1, steps + 1):
        count, stop_at = 0, stop
        asked: list[int] = []

        def label(id: int, asked: list[int] = asked) -> int:
            asked.append(id)
            return id % 3

        def start(stop: int = stop, label: Any = label) -> Any:
            made = learner(tmp_path / f"{stop}", quiet(max_epochs=1), oracle=FunctionOracle(label), **kwargs)
            return made.fit(net(), datamodule=pool_of())

        with pytest.raises(Stopped):
            start()
        stop_at = 0
        result = start()
        assert result.labelled.tolist() == whole.labelled.tolist(), stop
        assert torch.equal(result.model.net[0].weight, whole.model.net[0].weight), stop
        assert len(set(asked)) == 18
        assert len(asked) == 18 or when == "before"


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    first = learner(tmp_path).fit(net(), datamodule=pool_of())
    model = net(seed=4)
    again = learner(tmp_path).fit(model, datamodule=pool_of())
    assert model.batches == []
    assert again.labelled.tolist() == first.labelled.tolist()
    assert torch.equal(model.net[0].weight, first.model.net[0].weight)
    assert again.reason == first.reason
    assert again.bill == first.bill
    assert again.trainer is None
    assert torch.equal(torch.load(again.best_model_path, weights_only=True)["net.0.weight"], model.net[0].weight)


class Fragile(Net):
    """Raises in its second round, once it is told what."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        super().__init__()
        self.load_state_dict(net().state_dict())
        self.error = error

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if self.error is not None and len(self.batches) == 6:
            raise self.error
        return super().training_step(batch, batch_idx)


def test_an_aborted_fit_keeps_what_was_labelled(tmp_path: Path) -> None:
    asked: list[int] = []

    def label(id: int) -> int:
        asked.append(id)
        return id % 3

    with pytest.raises(Stopped):
        learner(tmp_path, oracle=FunctionOracle(label)).fit(Fragile(Stopped), datamodule=pool_of())
    assert len(asked) == 18
    result = learner(tmp_path, oracle=FunctionOracle(label)).fit(Fragile(), datamodule=pool_of())
    assert len(asked) == 24
    assert result.labelled.tolist() == asked


def test_ctrl_c_in_a_fit_loses_nothing(tmp_path: Path) -> None:
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        learner(tmp_path / "a").fit(Fragile(KeyboardInterrupt), datamodule=pool_of())
    again = learner(tmp_path / "a").fit(Fragile(), datamodule=pool_of())  # the lock was let go, too
    whole = learner(tmp_path / "b").fit(Fragile(), datamodule=pool_of())
    assert again.labelled.tolist() == whole.labelled.tolist()
    assert torch.equal(again.model.net[0].weight, whole.model.net[0].weight)


# ---- the folder belongs to one configuration --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"seed": 1}, ("seed",)),
        ({"query": Entropy()}, ("query.class",)),
        ({"fit": WarmStart("keep", epochs=1)}, ("fit.epochs", "fit.mode")),
        ({"round_size": Listed([12, 6, 7])}, ("round_size.sizes",)),
        ({"candidates": RandomSubset(0.5)}, None),
        ({"trainer": quiet(max_epochs=3)}, ("recipe.epochs",)),
        ({"stop_set": 5, "seed": 3}, ("seed", "stop_set")),
    ],
)
def test_another_configuration_is_refused_by_its_keys(
    tmp_path: Path, change: dict[str, Any], keys: tuple[str, ...] | None
) -> None:
    run = learner(tmp_path, on_round=stop_after(2))  # a query by score, and a fit: all of it is depended on
    with pytest.raises(Stopped):
        run.fit(net(), datamodule=pool_of())
    before = (tmp_path / "run.sqlite").read_bytes()
    with pytest.raises(RunMismatch) as caught:
        learner(tmp_path, **change).fit(net(), datamodule=pool_of())
    if keys is None:
        assert caught.value.keys
        assert all(key.startswith("candidates.") for key in caught.value.keys)
    else:
        assert caught.value.keys == keys
    assert all(key in str(caught.value) for key in caught.value.keys)
    assert (tmp_path / "run.sqlite").read_bytes() == before
    learner(tmp_path).fit(net(), datamodule=pool_of())  # and the lock was let go


def test_another_model_task_or_batch_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        learner(tmp_path, on_round=stop_after(1)).fit(net(), datamodule=pool_of())
    with pytest.raises(RunMismatch, match=r"model\.class: the folder has 'Net', this run has 'Fragile'"):
        learner(tmp_path).fit(Fragile(), datamodule=pool_of())
    with pytest.raises(RunMismatch, match=r"model\.shapes"):
        learner(tmp_path).fit(net(hidden=9), datamodule=pool_of())
    with pytest.raises(RunMismatch, match=r"recipe\.batch_size: the folder has 8, this run has 16"):
        learner(tmp_path).fit(net(), datamodule=pool_of(batch_size=16))


def test_rules_prices_and_oracles_may_change(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        learner(tmp_path, on_round=stop_after(1)).fit(net(), datamodule=pool_of())
    result = learner(tmp_path, stop=[Budget(labels=18)], oracle=FunctionOracle(lambda i: i % 3)).fit(
        net(), datamodule=pool_of()
    )
    assert len(result.labelled) == 18


def test_a_larger_budget_on_a_finished_run_goes_on(tmp_path: Path) -> None:
    sizes = Fixed(6)
    first = learner(tmp_path / "a", round_size=sizes, stop=[Budget(labels=15)]).fit(net(), datamodule=pool_of())
    assert len(first.labelled) == 15
    assert first.reason.kind == "budget"
    more = learner(tmp_path / "a", round_size=sizes, stop=[Budget(labels=27)]).fit(net(), datamodule=pool_of())
    assert more.labelled[:15].tolist() == first.labelled.tolist()
    assert len(more.labelled) == 27
    assert more.reason.kind == "budget"
    assert more.reason.numbers["limit"] == 27
    assert [r.labelled for r in more.history] == [6, 12, 15, 21, 27]


def test_a_larger_budget_goes_on_after_a_consolidating_fit(tmp_path: Path) -> None:
    fit = WarmStart("keep", epochs=1, final="initial")
    for labels in (12, 24):
        result = learner(tmp_path, round_size=Fixed(6), fit=fit, stop=[Budget(labels=labels)]).fit(
            net(), datamodule=pool_of()
        )
        assert len(result.labelled) == labels
        assert result.history[-1].final
        assert result.history[-1].labelled == labels
        assert [r.final for r in result.history].count(True) == 1


# ---- the dataset ------------------------------------------------------------------------------------------------


def with_keys(data: Any, keys: bool) -> dict[str, Any]:
    return {"keys": [f"{float(x.sum()):.6f}" for x, _ in data]} if keys else {}


@pytest.mark.parametrize("keys", [False, True])
def test_appended_records_can_be_queried(tmp_path: Path, keys: bool) -> None:
    small, large = Subset(blobs(), range(20)), blobs()
    sizes = Fixed(8)
    first = learner(tmp_path, round_size=sizes, stop=[Budget(labels=16)]).fit(
        net(), datamodule=pool_of(small, **with_keys(small, keys))
    )
    result = learner(tmp_path, round_size=sizes, stop=[Budget(labels=48)]).fit(
        net(), datamodule=pool_of(large, **with_keys(large, keys))
    )
    assert result.labelled[:16].tolist() == first.labelled.tolist()
    assert len(result.labelled) == 48
    assert result.labelled.max() >= 20
    # Later starts check the records that were appended, too.
    swapped = Subset(blobs(), [*range(20), 59, *range(21, 59), 20])
    with pytest.raises(PoolChanged):
        learner(tmp_path, round_size=sizes, stop=[Budget(labels=50)]).fit(
            net(), datamodule=pool_of(swapped, **with_keys(swapped, keys))
        )


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize(
    ("order", "message"),
    [(range(59), "shrank: 60 records when the run started, 59 now"), ([*range(1, 60), 0], "reordered")],
    ids=["shrunk", "reordered"],
)
def test_a_changed_dataset_is_refused(tmp_path: Path, keys: bool, order: Any, message: str) -> None:
    data = blobs()
    with pytest.raises(Stopped):
        learner(tmp_path, on_round=stop_after(1)).fit(net(), datamodule=pool_of(data, **with_keys(data, keys)))
    changed = Subset(data, list(order))
    with pytest.raises(PoolChanged, match=message):
        learner(tmp_path).fit(net(), datamodule=pool_of(changed, **with_keys(changed, keys)))
    result = learner(tmp_path).fit(net(), datamodule=pool_of(data, **with_keys(data, keys)))
    assert len(result.labelled) == 24


def test_corrected_labels_in_the_dataset_change_no_record(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        learner(tmp_path, on_round=stop_after(1)).fit(net(), datamodule=pool_of())
    x, y = blobs().tensors
    other = torch.utils.data.TensorDataset(x, (y + 1) % 3)
    assert len(learner(tmp_path).fit(net(), datamodule=pool_of(other)).labelled) == 24


# ---- oracles ----------------------------------------------------------------------------------------------------


class Slow:
    """Answers a third of a query at a time, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[list[int]] = []
        self.known: dict[int, Any] = {}

    def ask(self, request: LabelRequest) -> None:
        self.requests.append(request.ids.tolist())

    def collect(self) -> dict[int, Any]:
        for id in self.requests[-1][: max(1, len(self.requests[-1]) // 3)]:
            self.known[id] = id % 3
        return self.known


def test_partial_answers_wait_and_go_on(tmp_path: Path) -> None:
    oracle, results = Slow(), []
    for _ in range(30):
        results.append(learner(tmp_path, oracle=oracle).fit(net(), datamodule=pool_of()))
        if results[-1].reason.kind != "waiting":
            break
    first, last = results[0], results[-1]
    assert first.reason.kind == "waiting"
    assert first.reason.numbers == {"labels": 8}
    assert "waiting for 8 labels" in str(first.reason)
    assert len(first.labelled) == 4
    assert first.history == ()
    assert last.reason.kind == "exhausted"
    assert len(last.labelled) == 24
    assert [r.labelled for r in last.history] == [12, 18, 24]
    for request, following in zip(oracle.requests, oracle.requests[1:], strict=False):
        answered = max(1, len(request) // 3)
        assert following == request[answered:] or answered == len(request)  # only what is still open is asked for
    assert last.labelled.tolist() == list(oracle.known)


def test_an_oracle_without_any_answer_waits(tmp_path: Path) -> None:
    for _ in range(2):
        result = learner(tmp_path, oracle=FunctionOracle(lambda i: None)).fit(net(), datamodule=pool_of())
        assert result.reason.kind == "waiting"
        assert len(result.labelled) == 0
        assert result.rho is None


def test_refused_records_are_not_paid_not_trained_on_and_not_asked_again(tmp_path: Path) -> None:
    asked: list[int] = []

    def label(id: int) -> Any:
        asked.append(id)
        return SKIP if id % 5 == 0 else id % 3

    data, model = blobs(), net()
    result = learner(tmp_path, oracle=FunctionOracle(label), round_size=Fixed(12)).fit(model, datamodule=pool_of(data))
    assert sorted(asked) == list(range(60))
    assert sorted(result.labelled.tolist()) == [i for i in range(60) if i % 5]
    assert result.bill.labels == 48 + 9
    refused = {tuple(data.tensors[0][i].tolist()) for i in range(0, 60, 5)}
    assert not refused & {tuple(x.tolist()) for batch in model.batches for x in batch}


def test_a_query_refused_whole_is_followed_by_another(tmp_path: Path) -> None:
    requests: list[int] = []

    class Refuses(FunctionOracle):
        def ask(self, request: LabelRequest) -> None:
            requests.append(len(request.ids))
            super().ask(request)

    oracle = Refuses(lambda i: SKIP if len(requests) in (1, 3) else i % 3)
    result = learner(tmp_path, oracle=oracle, round_size=Fixed(6), stop=[Budget(labels=12)]).fit(
        net(), datamodule=pool_of()
    )
    assert requests == [6, 6, 6, 6]
    assert [r.labelled for r in result.history] == [6, 12]


def test_numpy_and_tensor_answers_are_plain_numbers(tmp_path: Path) -> None:
    oracle = FunctionOracle(lambda i: np.int64(i % 3) if i % 2 else torch.tensor(i % 3))
    result = learner(tmp_path, oracle=oracle).fit(net(), datamodule=pool_of())
    again = learner(tmp_path, oracle=oracle).fit(net(), datamodule=pool_of())
    assert again.labelled.tolist() == result.labelled.tolist()


def test_a_label_that_cannot_be_stored_loses_nothing(tmp_path: Path) -> None:
    pool = pool_of(task="regression")
    with pytest.raises(PoolError, match=r"the label of id \d+ is .*object.* not JSON"):
        learner(tmp_path, query=Random(), oracle=FunctionOracle(lambda i: object())).fit(net(), datamodule=pool)
    result = learner(tmp_path, query=Random(), oracle=FunctionOracle(lambda i: i % 3)).fit(
        net(), datamodule=pool_of(task="regression")
    )
    assert len(result.labelled) == 24


def test_an_answer_to_a_record_that_was_not_asked_for_is_ignored(tmp_path: Path) -> None:
    class Chatty(Slow):
        def collect(self) -> dict[int, Any]:
            return {i: i % 3 for i in range(60)}

    assert len(learner(tmp_path, oracle=Chatty()).fit(net(), datamodule=pool_of()).labelled) == 24


# ---- labels from before the run ---------------------------------------------------------------------------------


def test_labels_brought_by_the_user_are_the_first_query(tmp_path: Path) -> None:
    asked: list[int] = []

    def label(id: int) -> int:
        asked.append(id)
        return id % 3

    def pool() -> Any:
        made = pool_of()
        made.label([40, 3, 11, 7, 8, 30], {i: i % 3 for i in (40, 3, 11, 7, 8, 30)})
        return made

    kwargs: dict[str, Any] = {"round_size": Growing(first=12, factor=2.0), "stop": [Budget(labels=24)]}
    with pytest.raises(Stopped):
        learner(tmp_path, oracle=FunctionOracle(label), on_round=stop_after(2), **kwargs).fit(net(), datamodule=pool())
    result = learner(tmp_path, oracle=FunctionOracle(label), **kwargs).fit(net(), datamodule=pool())
    assert result.labelled[:6].tolist() == [40, 3, 11, 7, 8, 30]
    assert result.labelled[6:].tolist() == asked
    assert [r.labelled for r in result.history] == [6, 12, 24]
    assert result.bill.labels == 24 + 9  # brought labels were bought, too


def test_a_resumed_run_does_not_mind_an_empty_or_a_labelled_pool(tmp_path: Path) -> None:
    pool = pool_of()
    with pytest.raises(Stopped):
        learner(tmp_path, on_round=stop_after(1)).fit(net(), datamodule=pool)
    result = learner(tmp_path).fit(net(), datamodule=pool)  # the same object, in the same process
    assert len(result.labelled) == 24
    assert len(pool.labelled) == 24


def test_labels_of_a_partial_answer_are_trained_on_though_the_rest_is_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"round_size": Listed([12])}
    first = learner(tmp_path, oracle=FunctionOracle(lambda i: i % 3 if i % 2 else None), **settings)
    waits = first.fit(net(), datamodule=pool_of())
    assert waits.reason.kind == "waiting"
    assert waits.history == ()
    result = learner(tmp_path, oracle=FunctionOracle(lambda i: SKIP), **settings).fit(net(), datamodule=pool_of())
    assert 0 < len(result.labelled) < 12
    assert [r.labelled for r in result.history] == [len(result.labelled)]


def test_a_run_whose_every_query_is_refused_ends_without_a_model(tmp_path: Path) -> None:
    rules: dict[str, Any] = {"oracle": FunctionOracle(lambda i: SKIP), "fit": WarmStart("keep", final="previous")}
    result = learner(tmp_path, round_size=Fixed(30), **rules).fit(net(), datamodule=pool_of())
    assert result.reason.kind == "exhausted"
    assert result.history == ()
    assert result.bill.labels == 9  # validation alone
