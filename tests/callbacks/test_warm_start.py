"""WarmStart in real fits: which weights each round starts from, what it trains on, what stays frozen."""

from __future__ import annotations

import copy
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.contrib import Gated, Replay, ShrinkPerturb
from al_lightning.errors import ActiveLearningError, UnsupportedTrainer
from al_lightning.fit.plan import FitPlan, frozen, load, reinitialise, snapshot
from al_lightning.fit.start import apply_start
from al_lightning.fit.trainer import fresh_trainer
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.query import Margin, Random
from al_lightning.round_size import Listed
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
        model = way(tmp_path, ShrinkPerturb(shrink=0.5, perturb=0.1))
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
        model = way(tmp_path, Replay(epochs=2, replay=2))
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
        model = way(tmp_path, Replay(replay=0, epochs=1))
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


class Scheduled(Watched):
    """OneCycle over every step of the fit; keeps the rate of every step."""

    interval = "step"

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        spanned = self.trainer.max_epochs if self.interval == "epoch" else self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=int(spanned or 0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": self.interval}}

    def on_train_start(self) -> None:
        super().on_train_start()
        self.rates = [*getattr(self, "rates", []), []]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.rates[-1].append(self.trainer.optimizers[0].param_groups[0]["lr"])


class ScheduledByEpoch(Scheduled):
    interval = "epoch"


def one_cycle(steps: int) -> list[float]:
    """The rate of every step, by PyTorch itself."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rounds_by_hand(policy: WarmStart, model: Any) -> None:
    pool, trainer = pool_of(), quiet(callbacks=[policy])
    for turn in pool.rounds(sizes=Listed([12, 6, 6])):
        fresh_trainer(trainer).fit(model, datamodule=pool)
        if not turn.final:
            pool.label(pool.unlabelled[: turn.size], {int(i): int(i) % 3 for i in pool.unlabelled[: turn.size]})


@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using 'interval'. 'epoch'")  # on purpose
@pytest.mark.parametrize("by_hand", [False, True])
@pytest.mark.parametrize("model_class", [Scheduled, ScheduledByEpoch])
def test_stable_fits_stay_at_the_peak(tmp_path: Path, model_class: Any, by_hand: bool) -> None:
    model = model_class()
    policy = WarmStart("keep", epochs=4, first_epochs=4, stable=True, final="previous", final_epochs=10)
    if by_hand:
        rounds_by_hand(policy, model)
    else:
        learner(tmp_path, fit=policy).fit(model, datamodule=pool_of())
    by_epoch = model_class is ScheduledByEpoch
    # Cold: the user's own schedule, over 4 epochs of 2 batches.
    assert model.rates[0] == pytest.approx(
        [rate for rate in one_cycle(4) for _ in range(2)] if by_epoch else one_cycle(8)
    )
    for rates, epochs in zip(model.rates[1:], (4, 4) if by_hand else (4, 10), strict=True):
        assert rates == pytest.approx([max(one_cycle(epochs if by_epoch else 3 * epochs))] * (3 * epochs))


class Walk(Watched):
    """Notes the weights after every step."""

    def on_train_start(self) -> None:
        super().on_train_start()
        self.steps: list[dict[str, Tensor]] = []

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.steps.append(snapshot(self))

    def on_validation_start(self) -> None:
        self.validated = snapshot(self)


def test_stable_rounds_keep_the_average_of_the_weights_they_went_through(tmp_path: Path) -> None:
    model = Walk()
    policy = WarmStart("keep", epochs=4, stable=True)
    learner(tmp_path, round_size=Listed([12, 6]), fit=policy).fit(model, datamodule=pool_of())
    delivered = snapshot(model)
    assert same(delivered, model.validated)  # what is logged is of what is kept
    assert len(model.steps) == 12
    for name in ("net.0.weight", "net.3.bias", "net.1.running_mean"):
        mean = torch.stack([weights[name] for weights in model.steps[1:]]).mean(0)  # the last 85 %
        torch.testing.assert_close(delivered[name], mean)
        assert not torch.allclose(delivered[name], model.steps[-1][name])


@pytest.mark.parametrize("final", ["previous", "initial"])
def test_the_last_fit_averages_its_own_share(tmp_path: Path, final: Literal["previous", "initial"]) -> None:
    model = Walk()
    policy = WarmStart("keep", epochs=4, stable=True, final=final, final_epochs=4, final_average=0.25)
    learner(tmp_path, round_size=Listed([12, 6]), fit=policy).fit(model, datamodule=pool_of())
    mean = torch.stack([weights["net.3.weight"] for weights in model.steps[9:]]).mean(0)  # 3 of 12 steps
    torch.testing.assert_close(snapshot(model)["net.3.weight"], mean)


def test_the_average_goes_by_optimiser_steps(tmp_path: Path) -> None:
    """Two batches a step, and the third of an epoch alone: 2 steps an epoch, 8 in all, the last 7 averaged."""

    model = Walk()
    trainer = quiet(accumulate_grad_batches=2)
    policy = WarmStart("keep", epochs=4, stable=True)
    learner(tmp_path, trainer, round_size=Listed([12, 6]), fit=policy).fit(model, datamodule=pool_of())
    assert len(model.steps) == 8
    mean = torch.stack([weights["net.3.weight"] for weights in model.steps[1:]]).mean(0)
    torch.testing.assert_close(snapshot(model)["net.3.weight"], mean)


class Adam(Watched):
    """Keeps what its optimiser knows at the start and the end of every fit."""

    def __init__(self) -> None:
        super().__init__()
        self.known: list[tuple[dict[int, Any], dict[int, Any]]] = []

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([p for p in self.parameters() if p.requires_grad], lr=0.01)

    def _state(self) -> dict[int, Any]:
        return copy.deepcopy(self.trainer.optimizers[0].state_dict()["state"])

    def on_train_start(self) -> None:
        super().on_train_start()
        self.began = self._state()

    def on_train_end(self) -> None:
        super().on_train_end()
        self.known.append((self.began, self._state()))


@pytest.mark.parametrize("by_hand", [False, True])
def test_stable_fits_go_on_with_the_optimisers_state(tmp_path: Path, by_hand: bool) -> None:
    model = Adam()
    policy = WarmStart("keep", epochs=1, first_epochs=2, stable=True)
    if by_hand:
        rounds_by_hand(policy, model)
    else:
        learner(tmp_path, fit=policy).fit(model, datamodule=pool_of())
    assert model.known[0][0] == {}
    for (_, before), (begins, _) in pairwise(model.known):
        assert before.keys() == begins.keys() != set()
        for key, state in before.items():
            assert all(torch.equal(state[name], begins[key][name]) for name in state)


def test_a_new_optimiser_every_round_unless_stable(tmp_path: Path) -> None:
    model = Adam()
    learner(tmp_path, fit=WarmStart("keep", epochs=1)).fit(model, datamodule=pool_of())
    assert [begins for begins, _ in model.known] == [{}, {}, {}]


def test_state_of_other_parameters_is_left(tmp_path: Path) -> None:
    """Frozen from the second fit on, by a module that only gives its optimiser what trains."""

    class Late(Adam):
        def on_fit_start(self) -> None:
            self.net[0].requires_grad_(not self.fits)

        def configure_optimizers(self) -> Any:
            frozen_now = [self.net[0].weight, self.net[0].bias] if self.fits else []
            kept = [p for p in self.parameters() if all(p is not f for f in frozen_now)]
            return torch.optim.Adam(kept, lr=0.01)

    model = Late()
    learner(tmp_path, fit=WarmStart("keep", epochs=1, stable=True)).fit(model, datamodule=pool_of())
    begins = [begins for begins, _ in model.known]
    assert begins[1] == {}
    assert begins[2].keys() == model.known[1][1].keys() != set()


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
@pytest.mark.parametrize(("rho", "spent"), [(0.5, 0.5), (0.93, 0.93), (0.32, 0.325), (5.0, 1.125)])
def test_the_last_fit_trains_for_what_is_left_of_rho(tmp_path: Path, rho: float, spent: float) -> None:
    """An epoch over 30 and one over 45 of 60 records are an eighth of ten; at least 0.2 and at most 1 come on top."""
    policy = WarmStart("keep", first_epochs=0.1, epochs=0.1, final="previous", final_epochs=0.2, rho=rho)
    parts: dict[str, Any] = {"fit": policy, "query": Random(), "round_size": Listed([30, 15, 15])}
    pool = PoolDataModule(blobs(60), task="multiclass", batch_size=8)
    parts["preflight"] = False  # a batch or two are a fortieth of so short a training
    result = learner(tmp_path, quiet(max_epochs=10), **parts).fit(net(), datamodule=pool)
    assert result.rho == pytest.approx(spent, abs=0.01)


def test_a_stable_fit_needs_an_end(tmp_path: Path) -> None:
    policy = WarmStart("keep", first_epochs=1, stable=True)
    with pytest.raises(UnsupportedTrainer, match="has no end"):
        learner(tmp_path, quiet(max_epochs=-1), fit=policy).fit(net(), datamodule=pool_of())


def test_a_fit_without_schedule_is_left_alone_by_a_stable_policy(tmp_path: Path) -> None:
    model = Watched()
    result = learner(tmp_path, fit=WarmStart("keep", epochs=1, stable=True, final="previous")).fit(
        model, datamodule=pool_of()
    )
    assert [record.final for record in result.history] == [False, False, True]


def test_epochs_as_a_share_of_the_trainers_own(tmp_path: Path) -> None:
    """Half of four epochs is two; three tenths of two is one epoch over the new labels and some old ones."""
    data = blobs()
    model = Watched()
    policy = WarmStart("keep", epochs=0.5)
    learner(tmp_path / "a", quiet(max_epochs=4), fit=policy).fit(model, datamodule=pool_of())
    assert [len(ids_in(fit, data)) for fit in model.fits] == [4 * 12, 2 * 18, 2 * 24]

    model = Watched()
    learner(tmp_path / "b", quiet(max_epochs=2), fit=WarmStart("keep", epochs=0.3)).fit(model, datamodule=pool_of())
    first, second, third = (ids_in(fit, data) for fit in model.fits)
    assert (len(first), len(second), len(third)) == (2 * 12, 11, 14)
    assert len(set(second) - set(first)) == 6  # all new ones
    assert len(set(third) - set(first) - set(second)) >= 6


def test_no_label_is_left_out_of_a_fit_of_some_epochs(tmp_path: Path) -> None:
    """Four tenths of six epochs are three over four fifths of the labels: each of them at least twice."""
    model = Watched()
    parts: dict[str, Any] = {"fit": WarmStart("keep", epochs=0.4), "query": Random(), "round_size": Listed([30, 6])}
    learner(tmp_path, quiet(max_epochs=6), **parts).fit(model, datamodule=pool_of())
    counts = Counter(ids_in(model.fits[1], blobs()))
    assert sum(counts.values()) == 3 * 29
    assert len(counts) == 36
    assert set(counts.values()) == {2, 3}
    assert sum(n == 3 for n in counts.values()) >= 6


def test_a_share_of_no_known_number_of_epochs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedTrainer, match=r"epochs=0\.5\) is a share.*recipe_epochs"):
        learner(tmp_path, quiet(max_epochs=-1, max_steps=4), fit=WarmStart("keep", first_epochs=0.5)).fit(
            net(), datamodule=pool_of()
        )


@pytest.mark.parametrize(
    "settings",
    [{"epochs": 0}, {"epochs": -0.5}, {"epochs": 2.0}, {"final_epochs": 0.0}, {"first_epochs": True}],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=rf"WarmStart\({name}={value}\)"):
        WarmStart("keep", **settings)


def test_the_final_fit_starts_cold_on_everything_with_nothing_frozen(tmp_path: Path) -> None:
    policy = WarmStart("resume", epochs=1, freeze=("net.0",), final="initial", final_epochs=3)
    model = by_learner(tmp_path, policy)
    assert len(model.starts) == 3  # the last query goes straight into it
    assert same(model.starts[2], model.starts[0])
    ids = ids_in(model.fits[2], blobs())
    assert len(set(ids)) == 24
    assert len(ids) == 3 * 24
    assert not torch.equal(model.starts[2]["net.0.weight"], model.ends[2]["net.0.weight"])


def test_the_final_fit_may_start_from_the_previous_weights(tmp_path: Path) -> None:
    model = by_learner(tmp_path, WarmStart("keep", final="previous"))
    assert same(model.starts[2], model.ends[1])
    assert len(model.starts) == 3


def test_a_gate_keeps_rounds_cold_until_agreement(tmp_path: Path) -> None:
    starts = {}
    for gate in (1e-6, 1.0):
        torch.manual_seed(0)
        model = Watched()
        kwargs: dict[str, Any] = {
            "fit": Gated("keep", gate=gate),
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
    with pytest.raises(ActiveLearningError, match=r"gate=0\.5.*ActiveLearner\(fit=Gated"):
        quiet(callbacks=[Gated("keep", gate=0.5)]).fit(net(), datamodule=pool)


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


def test_what_the_user_keeps_in_eval_mode_stays_in_it_after_a_freeze() -> None:
    model = nn.Module()
    model.add_module("a", nn.Sequential(nn.Linear(1, 1), nn.Dropout()))
    model.a[1].eval()
    with frozen(model, ("a",)):
        assert not model.a.training
    assert model.a.training
    assert not model.a[1].training


def test_the_hand_written_loop_scores_with_the_callback_on_the_trainer() -> None:
    model, pool, trainer = Watched(), pool_of(), quiet(callbacks=[WarmStart("keep", epochs=1)])
    for _ in range(2):
        pool.label(pool.unlabelled[:8], {int(i): int(i) % 3 for i in pool.unlabelled[:8]})
        t = fresh_trainer(trainer)
        t.fit(model, datamodule=pool)
        before = snapshot(model)
        score(t, model, pool, Margin())
        assert same(before, snapshot(model))
