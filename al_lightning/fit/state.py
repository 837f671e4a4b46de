"""How a running fit stands between two epochs, as tensors and plain values, and how it is put there again.

Beside rounds.py the only module that touches Lightning's inside; docs/adr/0012 says why ``fit(ckpt_path=...)`` is not
enough.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as L
import numpy as np
import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.trainer import call
from torch import Tensor
from torchmetrics import Metric

from al_lightning.run.describe import describe

State = dict[str, Any]
_HYPERPARAMETERS = tuple(
    getattr(of, f"CHECKPOINT_HYPER_PARAMS_{what}")
    for of in (L.LightningModule, L.LightningDataModule)
    for what in ("KEY", "NAME", "TYPE")
)
_LOGGED = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")


def made_of(trainer: L.Trainer) -> list[str]:
    """Return what a fit is made of, besides its data: a fit of something else cannot go on from where this one stands.

    Args:
        trainer: as a fit starts, before callbacks have changed a learning rate or a group of parameters.
    """

    def groups(optimizer: torch.optim.Optimizer) -> str:
        shapes = [[tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups]
        settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return f"{type(optimizer).__qualname__} {describe(settings)} {shapes}"

    return [
        f"torch {torch.__version__}, lightning {L.__version__}, {trainer.world_size} processes",
        f"{trainer.max_epochs} epochs, {trainer.max_steps} steps, {trainer.limit_train_batches} of the batches",
        f"gradients of {trainer.accumulate_grad_batches}, {type(trainer.precision_plugin).__qualname__}",
        *map(groups, trainer.optimizers),
        *(f"{type(c.scheduler).__qualname__} {c.interval} {c.frequency}" for c in trainer.lr_scheduler_configs),
        *(c.state_key for c in trainer.callbacks),  # type: ignore[attr-defined]
        *(f"{c.dirpath}" for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)),
    ]


# ---- what all processes share ------------------------------------------------------------------------------------


def shared_state(trainer: L.Trainer) -> State:
    """Lightning's own checkpoint, and all weights, should ``on_save_checkpoint`` have left some out of it.

    Hyperparameters stay out: they may be anything, and are not needed to go on.
    """
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    kept = {name: value for name, value in checkpoint.items() if name not in _HYPERPARAMETERS}
    return {"checkpoint": kept, "weights": dict(trainer.lightning_module.state_dict())}


def put_callbacks(trainer: L.Trainer, state: State) -> None:
    """Give callbacks their state when Lightning does, before ``on_fit_start``: some act on it there."""
    call._call_callbacks_load_state_dict(trainer, state["checkpoint"])


def put_shared(trainer: L.Trainer, state: State) -> None:
    """Put a fit, as its first epoch starts, where another one stood as a later epoch started.

    Raises:
        ValueError: there are other schedulers than there were; whatever PyTorch and the user's hooks raise.
    """
    before, now = len(state["checkpoint"]["lr_schedulers"]), len(trainer.lr_scheduler_configs)
    if before != now:
        raise ValueError(f"{before} learning-rate schedulers then, {now} now")
    connector = trainer._checkpoint_connector
    connector._loaded_checkpoint = dict(state["checkpoint"])  # hooks may change it
    try:
        connector.restore_datamodule()
        connector.restore_model()
        trainer.lightning_module.load_state_dict(state["weights"])
        connector.restore_callbacks()  # once more: some begin anew in on_train_start
        connector.restore_precision_plugin_state()
        connector.restore_optimizers_and_schedulers()
    finally:
        connector._loaded_checkpoint = {}
    _put_loops(trainer, state["checkpoint"]["loops"]["fit_loop"])


def _put_loops(trainer: L.Trainer, state: State) -> None:
    loop = trainer.fit_loop
    loop.load_state_dict(state)
    for part in _loops(loop):
        part.on_iteration_done()  # Lightning would look for the rest of an epoch, and the last one is finished
    assert loop._combined_loader is not None
    for loader in loop._combined_loader.flattened:  # done already, for epoch 0
        _set_sampler_epoch(loader, trainer.current_epoch)


def _loops(loop: _Loop) -> Iterator[_Loop]:
    yield loop
    for part in vars(loop).values():
        if isinstance(part, _Loop):
            yield from _loops(part)


# ---- what each process has of its own ------------------------------------------------------------------------------


def own_state(trainer: L.Trainer) -> State:
    """Return what no checkpoint of Lightning's holds: generators, values logged so far, metrics, buffers and modes."""
    module, logged = trainer.lightning_module, trainer._logger_connector
    loop, persistent = trainer.fit_loop, module.state_dict().keys()
    return {
        "generators": _generators(),
        "loader_generators": [g.get_state() for g in _loader_generators(trainer)],
        "logged": {name: _numbers(getattr(logged, name)) for name in _LOGGED},
        "metrics": {name: _metric_state(m) for name, m in module.named_modules() if isinstance(m, Metric)},
        "buffers": {name: b.detach() for name, b in module.named_buffers() if name not in persistent},
        "training": {name: m.training for name, m in module.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in module.named_parameters()},
        # Who optimises by hand may add up gradients over the end of an epoch.
        "gradients": {}
        if module.automatic_optimization
        else {name: p.grad for name, p in module.named_parameters() if p.grad is not None},
        "should_stop": trainer.should_stop,  # asked for, and put off by min_epochs
        "reloaded": [loop._last_train_dl_reload_epoch, loop.epoch_loop.val_loop._last_val_dl_reload_epoch],
    }


@torch.no_grad()
def put_own(trainer: L.Trainer, state: State) -> None:
    """Put back what :func:`own_state` took; the generators last, so that nothing draws from them after it."""
    module, device, loop = trainer.lightning_module, trainer.strategy.root_device, trainer.fit_loop
    parts, parameters, buffers = (dict(named()) for named in (
        module.named_modules, module.named_parameters, module.named_buffers,
    ))  # fmt: skip
    for name, training in state["training"].items():
        parts[name].training = training
    for name, requires_grad in state["requires_grad"].items():
        parameters[name].requires_grad_(requires_grad)
    for name, gradient in state["gradients"].items():
        parameters[name].grad = gradient.to(device)
    for name, buffer in state["buffers"].items():
        buffers[name].copy_(buffer)
    for name, values in state["metrics"].items():
        _put_metric(parts[name], values, device)
    for name, values in state["logged"].items():
        getattr(trainer._logger_connector, name).update(
            {key: v.to(device) if isinstance(v, Tensor) else v for key, v in values.items()}
        )
    trainer.should_stop = state["should_stop"]
    loop._last_train_dl_reload_epoch, loop.epoch_loop.val_loop._last_val_dl_reload_epoch = state["reloaded"]
    for generator, saved in zip(_loader_generators(trainer), state["loader_generators"], strict=True):
        generator.set_state(saved)
    _put_generators(state["generators"])


def _numbers(values: dict[str, Any]) -> State:
    return {name: v for name, v in values.items() if isinstance(v, Tensor | int | float)}


def _metric_state(metric: Metric) -> State:
    return {"states": dict(metric.metric_state), "updates": metric._update_count}


def _put_metric(metric: Any, state: State, device: torch.device) -> None:
    for name, value in state["states"].items():
        moved = [v.to(device) for v in value] if isinstance(value, list) else value.to(device)
        setattr(metric, name, moved)
    metric._update_count, metric._computed = state["updates"], None


def _loader_generators(trainer: L.Trainer) -> list[torch.Generator]:
    """The user's own, once each; without one, loaders draw from torch's global generator."""
    assert trainer.fit_loop._combined_loader is not None
    loaders = trainer.fit_loop._combined_loader.flattened
    owners = [owner for loader in loaders for owner in (loader, getattr(loader, "sampler", None))]
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def _generators() -> State:
    drawn = np.random.get_state(legacy=False)
    keys = torch.from_numpy(drawn["state"]["key"].astype(np.int64))
    return {
        "python": random.getstate(),
        "numpy": {**drawn, "state": {**drawn["state"], "key": keys}},
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def _put_generators(state: State) -> None:
    random.setstate(state["python"])
    drawn = state["numpy"]
    keys = drawn["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state({**drawn, "state": {**drawn["state"], "key": keys}})
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
