"""Distillation: what the previous round's model said of old records is part of the loss."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import kl_div, log_softmax
from torch.utils.hooks import RemovableHandle

from al_lightning.errors import UnsupportedModel, UnsupportedTrainer
from al_lightning.fit.plan import evaluating
from al_lightning.pool.sampler import ReplaySampler


class Distill(Callback):
    """Add ``weight * KL(previous model || model)`` on a batch's old records to the user's loss.

    The previous model is the weights the fit starts from. It sees the batch that ``training_step`` hands to the module,
    once more forward, in eval mode; its answer is compared with the one the module gave there, so no other pass is
    needed. The user's loss on new and old records stays as it is: in the paper it is weighed as well.

    Source: Das et al., "Accelerating batch active learning using continual learning techniques", TMLR 2023,
    arXiv:2305.06408 (CAL-SD, CAL-DER).

    Args:
        weight: of the divergence, natural logarithm, averaged over a batch's old records.
        sampler: knows which records of a batch are old.

    Raises:
        UnsupportedTrainer: several processes; each would see other rows of a batch.
        UnsupportedModel: training_step does not call the module, or that does not return logits ``(n, C)``.
    """

    def __init__(self, weight: float, sampler: ReplaySampler) -> None:
        self._weight, self._sampler = weight, sampler
        self._handle: RemovableHandle | None = None
        self._said: tuple[Any, Any, Any] | None = None
        self._previous: dict[str, Tensor] = {}
        self._listening = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.world_size > 1:
            raise UnsupportedTrainer(
                f"Replay(distill={self._weight}) works on one process, and this Trainer has {trainer.world_size}: "
                "leave distill out, or use devices=1."
            )
        named = (*pl_module.named_parameters(), *pl_module.named_buffers())
        self._previous = {name: value.detach().clone() for name, value in named}
        self._handle = pl_module.register_forward_hook(self._listen, with_kwargs=True)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._listening, self._said, self._new = True, None, self._sampler.new_in(batch_idx)

    def _listen(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if self._listening:  # the first call of a step
            self._listening, self._said = False, (args, kwargs, output)

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        """Add to the loss in place: Lightning takes no other one from here."""
        if self._said is None or not isinstance(self._said[2], Tensor) or self._said[2].ndim != 2:
            raise UnsupportedModel(
                f"Replay(distill={self._weight}) listens to what {type(pl_module).__name__} returns inside of "
                "training_step, which has to call self(x) and get logits of shape (n, C). Leave distill out otherwise."
            )
        args, kwargs, logits = self._said
        self._listening = False
        before = self._ask(pl_module, args, kwargs)
        old = slice(self._new, None)
        if len(logits[old]):
            divergence = kl_div(
                log_softmax(logits[old], -1), log_softmax(before[old], -1), reduction="batchmean", log_target=True
            )
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            divergence = divergence if scaler is None else scaler.scale(divergence)
            loss.add_(self._weight * divergence / trainer.accumulate_grad_batches)

    @torch.no_grad()
    def _ask(self, module: nn.Module, args: Any, kwargs: Any) -> Tensor:
        with evaluating(module):
            answer: Tensor = functional_call(module, self._previous, args, kwargs)
        return answer

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle, self._previous, self._said = None, {}, None

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)
