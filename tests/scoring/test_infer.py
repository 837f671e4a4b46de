"""How a model is asked: ``infer`` and its conventions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from al_lightning.errors import OutputMismatch
from al_lightning.pool.items import ItemFormat
from al_lightning.query import BALD, Entropy, LeastConfidence, Margin, Stochastic
from al_lightning.scoring.infer import infer
from al_lightning.scoring.outputs import Outputs

X, Z, Y = torch.arange(6.0).reshape(3, 2), torch.ones(3, 2), torch.zeros(3)


def model(forward: Any, **methods: Any) -> nn.Module:
    return type("Model", (nn.Module,), {"forward": forward, **methods})()


@pytest.mark.parametrize(
    ("forward", "batch", "items"),
    [
        (lambda self, x: x, (X, Y), ItemFormat()),
        (lambda self, x: x, [X, Y], ItemFormat()),
        (lambda self, x: x, X, ItemFormat(attach=lambda item, label: item)),
        (lambda self, x, z: x * z, (X, Z, Y), ItemFormat()),
        (lambda self, x, z: x * z, {"z": Z, "x": X, "y": Y}, ItemFormat("y")),
        (lambda self, x, z=None: x, {"x": X, "y": Y}, ItemFormat("y")),
        (lambda self, batch: batch["x"], {"x": X, "z": Z, "y": Y}, ItemFormat("y")),
        (lambda self, **inputs: inputs["x"], {"x": X, "z": Z, "y": Y}, ItemFormat("y")),
        (lambda self, x: SimpleNamespace(logits=x), (X, Y), ItemFormat()),  # as Hugging Face models answer
        (lambda self, x: Outputs(x), (X, Y), ItemFormat()),
    ],
)
def test_forward_gets_the_batch_without_its_target(forward: Any, batch: Any, items: ItemFormat) -> None:
    outputs = infer(model(forward), batch, items=items, task="multilabel")
    assert torch.equal(outputs.logits, X)
    assert outputs.task == "multilabel"


def test_a_dict_model_never_sees_the_target() -> None:
    def forward(self: Any, **inputs: Tensor) -> Tensor:
        assert set(inputs) == {"x"}
        return inputs["x"]

    infer(model(forward), {"x": X, "y": Y}, items=ItemFormat("y"), task="multiclass")


def test_the_models_own_infer_decides() -> None:
    made = model(lambda self, x: 1 / 0, infer=lambda self, batch: Outputs(batch[0], embedding=batch[2]))
    outputs = infer(made, (X, Y, Z), items=ItemFormat(attach=lambda i, y: i), task="binary")
    assert torch.equal(outputs.logits, X)
    assert outputs.embedding is Z
    assert outputs.task == "binary"  # the pool's word, not a default


@pytest.mark.parametrize("result", [[X], {"x": X}, None, 1.0, (X, X)])
def test_other_results_are_refused(result: Any) -> None:
    with pytest.raises(OutputMismatch, match=rf"the model returned {type(result).__name__}; .*Outputs"):
        infer(model(lambda self, x: result), (X, Y), items=ItemFormat(), task="multiclass")


def test_probabilities() -> None:
    logits = torch.tensor([[0.0, 0.0], [100.0, -100.0]])
    torch.testing.assert_close(Outputs(logits).distributions, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    binary = Outputs(torch.tensor([[0.0], [2.0]]), task="binary").distributions
    torch.testing.assert_close(binary, torch.tensor([[0.5, 0.5], [1 - 0.8807970, 0.8807970]]))
    torch.testing.assert_close(Outputs(torch.tensor([0.0, 2.0]), task="binary").distributions, binary)
    half = Outputs(logits.to(torch.bfloat16)).distributions
    assert half.dtype == torch.float32
    assert Outputs(logits).predictions.tolist()[1] == 0


def test_one_distribution_per_classified_part() -> None:
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    pixels = Outputs(logits, task="segmentation").distributions
    torch.testing.assert_close(pixels[1, 2, 3], logits[1, :, 2, 3].softmax(0))
    labels = Outputs(torch.tensor([[0.0, 2.0, -2.0]]), task="multilabel").distributions
    torch.testing.assert_close(labels[0, :, 1], torch.tensor([0.5, 0.8807970, 0.1192030]))
    assert Outputs(logits[0], task="tokens").distributions.shape == (3, 4, 5)


def test_regression_has_no_distribution_over_classes() -> None:
    with pytest.raises(OutputMismatch, match=r"task='regression' has no distribution.*Variance"):
        _ = Outputs(X, task="regression").distributions


@pytest.mark.parametrize(
    ("task", "shape", "right"),
    [
        ("multiclass", (3, 2), True),
        ("multiclass", (3, 1), False),
        ("multiclass", (3, 2, 2), False),
        ("binary", (3,), True),
        ("binary", (3, 2), False),
        ("segmentation", (3, 2, 4, 4), True),
        ("segmentation", (3, 2, 4, 4, 4), True),
        ("segmentation", (3, 1, 4, 4), False),
        ("segmentation", (3, 2), False),
        ("tokens", (3, 7, 2), True),
        ("tokens", (3, 7), False),
        ("tokens", (4, 7, 2), False),
    ],
)
def test_shapes_are_checked_against_the_task(task: str, shape: tuple[int, ...], right: bool) -> None:
    outputs = Outputs(torch.zeros(shape), task=task)
    if right:
        assert outputs.check(3) is outputs
    else:
        with pytest.raises(OutputMismatch, match=rf"shape \({shape[0]}, .*batch of 3 records; task='{task}' means \(3"):
            outputs.check(3)


def test_a_mask_and_members_must_fit_the_logits() -> None:
    logits = torch.zeros(3, 7, 2)
    Outputs(logits, task="tokens", mask=torch.ones(3, 7)).check(3)
    with pytest.raises(OutputMismatch, match=r"mask has shape \(3, 6\); allowed.*\(3, 7\)"):
        Outputs(logits, task="tokens", mask=torch.ones(3, 6)).check(3)
    with pytest.raises(OutputMismatch, match=r"members have shape \(5, 3, 2\); allowed: \(M, \*\(3, 7, 2\)\)"):
        Outputs(logits, task="tokens", members=torch.zeros(5, 3, 2)).check(3)


def test_padding_of_a_token_batch_does_not_count() -> None:
    batch = {"x": torch.zeros(2, 4, 3), "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])}
    outputs = infer(model(lambda self, x: x), batch, items=ItemFormat("y"), task="tokens")
    assert outputs.mask is not None
    assert outputs.mask.tolist() == [[True, True, False, False], [True] * 4]


# ---- what a module says of itself ------------------------------------------------------------------------------------

SCORES = torch.tensor([0.1, 3.0, -2.0])


@pytest.mark.parametrize("task", ["structured", "multiclass", "tokens"])
@pytest.mark.parametrize("logits", [None, torch.zeros(3, 2)])
def test_scores_of_the_module_go_before_what_logits_say(task: str, logits: Any) -> None:
    made = model(lambda self, x: x, infer=lambda self, batch: Outputs(logits, scores=SCORES))
    outputs = infer(made, (X, Y), items=ItemFormat(), task=task)
    if logits is None or task != "tokens":
        outputs.check(3)
    for strategy in (Margin(), Entropy("max"), LeastConfidence(), Stochastic(Margin())):
        assert torch.equal(strategy.payload(outputs)["score"], SCORES)


def test_a_structured_record_is_scored_by_its_parts() -> None:
    logits = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[True] * 5, [True, False, False, False, False], [False] * 5])
    outputs = Outputs(logits, task="structured", mask=mask).check(3)
    parts = Margin().score(logits.softmax(-1))
    torch.testing.assert_close(
        Margin().payload(outputs)["score"], torch.stack([parts[0].mean(), parts[1, 0], torch.tensor(0.0)])
    )
    whole = Outputs(logits[:, 0], task="structured").check(3)
    torch.testing.assert_close(Margin().payload(whole)["score"], Margin().score(logits[:, 0].softmax(-1)))


def test_scores_that_are_none_are_named() -> None:
    with pytest.raises(OutputMismatch, match=r"scores of shape \(3, 1\) for a batch of 3 records; allowed: \(3,\)"):
        Outputs(scores=SCORES[:, None]).check(3)
    with pytest.raises(OutputMismatch, match=r"holds nothing: give it logits=\.\.\., or scores="):
        Outputs()
    for ask in (lambda o: o.distributions, lambda o: o.predictions, lambda o: BALD().payload_of([o, o])):
        with pytest.raises(OutputMismatch, match=r"Outputs\(scores=\.\.\.\) without logits.*Outputs\(logits="):
            ask(Outputs(scores=SCORES, task="structured"))
    with pytest.raises(OutputMismatch, match=r"task='structured' means .*Outputs\(scores=\.\.\.\)"):
        Outputs(torch.zeros(3), task="structured").check(3)
