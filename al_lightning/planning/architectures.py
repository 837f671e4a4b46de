"""FLOPs of common models, for a plan before there is code; measured ones, where there is a model, are better."""

from __future__ import annotations

from dataclasses import dataclass

from al_lightning.errors import ActiveLearningError

BACKWARD = 2.0
"""Backward passes of a forward pass: one product for the weights' gradient and one for the input's."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model as the planner sees it.

    Args:
        forward: FLOPs of inferring one record, 2 per multiply-add.
        record: what a record is.
        source: where the number is from.
    """

    forward: float
    record: str
    source: str

    @property
    def train(self) -> float:
        """FLOPs of a record's forward and backward pass."""
        return (1 + BACKWARD) * self.forward


_TORCHVISION = "torchvision's documentation of the weights, {} G multiply-adds"
ARCHITECTURES = {
    "resnet18": Architecture(
        forward=2 * 1.81e9, record="an image of 224 x 224 pixels", source=_TORCHVISION.format("1.81")
    ),
    "resnet50": Architecture(
        forward=2 * 4.09e9, record="an image of 224 x 224 pixels", source=_TORCHVISION.format("4.09")
    ),
    "resnet152": Architecture(
        forward=2 * 11.51e9, record="an image of 224 x 224 pixels", source=_TORCHVISION.format("11.51")
    ),
    "vit_b_16": Architecture(
        forward=2 * 17.56e9, record="an image of 224 x 224 pixels", source=_TORCHVISION.format("17.56")
    ),
    "bert_base": Architecture(
        forward=22.4e9,
        record="128 tokens",
        source="Devlin et al., 2019, arXiv:1810.04805: 12 layers of width 768, each 12 x 768² multiply-adds a token "
        "and 2 x 768 more per token attended to",
    ),
    "bidaf": Architecture(
        forward=0.52e9,
        record="a paragraph of 150 words and a question of 15",
        source="Seo et al., 2017, arXiv:1611.01603: BiLSTMs of width 100, of inputs 200, 800, 200 and 200, two highway "
        "layers of 200, character convolutions of 8 x 5 x 100 on 16 characters, and attention",
    ),
}
"""Common models by name."""


def architecture(name: str) -> Architecture:
    """One of :data:`ARCHITECTURES`.

    Raises:
        ActiveLearningError: another name.
    """
    if name not in ARCHITECTURES:
        raise ActiveLearningError(
            f"architecture={name!r}: allowed are {', '.join(ARCHITECTURES)}. Of another model give forward= and train= "
            "in FLOPs a record, or leave all three out and have your model and one batch of your data measured."
        )
    return ARCHITECTURES[name]
