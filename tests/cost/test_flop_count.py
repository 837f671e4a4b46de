"""FLOPs are what torch's own counter says, or a slower way through the same layers; nothing that runs is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from al_lightning.cost.flop_count import FORMULAS, FlopCount
from al_lightning.cost.flops import FlopMeter


class Calls(nn.Module):
    """Calls a function on its layers and its input."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=2), nn.ConvTranspose2d(4, 2, 2)
    )


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), 2)


def attention(x: Tensor) -> Tensor:
    return nn.functional.scaled_dot_product_attention(x, x, x)


def in_the_complex(x: Tensor, layer: nn.Linear) -> Tensor:
    return (torch.complex(x, x) @ layer.weight.T.to(torch.cfloat)).abs()


def jacobian(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(layer))(x).sum(0)


def ensemble(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.vmap(lambda weight: x @ weight)(layer.weight.reshape(3, 8, 8))


def rows(*shape: int, last: bool = False) -> Tensor:
    x = torch.randn(*shape)
    return x.to(memory_format=torch.channels_last) if last else x


ORDINARY: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "mlp": (mlp, rows(4, 8)),
    "convolutions": (convolutions, rows(4, 3, 8, 8)),
    "channels last": (lambda: convolutions().to(memory_format=torch.channels_last), rows(4, 3, 8, 8, last=True)),
    "gru": (lambda: Calls(lambda x, gru: gru(x)[0], nn.GRU(8, 4)), rows(4, 5, 8)),
    "einsum": (lambda: Calls(lambda x, a: torch.einsum("bi,ji->bj", x, a.weight), nn.Linear(8, 3)), rows(4, 8)),
    "complex": (lambda: Calls(in_the_complex, nn.Linear(8, 3)), rows(4, 8)),
    "checkpoint": (lambda: Calls(lambda x, net: checkpoint(net, x, use_reentrant=False), mlp()), rows(4, 8)),
    "embedding bag": (lambda: nn.Sequential(nn.EmbeddingBag(9, 8), nn.Linear(8, 3)), torch.randint(0, 9, (4, 5))),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_model_costs_what_torch_says(name: str) -> None:
    build, x = ORDINARY[name]
    model = build()
    with FlopCounterMode(display=False) as torchs:
        model(x).sum().backward()
    with FlopCount() as ours:
        model(x).sum().backward()
    assert (ours.total, ours.why_not) == (torchs.get_total_flops(), None)
    with FlopCounterMode(display=False) as torchs, torch.no_grad():
        model(x)
    with FlopCount() as ours, torch.inference_mode():
        model(x)
    assert (ours.total, ours.why_not) == (torchs.get_total_flops(), None)


@contextmanager
def plainly() -> Iterator[None]:
    """Have torch call the operators that its fused kernels take the place of."""
    fast, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(mkldnn)


FUSED: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "encoder": (encoder, rows(4, 5, 8)),
    "self-attention": (
        lambda: Calls(lambda x, a: a(x, x, x)[0], nn.MultiheadAttention(8, 2, batch_first=True)),
        rows(4, 5, 8),
    ),
    "attention": (lambda: Calls(attention), rows(4, 2, 5, 8)),
    "lstm": (
        lambda: Calls(lambda x, lstm: lstm(x)[0], nn.LSTM(8, 4, num_layers=2, bidirectional=True)),
        rows(4, 5, 8),
    ),
}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_fused_kernels_cost_what_their_operators_do(name: str, mode: Any) -> None:
    build, x = FUSED[name]
    model = build().eval()
    with plainly(), torch.no_grad(), FlopCounterMode(display=False) as slow:
        model(x)
    with mode(), FlopCount() as ours:
        model(x)
    assert (ours.total, ours.why_not) == (slow.get_total_flops(), None)


@pytest.mark.filterwarnings("ignore:.*nested tensors:UserWarning")
def test_padding_costs_nothing_where_the_encoder_leaves_it_out() -> None:
    model, lengths = encoder().eval(), [3, 5, 2, 4]
    padding = torch.arange(5)[None] >= torch.tensor(lengths)[:, None]
    with torch.inference_mode(), FlopCount() as ours:
        model(rows(4, 5, 8), src_key_padding_mask=padding)
    weights = 3 * 8 * 8 + 8 * 8 + 2 * 8 * 16
    assert ours.total == 2 * (2 * sum(lengths) * weights + 4 * 8 * sum(n * n for n in lengths))


def lora(layer: nn.Linear) -> nn.Module:
    class Low(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.randn(3, 2))

        def forward(self, weight: Tensor) -> Tensor:
            return weight + self.a @ self.a.T @ weight

    nn.utils.parametrize.register_parametrization(layer, "weight", Low())
    return layer


def by_gradient(x: Tensor, net: nn.Module) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        z = x.clone().requires_grad_(True)
        return torch.autograd.grad(net(z).sum(), z, create_graph=True)[0]


def jagged(x: Tensor, layer: nn.Module) -> Tensor:
    nested = torch.nested.as_nested_tensor([x[0], x[1][:2]], layout=torch.jagged)
    return torch.nested.to_padded_tensor(layer(nested), 0.0)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return 2 * gradients[0]


ONE = 2 * 4 * 8 * 3
DELICATE: dict[str, tuple[Callable[[], nn.Module], Tensor, int | None]] = {
    "spectral norm": (lambda: parametrizations.spectral_norm(nn.Linear(8, 3)), rows(4, 8), ONE),
    "weight norm": (lambda: parametrizations.weight_norm(nn.Linear(8, 3)), rows(4, 8), ONE),
    "orthogonal": (lambda: parametrizations.orthogonal(nn.Linear(8, 8)), rows(4, 8), None),
    "low rank": (lambda: lora(nn.Linear(8, 3)), rows(4, 8), ONE + 2 * 3 * 2 * 3 + 2 * 3 * 3 * 8),
    "forces": (lambda: Calls(by_gradient, nn.Linear(8, 3)), rows(4, 8), 2 * ONE),
    "jacobian": (lambda: Calls(jacobian, nn.Linear(8, 3)), rows(4, 8), None),
    "vmap": (lambda: Calls(ensemble, nn.Linear(8, 24)), rows(4, 8), 3 * 2 * 4 * 8 * 8),
    "jvp": (lambda: Calls(lambda x, a: torch.func.jvp(a, (x,), (x,))[1], nn.Linear(8, 3)), rows(4, 8), None),
    "nested": (lambda: Calls(jagged, nn.Linear(8, 3)), rows(4, 5, 8), 2 * 7 * 8 * 3),
    "own function": (lambda: Calls(lambda x, a: Doubled.apply(a(x)), nn.Linear(8, 3)), rows(4, 8), ONE),
    "script": (lambda: torch.jit.script(nn.Sequential(nn.Linear(8, 3))), rows(4, 8), ONE),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning", "ignore:.*nested tensors:UserWarning")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", DELICATE)
def test_what_runs_alone_runs_while_it_is_counted(name: str, mode: Any) -> None:
    build, x, flops = DELICATE[name]
    model, meter = build().eval(), FlopMeter()
    with mode():
        alone = model(x)
        with meter.counting("forward", 1):
            counted = model(x)
    assert torch.equal(alone, counted)
    assert meter.unknown == {}
    assert meter.per_record["forward"] > 0
    assert flops is None or meter.per_record["forward"] == flops


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_module_stays_compiled_and_is_counted(backend: str) -> None:
    net, x = mlp(), rows(4, 8)
    with FlopCounterMode(display=False) as torchs:
        net(x).sum().backward()
    compiled = torch.compile(net, backend=backend)
    compiled(x)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with FlopCount() as ours:
        compiled(x).sum().backward()
    assert ours.total == torchs.get_total_flops()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    torch._dynamo.reset()


def test_a_formula_that_fails_leaves_flops_unknown_and_the_result_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> int:
        raise AssertionError("no such shape")

    monkeypatch.setitem(FORMULAS, torch.ops.aten.addmm, broken)
    net, x, meter = mlp(), rows(4, 8), FlopMeter()
    with (
        pytest.warns(UserWarning, match=r"FLOPs of 'forward' are unknown.*addmm.*no such shape"),
        meter.counting("forward", 4),
    ):
        counted = net(x)  # fmt: skip
    assert torch.equal(counted, net(x))
    assert "forward" not in meter.per_record
    assert meter.flops("forward", 4) != meter.flops("forward", 4)  # not a number
    assert meter.flops("forward", 0) == 0
    with meter.counting("forward", 4):  # and it is not tried again
        net(x)


@pytest.mark.parametrize("context", [nullcontext, torch.inference_mode])
def test_the_users_error_is_the_users(context: Any) -> None:
    meter = FlopMeter()
    with pytest.raises(RuntimeError, match="mat1 and mat2"), context(), meter.counting("forward", 4):
        nn.Linear(8, 3)(rows(4, 7))
    assert (meter.per_record, meter.unknown) == ({}, {})
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None
