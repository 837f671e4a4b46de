"""FIRE, DASH, distillation, thawing and the gate on new labels, in real fits and against independent arithmetic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear, log_softmax

from al_lightning.callbacks.warm_start import WarmStart
from al_lightning.contrib import Dash, Fire, Gated, Replay, Thaw
from al_lightning.contrib.dash import chunks, direction_scale
from al_lightning.errors import ActiveLearningError, UnsupportedModel
from al_lightning.fit.start import fire, polar
from al_lightning.pool.sampler import ReplaySampler
from al_lightning.query import Random
from al_lightning.round_size import Listed
from tests.callbacks.test_warm_start import Watched, by_hand, by_learner, same
from tests.helpers import CLASSES, WIDTH, ByHand, Net, blobs, ids_in, learner, net, pool_of, quiet


def nearest_isometry(matrix: Tensor) -> Tensor:
    """By singular values, which FIRE itself does not use."""
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    return u @ v


class TestFire:
    @pytest.mark.parametrize("shape", [(3, 8), (8, 3), (5, 5)])
    def test_polar_factor(self, shape: tuple[int, int]) -> None:
        matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(polar(matrix), nearest_isometry(matrix), atol=1e-3, rtol=0)

    def test_a_convolution_is_taken_tap_by_tap_and_other_weights_stay(self) -> None:
        weights = {"conv.weight": torch.randn(4, 6, 3, 2), "norm.weight": torch.rand(4), "conv.bias": torch.rand(4)}
        found = fire(weights, {"conv.weight"})
        for i in range(3):
            for j in range(2):
                expected = nearest_isometry(weights["conv.weight"][:, :, i, j]) * (4 / 6) ** 0.5 / 6
                torch.testing.assert_close(found["conv.weight"][:, :, i, j], expected, atol=1e-3, rtol=0)
        assert torch.equal(found["norm.weight"], weights["norm.weight"])
        assert torch.equal(found["conv.bias"], weights["conv.bias"])

    def test_zeros_stay_numbers(self) -> None:
        assert torch.equal(polar(torch.zeros(3, 2)), torch.zeros(3, 2))

    @pytest.mark.parametrize("way", [by_learner, by_hand])
    def test_rounds_start_from_isometries(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, Fire())
        for start, end in zip(model.starts[1:], model.ends, strict=False):
            expected = nearest_isometry(end["net.0.weight"]) * (8 / WIDTH) ** 0.5
            torch.testing.assert_close(start["net.0.weight"], expected, atol=0.02, rtol=0)
            for name in ("net.0.bias", "net.1.weight", "net.1.running_mean"):
                assert torch.equal(start[name], end[name])


class TestDash:
    def test_scales(self) -> None:
        weight = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
        descent = torch.tensor([[2.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
        assert direction_scale(weight, descent).flatten().tolist() == pytest.approx([1.0, 0.5**0.5, 0.3])
        assert direction_scale(torch.tensor([1.0, -1.0]), torch.tensor([0.1, 0.1])).tolist() == pytest.approx([1, 0.3])
        assert direction_scale(torch.ones(5, 4, 3, 3), torch.ones(5, 4, 3, 3)).shape == (5, 4, 1, 1)

    def test_the_last_chunk_is_the_new_ones(self) -> None:
        assert chunks([*range(7)], 3) == [[0], [1, 2, 3], [4, 5, 6]]
        assert chunks([1, 2], 0) == [[1, 2]]

    @pytest.mark.parametrize("way", [by_learner, by_hand])
    def test_rounds_start_from_weights_shrunk_by_their_direction(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, Dash())
        end, start = model.ends[0], model.starts[1]
        assert same({k: v for k, v in start.items() if "net.1" in k}, {k: v for k, v in end.items() if "net.1" in k})
        ratio = start["net.3.weight"] / end["net.3.weight"]
        torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))  # a factor a row
        assert ratio.min() >= 0.3 - 1e-5
        assert ratio.max() <= 1 + 1e-5
        assert ratio.min() < 1

    def test_the_direction_by_hand(self, tmp_path: Path) -> None:
        """Two rounds of six: two chunks, weighed 0.7 * 0.3 and 0.3."""
        data = blobs()
        model, pool = Watched(), pool_of()
        run = learner(tmp_path, fit=Dash(), round_size=Listed([6, 6]), query=Random())
        result = run.fit(model, datamodule=pool)
        end, start = model.ends[0], model.starts[1]
        weights = {k: v.clone().requires_grad_("running" not in k and "num" not in k) for k, v in end.items()}
        ids = torch.as_tensor(result.labelled)
        mean = torch.zeros_like(end["net.3.weight"])
        for chunk in (ids[:6], ids[6:]):
            x, y = (tensor[chunk] for tensor in data.tensors)
            h = linear(x, weights["net.0.weight"], weights["net.0.bias"])
            h = (h - weights["net.1.running_mean"]) / (weights["net.1.running_var"] + 1e-5).sqrt()
            h = (h * weights["net.1.weight"] + weights["net.1.bias"]).relu()
            loss = cross_entropy(linear(h, weights["net.3.weight"], weights["net.3.bias"]), y)
            mean = 0.7 * mean - 0.3 * torch.autograd.grad(loss, weights["net.3.weight"])[0]
        cosine = (mean * end["net.3.weight"]).sum(1) / (mean.norm(dim=1) * end["net.3.weight"].norm(dim=1))
        expected = end["net.3.weight"] * cosine.clamp(0.3, 1)[:, None]
        torch.testing.assert_close(start["net.3.weight"], expected)
        # Two epochs over 6 and 12, and the pass for the direction.
        assert result.bill.lines["train"].records == 2 * 6 + 2 * 12 + 12

    def test_what_the_module_logs_and_measures_stays_its_own(self, tmp_path: Path) -> None:
        class Logs(Net):
            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                loss = super().training_step(batch, batch_idx)
                self.log("every_step", loss, on_step=True)  # not allowed before the first step
                return loss

        model = Logs()
        result = learner(tmp_path, fit=Dash()).fit(model, datamodule=pool_of())
        assert "every_step" in result.history[-1].metrics
        assert "log" not in vars(model)
        assert model.net.training

    def test_a_module_that_optimises_by_hand_is_refused(self, tmp_path: Path) -> None:
        class NetByHand(ByHand, Net):
            pass

        with pytest.raises(UnsupportedModel, match=r"Dash\(\).*ByHand\.training_step.*Fire"):
            learner(tmp_path, fit=Dash()).fit(NetByHand(), datamodule=pool_of())


class TestDistill:
    @pytest.mark.parametrize(("old", "new", "batch", "replay"), [(25, 10, 6, 2.0), (3, 10, 4, 1.0), (9, 2, 8, 0.5)])
    def test_batches_are_new_records_and_then_old_ones(self, old: int, new: int, batch: int, replay: float) -> None:
        sampler = ReplaySampler(old=old, new=new, batch=batch, replay=replay, seed=3)
        epochs = [list(sampler) for _ in range(2)]
        for epoch in epochs:
            assert len(epoch) == len(sampler)
            batches = [epoch[i : i + batch] for i in range(0, len(epoch), batch)]
            for i, ids in enumerate(batches):
                assert [p >= old for p in ids] == [j < sampler.new_in(i) for j in range(len(ids))]
            assert sorted(p for p in epoch if p >= old) == list(range(old, old + new))
        assert sorted(epochs[0]) != sorted(epochs[1]) or old < new  # other old ones

    @pytest.mark.parametrize("way", [by_learner, by_hand])
    def test_epochs_go_over_new_and_replayed_records(self, tmp_path: Path, way: Any) -> None:
        model = way(tmp_path, Replay(epochs=1, first_epochs=1, replay=1, distill=0.5))
        data = blobs()
        first, second, third = (ids_in(fit, data) for fit in model.fits)
        assert len(first) == 12
        assert len(second) == len(third) == 12  # six new, six old
        assert len(set(second) - set(first)) == 6
        assert same(model.starts[1], model.ends[0])

    def test_the_gradient_by_hand(self, tmp_path: Path) -> None:
        class Grads(Net):
            def __init__(self) -> None:
                super().__init__()
                self.seen: list[Any] = []

            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                self.weights = {k: v.detach().clone() for k, v in self.state_dict().items()}
                self.batch = batch
                return super().training_step(batch, batch_idx)

            def on_after_backward(self) -> None:
                self.seen.append((self.weights, self.batch, self.net[2].weight.grad.clone()))

        model = Grads()
        parts: dict[str, Any] = {"round_size": Listed([12, 6]), "query": Random()}
        learner(tmp_path, quiet(max_epochs=1), fit=Replay(replay=1, distill=0.5), **parts).fit(
            model, datamodule=pool_of()
        )
        before = model.seen[2][0]  # two batches cold, then warm ones: four new and four old, then two and two
        assert [len(batch[1]) for _, batch, _ in model.seen] == [8, 4, 8, 4]

        def answer(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            h = linear(x, weights["net.0.weight"], weights["net.0.bias"]).relu()
            return linear(h, weights["net.2.weight"], weights["net.2.bias"])

        for (weights, (x, y), gradient), new in zip(model.seen[2:], (4, 2), strict=True):
            trained = {k: v.clone().requires_grad_() for k, v in weights.items()}
            said, was = log_softmax(answer(trained, x), 1), log_softmax(answer(before, x), 1)
            divergence = (was.exp() * (was - said))[new:].sum(1).mean()
            loss = cross_entropy(answer(trained, x), y) + 0.5 * divergence
            torch.testing.assert_close(torch.autograd.grad(loss, trained["net.2.weight"])[0], gradient)

    def test_it_holds_old_predictions_and_its_pass_is_on_the_bill(self, tmp_path: Path) -> None:
        flops = {}
        for distill in (None, 1.0):
            model = net()
            result = learner(tmp_path / str(distill), fit=Replay(epochs=1, first_epochs=1, distill=distill)).fit(
                model, datamodule=pool_of()
            )
            flops[distill] = result.bill.lines["train"].flops
            assert not model._forward_hooks
        forward = 2 * 8 * (WIDTH + CLASSES)  # of a record
        assert flops[1.0] - flops[None] == pytest.approx(24 * forward)  # 12 records in each of two warm rounds

    def test_a_module_that_is_not_called_is_refused(self, tmp_path: Path) -> None:
        class Around(Net):
            def training_step(self, batch: Any, batch_idx: int) -> Tensor:
                return cross_entropy(self.net(batch[0]), batch[1])

        model = Around()
        with pytest.raises(UnsupportedModel, match=r"distill=0\.5.*Around.*has to call self\(x\)"):
            learner(tmp_path, fit=Replay(distill=0.5)).fit(model, datamodule=pool_of())
        assert not model._forward_hooks


@pytest.mark.parametrize("way", [by_learner, by_hand])
def test_everything_trains_in_a_thawed_round(tmp_path: Path, way: Any) -> None:
    model = way(tmp_path, Thaw("keep", freeze=("net.0",), thaw=2))
    moved = [
        not torch.equal(s["net.0.weight"], e["net.0.weight"]) for s, e in zip(model.starts, model.ends, strict=True)
    ]
    assert moved == [True, False, True]


@pytest.mark.parametrize("way", [by_learner, by_hand])
@pytest.mark.parametrize(("max_new", "warm"), [(0.3, [False, False, True]), (0.34, [False, True, True])])
def test_a_round_of_many_new_labels_starts_cold(tmp_path: Path, way: Any, max_new: float, warm: list[bool]) -> None:
    """Rounds of 12, 6 and 6: a third of the labels is new in the second, a quarter in the third."""
    model = way(tmp_path, Gated("keep", max_new=max_new))
    assert [False] + [same(s, e) for s, e in zip(model.starts[1:], model.ends, strict=False)] == warm


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_the_share_of_new_labels_needs_a_pool_that_counts_them() -> None:
    pool = pool_of()
    pool.label(range(6), {i: i % 3 for i in range(6)})
    with pytest.raises(ActiveLearningError, match="PoolDataModule"):
        quiet(callbacks=[Gated("keep", max_new=0.5)]).fit(net(), train_dataloaders=pool.train_dataloader())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Replay(distill=0.0), r"distill=0\.0.*above 0"),
        (lambda: Replay(distill=0.5, replay=0), r"distill=0\.5.*replay= above 0"),
        (lambda: Thaw("keep", thaw=3), r"thaw=3.*freeze="),
        (lambda: Thaw("keep", thaw=1, freeze=("a",)), r"thaw=1.*2 or more"),
        (lambda: Gated("keep", max_new=1.0), r"max_new=1\.0.*0 < max_new < 1"),
        (lambda: Fire(cached=True, freeze=("a",)), r"Fire\(cached=True\)"),
    ],
)
def test_settings_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"mode": "fire"}, r"contrib\.Fire"),
        ({"mode": "dash"}, r"contrib\.Dash"),
        ({"mode": "resume", "distill": 0.5}, r"contrib\.Replay\(distill="),
        ({"mode": "resume", "replay": 2}, r"contrib\.Replay\(replay="),
        ({"mode": "keep", "gate": 0.9}, r"contrib\.Gated\(mode, gate="),
        ({"mode": "keep", "max_new": 0.5}, r"contrib\.Gated\(mode, max_new="),
        ({"mode": "keep", "thaw": 2}, r"contrib\.Thaw\(mode, thaw="),
        ({"mode": "shrink_perturb", "shrink": 0.5}, r"contrib\.ShrinkPerturb\(shrink="),
    ],
)
def test_what_has_moved_says_where_to(settings: dict[str, Any], place: str) -> None:
    with pytest.raises(ValueError, match=rf"has moved: al_lightning\.{place}"):
        WarmStart(**settings)
