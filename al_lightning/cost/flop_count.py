"""Counting FLOPs of code that runs: a dispatch mode that sees operators, and neither modules nor gradients.

``torch.utils.flop_counter.FlopCounterMode`` adds hooks to modules and to their gradients, which a model that
differentiates in its own step, or a layer with a parametrization under inference mode, does not survive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Formula = Callable[..., int]
"""The operator's arguments, and ``out_val=`` what it returned, to FLOPs: 2 per multiply-add."""


def _lengths(x: Tensor) -> list[int]:
    """Tokens of each sequence of a batch ``(B, T, E)``, padded or nested."""
    return x._nested_tensor_size()[:, 0].tolist() if x.is_nested else [x.shape[1]] * x.shape[0]


def _attention(x: Tensor, width: int, *weights: Tensor) -> int:
    """Products of every token with the weights, and of every two tokens of a sequence: scores and their values."""
    lengths = _lengths(x)
    return 2 * sum(lengths) * sum(w.numel() for w in weights) + 4 * width * sum(n * n for n in lengths)


def _encoder_layer(
    src: Tensor, width: int, heads: int, qkv: Tensor, _b: Any, proj: Tensor, *rest: Any, **_: Any
) -> int:
    return _attention(src, width, qkv, proj, *(w for w in rest if isinstance(w, Tensor) and w.ndim == 2))


def _self_attention(q: Tensor, _k: Any, _v: Any, width: int, heads: int, *weights: Any, **_: Any) -> int:
    return _attention(q, width, *(w for w in weights[:4] if isinstance(w, Tensor) and w.ndim == 2))


def _recurrent(x: Tensor, *weights: Any, **_: Any) -> int:
    given = weights[0] if isinstance(weights[0], list | tuple) else weights[:2]
    return 2 * (x.numel() // x.shape[-1]) * sum(w.numel() for w in given if w.ndim == 2)


def _recurrent_backward(x: Tensor, *weights: Any, **_: Any) -> int:
    return 2 * _recurrent(x, *weights)  # one product for the weights' gradient and one for the input's


_PLAIN = {Tensor, torch.nn.Parameter}
_aten = torch.ops.aten
_FUSED: dict[str, Formula] = {
    "_transformer_encoder_layer_fwd": _encoder_layer,
    "_native_multi_head_attention": _self_attention,
    "mkldnn_rnn_layer": _recurrent,
    "mkldnn_rnn_layer_backward": _recurrent_backward,
    "_cudnn_rnn": _recurrent,
    "_cudnn_rnn_backward": _recurrent_backward,
    "_scaled_dot_product_flash_attention_for_cpu": flop_registry[_aten._scaled_dot_product_flash_attention],
    "_scaled_dot_product_flash_attention_for_cpu_backward": flop_registry[
        _aten._scaled_dot_product_flash_attention_backward
    ],
}
"""Kernels that do the work of several operators at once, which torch's own table leaves out."""
FORMULAS: dict[Any, Formula] = {
    **{getattr(_aten, name): formula for name, formula in _FUSED.items() if hasattr(_aten, name)},
    **flop_registry,
}


class FlopCount(TorchDispatchMode):
    """FLOPs of the operators that run inside of ``with``: matrix products, convolutions, attention, recurrent layers.

    What runs, and what comes out, is the same as without it. Whatever goes wrong in counting is kept in ``why_not``.

    Attributes:
        total: FLOPs so far, 2 per multiply-add.
        why_not: why ``total`` is not all of them; None: it is.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.total, self.why_not = 0.0, None

    total: float
    why_not: str | None

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Count what a compiled module calls, instead of having it run uncompiled."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverload) and not set(types) <= _PLAIN:
            return NotImplemented  # the tensor subclass takes it apart, and the parts come here
        formula = FORMULAS.get(getattr(func, "_overloadpacket", func))
        if formula is None:
            parts = self._parts(func, args, kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self._add(func, formula, args, {**kwargs, "out_val": out})
        return out

    def _parts(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operator that is made of others as those: under inference mode it arrives whole."""
        if isinstance(func, HigherOrderOperator):
            if "triton" not in func.name():  # a kernel of the user's own, which torch's table can be told of
                self._leave_out(func, NotImplementedError("an operator of operators"))
            return NotImplemented
        if func is torch.ops.prim.device.default:
            return NotImplemented
        try:
            with self:
                return func.decompose(*args, **kwargs)
        except Exception as error:  # if it is the user's, it comes again as the operator itself is called
            self._leave_out(func, error)
            return NotImplemented

    def _add(self, func: Any, formula: Formula, args: Any, kwargs: Any) -> None:
        try:
            self.total += formula(*args, **kwargs)
        except Exception as error:
            self._leave_out(func, error)

    def _leave_out(self, func: Any, error: Exception) -> None:
        self.why_not = self.why_not or f"{func} cannot be counted ({type(error).__name__}: {error})"


class UncompiledCount(FlopCount):
    """The same, where the step as a whole is compiled, which logging in it does not survive: it runs uncompiled."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Have what is compiled run uncompiled, in the steps that are counted."""
        return False
