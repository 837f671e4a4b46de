"""How a model is asked: ``infer`` and its conventions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from al_lightning.errors import OutputMismatch
from al_lightning.pool.items import ItemFormat
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
    torch.testing.assert_close(Outputs(logits).probabilities, torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    binary = Outputs(torch.tensor([[0.0], [2.0]]), task="binary").probabilities
    torch.testing.assert_close(binary, torch.tensor([[0.5, 0.5], [1 - 0.8807970, 0.8807970]]))
    torch.testing.assert_close(Outputs(torch.tensor([0.0, 2.0]), task="binary").probabilities, binary)
    half = Outputs(logits.to(torch.bfloat16)).probabilities
    assert half.dtype == torch.float32
    assert Outputs(logits).predictions.tolist()[1] == 0


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_tasks_without_a_distribution_over_classes(task: str) -> None:
    with pytest.raises(OutputMismatch, match=f"task='{task}' has no distribution"):
        _ = Outputs(X, task=task).probabilities
