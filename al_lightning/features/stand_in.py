"""A frozen part of a model that gives back the activations it is handed, and whether a model can be served so."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, TypeGuard

import lightning.pytorch as L
import numpy as np
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import SequentialSampler

from al_lightning.contrib.dash import measuring, serving
from al_lightning.pool.datamodule import PoolDataModule
from al_lightning.pool.fingerprint import digest
from al_lightning.scoring.outputs import Outputs
from al_lightning.scoring.question import Payload, Question
from al_lightning.scoring.trainer import transfer_hooks, unwrapped

READ_TWICE = 256
"""Labelled records that are read twice, to see whether training reads what scoring reads."""
_RTOL, _ATOL = 1e-3, 1e-5
_MISSING = object()


class PassThrough:
    """In the place of a module's ``forward``: while ``on``, the input is the output already.

    Args:
        real: the module's own ``forward``.
    """

    def __init__(self, real: Any) -> None:
        self._real, self.on = real, False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if self.on else self._real(*args, **kwargs)


class _Recorder:
    """In the place of a module's ``forward``: notes its inputs and gives a known output, or the input itself."""

    def __init__(self, output: Tensor | None) -> None:
        self._output = output
        self.inputs: list[Any] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.inputs.append(args[0] if len(args) == 1 and not kwargs else None)
        return args[0] if self._output is None else self._output


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an object another attribute of its own, and take it away afterwards."""
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name) if before is _MISSING else setattr(owner, name, before)


@contextmanager
def passing_through(model: nn.Module, part: str, *, steps: bool) -> Iterator[None]:
    """Have a part of the model take activations for inputs, and return them; its parameters stay where they are.

    Args:
        model: changed in place, restored after.
        part: name of the submodule.
        steps: whether it does so within ``training_step`` only, so that validation and the user's callbacks, which
            read the records themselves, find the part as it is.
    """
    module = model.get_submodule(part)
    gate = PassThrough(module.forward)
    own: Any = getattr(model, "training_step", None)

    @functools.wraps(own)
    def step(*args: Any, **kwargs: Any) -> Any:
        gate.on = True
        try:
            return own(*args, **kwargs)
        finally:
            gate.on = False

    with replaced(module, "forward", gate):
        if not steps:
            gate.on = True
            yield
            return
        with replaced(model, "training_step", step):
            yield


class _Listening(AbstractContextManager[Payload]):
    """A context whose payload is what a part took and gave in a forward pass, and what the model made of it."""

    def __init__(self, part: str, model: nn.Module) -> None:
        self._module = model.get_submodule(part)
        self._calls: list[tuple[Any, Any]] = []

    def __enter__(self) -> Payload:
        def keep(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            self._calls.append((args[0] if len(args) == 1 and not kwargs else None, output))

        self._handle = self._module.register_forward_hook(keep, with_kwargs=True)
        return self._payload

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _payload(self, outputs: Outputs) -> dict[str, Tensor]:
        calls, self._calls = self._calls, []
        n = len(outputs.logits)
        found = {"calls": torch.full((n,), len(calls)), **said(outputs)}
        taken, given = calls[0] if calls else (None, None)
        if _is_row_each(taken, n) and _is_row_each(given, n) and given.is_floating_point():
            found |= {"taken": taken, "given": given}
        return found


def _is_row_each(value: Any, n: int) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim > 1 and len(value) == n


def said(outputs: Outputs) -> dict[str, Tensor]:
    """Return what a strategy may see of outputs, a row a record: ``logits``, and ``embedding``, ``scores`` if any."""
    more = {"embedding": outputs.embedding, "scores": outputs.scores}
    return {"logits": outputs.logits} | {name: value for name, value in more.items() if value is not None}


def listen(part: str) -> Question:
    """Return what a part takes and gives: ``taken``, ``given``, ``calls`` and what :func:`said` has, a row a record.

    ``taken`` and ``given`` are missing where the part does not make one tensor of floating-point numbers of one tensor.
    """
    return Question(partial(_Listening, part), f"what {part} takes and gives")


def place_of_input(item: Any, target_key: str | None) -> int | str | None:
    """Return where the one input stands in a dataset item; None where it is not one input beside a target."""
    if isinstance(item, Mapping):
        keys = [key for key in item if key != target_key]
        return keys[0] if type(item) is dict and len(keys) == 1 else None
    return 0 if type(item) in (tuple, list) and len(item) == 2 else None


def unreadable(model: L.LightningModule, pool: PoolDataModule, ids: np.ndarray) -> str | None:
    """Return why records cannot be replaced by activations, from the records alone; None where they can.

    Args:
        model: the user's module.
        pool: the pool.
        ids: labelled ids, ``(n,)``; the first 256 are read from both views.
    """
    if unwrapped(model) is not model:
        return "a model wrapped by torch.compile runs code in which no part can be replaced. Pass the module itself"
    if not model.automatic_optimization:
        return "the module optimises by hand, so its training_step cannot be tried out without training"
    item = pool.eval_data[int(ids[0])]
    if pool.items.attach is not None or place_of_input(item, pool.items.target_key) is None:
        return "items are not one input and a target: (input, target), or a dict of two"
    for i in ids[:READ_TWICE].tolist():
        read = [digest(pool.items.input_of(data[i])) for data in (pool.training_data, pool.eval_data)]
        if read[0] != read[1]:
            return (
                f"record {i} is another one in training than in scoring, as with augmentation, and activations are "
                "made once. Train without it"
            )
    return None


def unlike(
    model: L.LightningModule, pool: PoolDataModule, part: str, ids: np.ndarray, heard: Mapping[str, np.ndarray]
) -> str | None:
    """Return why ``training_step`` would do something else with activations than with records; None where it would not.

    A copy of the module, which shares the part, takes one step from records and one from activations, in eval mode. The
    part itself does not run: it is handed the activations both times.

    Args:
        model: the user's module, left as it is.
        pool: serves records, or activations where ``pool.stand_in`` is set.
        part: name of the frozen submodule.
        ids: labelled ids of one batch, ``(n,)``.
        heard: what :func:`listen` found for them.
    """
    stand_in, given = pool.stand_in, torch.from_numpy(heard["given"])
    try:
        module = _copy(model, part)
        with _training(module):
            pool.stand_in = None
            loss, taken = _step(module, pool, part, ids, given)
            pool.stand_in = stand_in
            again, passed = _step(module, pool, part, ids, None)
    except Exception as error:
        return f"{type(model).__name__}.training_step fails when it is tried out: {type(error).__name__}: {error}"
    finally:
        pool.stand_in = stand_in
    step = f"{type(model).__name__}.training_step"
    if len(taken) != 1 or len(passed) != 1:
        return f"{step} calls {part!r} {len(taken)} times; it has to be once, as {part}(input)"
    if not _same(taken[0], heard["taken"]):
        return f"{step} hands other inputs to {part!r} than scoring does, as where it augments. Leave that out"
    if not _same(passed[0], heard["given"]):
        return f"something changes the inputs before {part!r} sees them. Move that into the dataset, or into {part!r}"
    if not torch.allclose(loss, again, rtol=_RTOL, atol=_ATOL):
        return f"{step} needs the inputs beside what {part!r} makes of them: its loss is {again:.4g}, not {loss:.4g}"
    return None


def _same(found: Any, expected: np.ndarray) -> bool:
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return False
    return np.allclose(found.detach().float().cpu().numpy(), expected, rtol=1e-6, atol=0)


def _copy(model: L.LightningModule, part: str) -> L.LightningModule:
    shared = model.get_submodule(part)
    kept: list[Any] = [*shared.modules(), *shared.parameters(), *shared.buffers()]
    copied = copy.deepcopy(model, {id(o): o for o in kept})
    copied.trainer = model.trainer
    return copied


@contextmanager
def _training(module: L.LightningModule) -> Iterator[None]:
    """Have hooks that ask ``trainer.training`` do what they do in a fit; nothing logged, no global generator moved."""
    state = module.trainer.state
    stage = state.stage
    module.trainer.training = True
    try:
        with measuring(module), isolate_rng():
            yield
    finally:
        state.stage = stage


def _step(
    module: L.LightningModule, pool: PoolDataModule, part: str, ids: np.ndarray, output: Tensor | None
) -> tuple[Tensor, list[Any]]:
    """The loss of a step on these records, and what the part was called with."""
    with serving(pool):
        pool.train_ids, pool.train_sampler = ids, SequentialSampler(ids)
        batch = next(iter(pool.train_dataloader()))
    before, transfer, after = transfer_hooks(pool, module)
    plugin = module.trainer.precision_plugin
    batch = after(transfer(before(plugin.convert_input(batch), 0), module.device, 0), 0)
    recorder = _Recorder(None if output is None else plugin.convert_input(output).to(module.device))
    torch.manual_seed(0)
    one_argument = len(inspect.signature(module.training_step).parameters) == 1
    with replaced(module.get_submodule(part), "forward", recorder), plugin.train_step_context():
        found: Any = module.training_step(batch) if one_argument else module.training_step(batch, 0)
    loss = found["loss"] if isinstance(found, dict) else found
    return loss.detach().float().cpu(), recorder.inputs
