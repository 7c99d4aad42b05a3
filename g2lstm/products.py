"""Matrix products on a CPU, by the library that is the faster one on this processor.

torch makes its products in float32 by MKL. On AMD's processors MKL leaves AVX-512 unused, and
oneDNN, which torch has too, is about twice as fast (`benchmarks/layer.md`). `library` tells which
one serves. It depends on the processor alone, never on a measurement: a run that goes on after an
interruption repeats its results to the last bit. All other products, in other types and on other
devices, are torch's own.

oneDNN's products are private operators of torch. Where a version of torch lacks them, torch's own
product serves. oneDNN takes 0.3 to 1.2 ms to prepare for a shape that it has not met, and keeps
1024 of them: products of few multiplications are torch's own, and where the number of rows varies
from call to call ("ragged") rows of zeros bring it to a multiple of `ROWS`.
"""

import os
import platform
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from g2lstm.transforms import is_recorded, is_transformed

HALF = (torch.bfloat16, torch.float16)
LIBRARIES = ("onednn", "torch")
VARIABLE = "G2LSTM_PRODUCTS"  # of the environment; overrides the choice
# Multiplications from which oneDNN's product is the faster one, the call included.
ONEDNN_FROM = 2**20
# Products with one weight from which packing it first pays, and, on a processor where MKL is
# fast, elements of the weight.
PACK_FROM_CALLS = 16
PACK_FROM_ELEMENTS = 2**22  # on every processor, whatever `library` says
ROWS = 32
# Multiplications up to which a ragged product is padded: a larger one costs more than its shape.
PAD_TO = 2**28
NEEDED = ("_linear_pointwise", "_reorder_linear_weight")  # private to torch


@cache
def library() -> str:
    """Which library makes the large float32 products on a CPU: "onednn" or "torch" (MKL).

    "onednn" on processors with AVX-512 that are not Intel's, if this torch has its operators. The
    environment variable G2LSTM_PRODUCTS overrides the choice. It is made once a process.

    Raises:
        ValueError: the variable has another value.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen is None:
        amd = "AuthenticAMD" in _vendor()
        avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
        return "onednn" if amd and avx512 and has_onednn() else "torch"
    if chosen not in LIBRARIES:
        raise ValueError(f"{VARIABLE} must be one of {', '.join(LIBRARIES)}, got {chosen!r}")
    return chosen if has_onednn() else "torch"


def has_onednn() -> bool:
    """Whether this torch has oneDNN's linear product, alone and with a sum, and its packing."""
    found = [getattr(torch.ops.mkldnn, name, None) for name in NEEDED]
    return all(found) and "binary" in found[0].overloads()


def serves(multiplications: int, *tensors: Tensor) -> bool:
    """Whether oneDNN makes a product of ``tensors``."""
    return (
        multiplications >= ONEDNN_FROM
        and all(_is_plain(tensor) for tensor in tensors)
        and library() == "onednn"
    )


def linear(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, ragged: bool = False
) -> Tensor:
    """`torch.nn.functional.linear`; differentiable any number of times.

    Args:
        x: [..., K].
        weight: [N, K].
        bias: [N] or None.
        ragged: the number of rows of x varies from call to call.
    """
    differentiates = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in (x, weight, bias)
    )
    if differentiates and _serves_linear(x, weight, bias):
        return _Linear.apply(x, weight, bias, ragged)
    return product(x, weight, bias, ragged=ragged)


def product(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, ragged: bool = False
) -> Tensor:
    """`linear` without a graph: ``x @ weight.T + bias``."""
    if not _serves_linear(x, weight, bias):
        return torch.nn.functional.linear(x, weight, bias)
    flat = x.reshape(-1, x.shape[-1])
    padded = _pad(flat, len(weight)) if ragged else flat
    if bias is not None:
        bias = bias.contiguous()  # oneDNN reads past its strides
    y = torch.ops.mkldnn._linear_pointwise(padded, weight, bias, "none", [], "")
    return y[: len(flat)].view(*x.shape[:-1], len(weight))


class Linear(torch.nn.Linear):
    """`torch.nn.Linear` by `linear`, for inputs whose number of rows varies."""

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias, ragged=True)


def weight_gradients(grad: Tensor, inputs: Sequence[Tensor], *, ragged: bool) -> list[Tensor]:
    """``grad.T @ x`` [N, K] for each x [M, K] of ``inputs``; grad [M, N]."""
    if not any(serves(grad.numel() * x.shape[1], grad, x) for x in inputs):
        return [grad.T @ x for x in inputs]
    if ragged:
        rows = len(_pad(grad, max(x.shape[1] for x in inputs)))
        grad, *inputs = (_with_rows(x, rows) for x in (grad, *inputs))
    grad_t = grad.T.contiguous()  # once for all products
    return [product(grad_t, x.T) for x in inputs]


def step_product(weight: Tensor, rows: int, calls: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return ``a, x -> a + x @ weight.T``, for the products of one sequence with one weight.

    Args:
        weight: [N, K], in the type of the product; a [n, N] has the type of the sum.
        rows: the most n; x is [n, K].
        calls: number of products.
    """
    onednn = torch.ops.mkldnn
    if weight.dtype in HALF:
        half = _half_product(weight, rows)
        return lambda a, x: a + half(x)
    by_onednn = serves(rows * weight.numel(), weight)
    packs = by_onednn and calls >= PACK_FROM_CALLS
    if rows and _is_plain(weight) and has_onednn() and weight.numel() >= PACK_FROM_ELEMENTS:
        by_onednn = packs = True
    if packs:
        weight = onednn._reorder_linear_weight(weight, rows)
    if by_onednn:
        linear_and = onednn._linear_pointwise.binary
        return lambda a, x: linear_and(x, a, weight, None, "add")
    weight = weight.T.contiguous()  # the thin product is up to twice as fast
    return lambda a, x: torch.addmm(a, x, weight)


def held_product(weight: Tensor, rows: int) -> Callable[..., Tensor]:
    """Return ``x, a=None -> x @ weight.T (+ a)``, for any number of products with one weight.

    Args:
        weight: [N, K] in float32.
        rows: about the number n of rows of x [n, K]; a is [n, N].
    """
    # Of one row a product waits for the weight alone; there torch's own is the faster one.
    large = _is_plain(weight) and has_onednn() and weight.numel() >= PACK_FROM_ELEMENTS
    if rows < 2 or not (large or serves(rows * weight.numel(), weight)):
        weight = weight.T.contiguous()
        return lambda x, a=None: x @ weight if a is None else torch.addmm(a, x, weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    plain, binary = torch.ops.mkldnn._linear_pointwise, torch.ops.mkldnn._linear_pointwise.binary

    def product(x: Tensor, a: Tensor | None = None) -> Tensor:
        if a is None:
            return plain(x, packed, None, "none", [], "")
        return binary(x, a, packed, None, "add")

    return product


def thin_product(weight: Tensor) -> Callable[[Tensor], Tensor]:
    """Return ``x -> x @ weight.T`` in the type of weight [N, K], for many x [n, K] of few rows."""
    dtype, weight = weight.dtype, weight.T.contiguous()
    return lambda x: torch.mm(x.to(dtype), weight)


def _half_product(weight: Tensor, rows: int) -> Callable[[Tensor], Tensor]:
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    if not (on_cpu and has_onednn() and not emulates_bfloat16(weight.device)):
        return thin_product(weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    product = torch.ops.mkldnn._linear_pointwise
    return lambda x: product(x.to(torch.bfloat16), packed, None, "none", [], "")


def emulates_bfloat16(device: torch.device) -> bool:
    """Whether ``device`` is a CPU without instructions for bfloat16.

    There products take ten times as long as in float32, and torch has no LSTM in half precision.
    """
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    return device.type == "cpu" and not supported()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, ragged):
        ctx.save_for_backward(x, weight)
        ctx.ragged = ragged
        return product(x, weight, bias, ragged=ragged)

    @staticmethod
    def backward(ctx, grad):
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        flat, x = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = linear(grad, weight.T, ragged=ctx.ragged) if needs_x else None
        grad_weight = None
        if needs_weight:
            if ctx.ragged:
                flat, x = _pad(flat, x.shape[1]), _pad(x, flat.shape[1])
            grad_weight = linear(flat.T, x.T)
        return grad_x, grad_weight, flat.sum(0) if needs_bias else None, None


def _serves_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    # oneDNN's operator does not check the shapes: torch's own names what is wrong with them.
    tensors = (x, weight) if bias is None else (x, weight, bias)
    fits = x.dim() > 0 and weight.dim() == 2 and x.shape[-1] == weight.shape[1]
    fits = fits and (bias is None or bias.shape == weight.shape[:1])
    return fits and serves(x.numel() * len(weight), *tensors)


def _is_plain(x: Tensor) -> bool:
    """Whether x is in float32 on a CPU, and neither autocast nor a transform changes that."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not is_recorded()
        and not is_transformed()
    )


def _pad(x: Tensor, columns: int) -> Tensor:
    """x [M, K] with rows of zeros, for a product of ``columns`` columns."""
    worthwhile = len(x) > ROWS and x.numel() * columns <= PAD_TO
    return _with_rows(x, len(x) + -len(x) % ROWS) if worthwhile else x


def _with_rows(x: Tensor, rows: int) -> Tensor:
    missing = rows - len(x)
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


def about_processor(field: str) -> str | None:
    """What Linux says of the processor, such as its "vendor_id" or "model name"; None elsewhere."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(field):
                return line.partition(":")[2].strip()
    return None


def _vendor() -> str:
    """Who made the processor, as Linux or Python tells it."""
    return about_processor("vendor_id") or platform.processor()
