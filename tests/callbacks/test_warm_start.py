"""WarmStart in real fits: which weights each round starts from, what it trains on, what stays frozen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.errors import ActiveLearningError
from al_lightning.fit_plan import FitPlan, apply_start, frozen, load, reinitialise, snapshot
from al_lightning.query import Margin
from al_lightning.round_size import Listed
from al_lightning.rounds import fresh_trainer
from al_lightning.scoring.trainer import score
from tests.helpers import CLASSES, WIDTH, Net, blobs, ids_in, learner, net, pool_of, quiet


class Watched(Net):
    """Keeps its weights at the start and the end of every fit, and what it trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))
        self.starts: list[dict[str, Tensor]] = []
        self.ends: list[dict[str, Tensor]] = []
        self.fits: list[list[Tensor]] = []

    def on_train_start(self) -> None:
        self.starts.append(snapshot(self))
        self.batches = []

    def on_train_end(self) -> None:
        self.ends.append(snapshot(self))
        self.fits.append(self.batches)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def by_learner(tmp_path: Path, policy: WarmStart) -> Watched:
    model = Watched()
    learner(tmp_path, fit=policy).fit(model, datamodule=pool_of())
    return model


def by_hand(tmp_path: Path, policy: WarmStart) -> Watched:
    model, pool, trainer = Watched(), pool_of(), quiet(callbacks=[policy])
    for turn in pool.rounds(sizes=Listed([12, 6, 6])):
        t = fresh_trainer(trainer)
        t.fit(model, datamodule=pool)
        if not turn.final:
            pool.label(pool.unlabelled[: turn.size], {int(i): int(i) % 3 for i in pool.unlabelled[: turn.size]})
    return model


@pytest.mark.parametrize("way", [by_learner, by_hand])
class TestBothDoors:
    """The learner carries the plan out itself; in a hand-written loop the callback does."""

    def test_reset_gives_the_initial_weights(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, WarmStart("reset"))
        assert len(model.starts) == 3
        assert same(model.starts[1], model.starts[0])
        assert same(model.starts[2], model.starts[0])
        assert not same(model.ends[0], model.starts[0])

    def test_keep_gives_the_previous_weights(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, WarmStart("keep", epochs=1))
        assert same(model.starts[1], model.ends[0])
        assert same(model.starts[2], model.ends[1])
        assert [len(fit) for fit in model.fits] == [4, 3, 3]

    def test_shrink_and_perturb(self, tmp_path: Path, way: Any) -> None:
        """``0.5 * previous + 0.1 * fresh``: what is left after the first term has the scale of fresh weights."""
        model = way(tmp_path, WarmStart("shrink_perturb", shrink=0.5, perturb=0.1))
        for start, end in zip(model.starts[1:], model.ends, strict=False):
            fresh = (start["net.0.weight"] - 0.5 * end["net.0.weight"]) / 0.1
            assert fresh.abs().max() <= 1 / WIDTH**0.5 + 1e-4  # nn.Linear's own bound
            assert fresh.std() > 0.1
            assert torch.equal(start["net.1.running_mean"], end["net.1.running_mean"])
        fresh = [
            (s["net.0.weight"] - 0.5 * e["net.0.weight"]) for s, e in zip(model.starts[1:], model.ends, strict=False)
        ]
        assert not torch.allclose(fresh[0], fresh[1])  # drawn anew every round
        assert not torch.allclose(fresh[0] / 0.1, model.starts[0]["net.0.weight"])

    def test_resume_trains_on_new_and_replayed_records(self, tmp_path: Path, way: Any) -> None:
        data = blobs()
        model = way(tmp_path, WarmStart("resume", epochs=2, replay=2))
        rounds = [ids_in(fit, data) for fit in model.fits]
        old: set[int] = set()
        for ids, new in zip(rounds, (12, 6, 6), strict=True):
            fresh = set(ids) - old
            assert len(fresh) == new
            assert all(ids.count(i) == 2 for i in set(ids))  # two epochs
            assert len(set(ids) & old) == (0 if not old else 12)
            old |= set(ids)
        assert same(model.starts[1], model.ends[0])

    def test_resume_without_replay_trains_on_new_records_only(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, WarmStart("resume", replay=0, epochs=1))
        rounds = [set(ids_in(fit, blobs())) for fit in model.fits]
        assert [len(r) for r in rounds] == [12, 6, 6]
        assert not rounds[0] & rounds[1]

    def test_freeze_leaves_weights_and_statistics_alone(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, WarmStart("keep", freeze=("net.0", "net.1")))
        for start, end in zip(model.starts[1:], model.ends[1:], strict=True):
            for name in start:
                assert torch.equal(start[name], end[name]) == (not name.startswith("net.3")), name
        assert not torch.equal(model.starts[0]["net.0.weight"], model.ends[0]["net.0.weight"])  # cold: all trains
        assert all(p.requires_grad for p in model.parameters())
        assert model.net[1].training


def test_the_final_fit_starts_cold_on_everything_with_nothing_frozen(tmp_path: Path) -> None:
    policy = WarmStart("resume", epochs=1, freeze=("net.0",), final="initial", final_epochs=3)
    model = by_learner(tmp_path, policy)
    assert len(model.starts) == 4
    assert same(model.starts[3], model.starts[0])
    ids = ids_in(model.fits[3], blobs())
    assert len(set(ids)) == 24
    assert len(ids) == 3 * 24
    assert not torch.equal(model.starts[3]["net.0.weight"], model.ends[3]["net.0.weight"])


def test_the_final_fit_may_start_from_the_previous_weights(tmp_path: Path) -> None:
    model = by_learner(tmp_path, WarmStart("keep", final="previous"))
    assert same(model.starts[3], model.ends[2])


def test_a_gate_keeps_rounds_cold_until_agreement(tmp_path: Path) -> None:
    starts = {}
    for gate in (1e-6, 1.0):
        torch.manual_seed(0)
        model = Watched()
        kwargs: dict[str, Any] = {
            "fit": WarmStart("keep", gate=gate),
            "stop_set": 12,
            "round_size": Listed([12, 6, 6, 6]),
        }
        result = learner(tmp_path / str(gate), quiet(max_epochs=4), **kwargs).fit(model, datamodule=pool_of())
        starts[gate] = [r.start for r in result.history]
        agreements = [r.agreement for r in result.history]
        assert agreements[0] is None
        assert all(a is not None and -1 <= a <= 1 for a in agreements[1:])
    assert starts[1e-6] == ["initial", "initial", "previous", "previous"]
    assert starts[1.0][:2] == ["initial", "initial"]


def test_a_gate_is_refused_in_a_hand_written_loop() -> None:
    pool = pool_of()
    pool.label(range(6), {i: i % 3 for i in range(6)})
    with pytest.raises(ActiveLearningError, match=r"gate=0\.5.*ActiveLearner\(fit=WarmStart"):
        quiet(callbacks=[WarmStart("keep", gate=0.5)]).fit(net(), datamodule=pool)


def test_shrink_and_perturb_arithmetic() -> None:
    model, initial = net(), snapshot(net(seed=1))
    previous = snapshot(model)
    fresh = net()
    load(fresh, initial)
    reinitialise(fresh, seed=5)
    apply_start(model, FitPlan(start="shrink_perturb", shrink=0.4, perturb=0.1), initial=initial, seed=5)
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, 0.4 * previous[name] + 0.1 * fresh.state_dict()[name])


def test_reinitialise_is_seeded_and_leaves_the_global_generator_alone() -> None:
    state = torch.get_rng_state()
    a, b, c = net(), net(), net()
    reinitialise(a, 1)
    reinitialise(b, 1)
    reinitialise(c, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(snapshot(a), snapshot(b))
    assert not same(snapshot(a), snapshot(c))
    assert not same(snapshot(a), snapshot(net()))


def test_reinitialise_prefers_the_models_own_way() -> None:
    class Own(Net):
        def reset_parameters(self) -> None:
            with torch.no_grad():
                for p in self.parameters():
                    p.fill_(7)

    model = Own()
    reinitialise(model, 0)
    assert all((p == 7).all() for p in model.parameters())


def test_freeze_goes_by_module_and_undoes_only_its_own() -> None:
    model = nn.Module()
    model.add_module("a", nn.Linear(1, 1))
    model.add_module("ab", nn.Linear(1, 1))
    model.a.bias.requires_grad_(False)  # the user's own
    with frozen(model, ("a",)):
        assert [n for n, p in model.named_parameters() if p.requires_grad] == ["ab.weight", "ab.bias"]
        assert not model.a.training
        assert model.ab.training
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["a.weight", "ab.weight", "ab.bias"]
    assert model.a.training


def test_the_hand_written_loop_scores_with_the_callback_on_the_trainer() -> None:
    model, pool, trainer = Watched(), pool_of(), quiet(callbacks=[WarmStart("keep", epochs=1)])
    for _ in range(2):
        pool.label(pool.unlabelled[:8], {int(i): int(i) % 3 for i in pool.unlabelled[:8]})
        t = fresh_trainer(trainer)
        t.fit(model, datamodule=pool)
        before = snapshot(model)
        score(t, model, pool, Margin())
        assert same(before, snapshot(model))
