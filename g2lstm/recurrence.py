"""The LSTM recurrence over one layer and direction: a readable loop and a fast autograd function.

Both functions take the same arguments and return the same values; the loop is the oracle.

Arguments (T steps, B sequences, D = input_size, H = hidden_size; gate order i, f, g, o as in
`torch.nn.LSTM`):
    x: input, [T, B, D].
    h0, c0: initial states, [B, H].
    weight_ih [4H, D], weight_hh [4H, H], bias_ih [4H] and bias_hh [4H] or None.
    noise: added to the pre-activations of the input and forget gates, [T, B, 2H], or None; with
        ``binary_output`` of the output gate too, [T, B, 3H].
    temperature: divides the pre-activations of the input and forget gates, noise included.
    batch_sizes: number of running sequences at each step, non-increasing, as in
        `torch.nn.utils.rnn.PackedSequence`; None: all sequences have T steps.
    binary_output: noise, temperature and ``hard`` are the output gate's too.
    hard: these gates are `gates.hard_gate` of their pre-activations instead of the sigmoid.

Returns:
    output [T, B, H] (0 after the end of a sequence), h_n [B, H], c_n [B, H], and the values of the
    input and forget gates [T, B, 2H] (0 after the end), which carry no gradient in the fast one.

The fast function hands over to the loop what it cannot do itself: hard gates, gradients that are to
be differentiated in their turn, and calls that torch transforms or records (`transforms`).

Half precision: under autocast the products are in the half type, states and gates in float32, and
so is everything returned; with half-precision weights the products are in the half type too (in the
loop: in float32), states and gates are kept in float32, and output, h_n and c_n are returned in the
half type.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from g2lstm.gates import hard_gate
from g2lstm.products import HALF, product, weight_gradients
from g2lstm.steps import backward_steps, forward_steps, gate_scales
from g2lstm.transforms import autocast_dtype, autocast_to, is_batched, is_recorded, is_transformed

Recurrence = tuple[Tensor, Tensor, Tensor, Tensor]


def reference_recurrence(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    batch_sizes: Sequence[int] | None = None,
    binary_output: bool = False,
    hard: bool = False,
) -> Recurrence:
    """Plain loop over time, written as the paper's equations; see the module for shapes."""
    batch = x.shape[1]
    sigmoid = hard_gate if hard else torch.sigmoid
    weight_dtype = weight_hh.dtype
    if weight_dtype in HALF:
        x, weight_ih, weight_hh = x.float(), weight_ih.float(), weight_hh.float()
    h, c = h0.to(weight_hh.dtype), c0.to(weight_hh.dtype)
    outputs, gates = [], []
    for t, x_t in enumerate(x.unbind()):
        n = batch if batch_sizes is None else batch_sizes[t]
        a = (x_t[:n] @ weight_ih.T + h[:n] @ weight_hh.T).to(h.dtype)
        if bias_ih is not None:
            a = a + bias_ih + bias_hh
        a_i, a_f, a_g, a_o = a.chunk(4, dim=1)  # [n, H] each
        if noise is not None:
            noise_i, noise_f, *noise_o = noise[t, :n].split(a_i.shape[1], dim=1)
            a_i, a_f = a_i + noise_i, a_f + noise_f
            if binary_output:
                a_o = a_o + noise_o[0]
        i = sigmoid(a_i / temperature)
        f = sigmoid(a_f / temperature)
        g = torch.tanh(a_g)
        o = sigmoid(a_o / temperature) if binary_output else torch.sigmoid(a_o)
        c_new = f * c[:n] + i * g
        h_new = o * torch.tanh(c_new)
        padding = (0, 0, 0, batch - n)  # rows of sequences that have ended
        outputs.append(torch.nn.functional.pad(h_new, padding))
        gates.append(torch.nn.functional.pad(torch.cat([i, f], dim=1), padding))
        h, c = torch.cat([h_new, h[n:]]), torch.cat([c_new, c[n:]])
    output, h, c = (state.to(weight_dtype) for state in (torch.stack(outputs), h, c))
    return output, h, c, torch.stack(gates)


def fused_recurrence(
    x: Tensor,
    h0: Tensor,
    c0: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    noise: Tensor | None = None,
    temperature: float = 1.0,
    batch_sizes: Sequence[int] | None = None,
    binary_output: bool = False,
    hard: bool = False,
) -> Recurrence:
    """Hand-written forward and backward; equals `reference_recurrence`."""
    if hard or is_transformed() or is_recorded():
        return reference_recurrence(
            x, h0, c0, weight_ih, weight_hh, bias_ih, bias_hh, noise, temperature, batch_sizes,
            binary_output, hard,
        )  # fmt: skip
    bias = None if bias_ih is None else bias_ih + bias_hh
    if binary_output and temperature != 1.0:
        # The steps divide for the input and forget gates alone.
        weight_ih, weight_hh = (_divide_output(w, temperature, 4) for w in (weight_ih, weight_hh))
        bias = None if bias is None else _divide_output(bias, temperature, 4)
        if noise is not None:
            exact = noise.to(torch.promote_types(noise.dtype, weight_hh.dtype))
            noise = _divide_output(exact, temperature, 3, dim=2)
    product_dtype = x.dtype
    if x.dtype == torch.float32:
        product_dtype = autocast_dtype(x.device) or x.dtype
    arguments = (x, h0, c0, weight_ih, weight_hh, bias, noise)
    with autocast_to(x.device, None):
        output, h_n, c_n, gates = _FusedRecurrence.apply(
            *arguments, temperature, batch_sizes, product_dtype
        )
    dtype = weight_hh.dtype
    return output.to(dtype), h_n.to(dtype), c_n.to(dtype), gates


def _divide_output(values: Tensor, temperature: float, blocks: int, dim: int = 0) -> Tensor:
    """The values with those of the output gate, the last of ``blocks`` blocks, divided."""
    *others, output = values.chunk(blocks, dim)
    return torch.cat([*others, output / temperature], dim)


class _FusedRecurrence(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x, h0, c0, weight_ih, weight_hh, bias, noise, temperature, batch_sizes, product_dtype
    ):
        steps, batch, input_size = x.shape
        hidden = weight_hh.shape[1]
        dtype = torch.float32 if product_dtype in HALF else x.dtype  # of states and gates

        batch_sizes = None if batch_sizes is None else tuple(batch_sizes)
        scales = gate_scales(x, temperature, batch_sizes)
        weights = [_scaled(weight, scales).to(product_dtype) for weight in (weight_ih, weight_hh)]
        given_bias, bias = bias, None if bias is None else _scaled(bias, scales)

        # Everything that does not depend on h, for all steps at once.
        flat, ragged = x.reshape(-1, input_size).to(product_dtype), batch_sizes is not None
        if product_dtype == dtype:
            z = product(flat, weights[0], bias, ragged=ragged)
        else:
            z = product(flat, weights[0], ragged=ragged).to(dtype)
            if bias is not None:
                z.add_(bias)
        z = z.view(steps, batch, 4 * hidden)
        if noise is not None:
            z[:, :, : 2 * hidden].add_(noise[:, :, : 2 * hidden], alpha=1 / temperature)
            if noise.shape[2] == 3 * hidden:
                z[:, :, 3 * hidden :].add_(noise[:, :, 2 * hidden :], alpha=scales[3])

        output, cells, z, h_n, c_n = forward_steps(
            z, h0.to(dtype), c0.to(dtype), weights[1], batch_sizes
        )
        gates = z[:, :, : 2 * hidden]
        ctx.mark_non_differentiable(gates)
        ctx.save_for_backward(x, h0, c0, weight_ih, weight_hh, given_bias, noise, z, output, cells)
        ctx.settings = temperature, batch_sizes, product_dtype
        return output, h_n, c_n, gates

    @staticmethod
    def backward(ctx, grad_output, grad_h_n, grad_c_n, _):
        grads = grad_output, grad_h_n, grad_c_n
        if torch.is_grad_enabled() or is_transformed() or is_batched(*grads):
            return _readable_backward(ctx, *grads)
        x, h0, c0, weight_ih, weight_hh, _, _, z, output, cells = ctx.saved_tensors
        temperature, batch_sizes, product_dtype = ctx.settings
        dtype, hidden = output.dtype, output.shape[2]

        with autocast_to(x.device, None):
            da, dh, dc = backward_steps(
                grad_output, grad_h_n.to(dtype, copy=True), grad_c_n.to(dtype, copy=True),
                c0.to(dtype), weight_hh.to(product_dtype), z, cells, temperature, batch_sizes,
            )  # fmt: skip
            da = da.view(-1, 4 * hidden)
            grad_bias = da.sum(0) if ctx.needs_input_grad[5] else None
            da, ragged = da.to(product_dtype), batch_sizes is not None
            grad_x = None
            if ctx.needs_input_grad[0]:
                weight = weight_ih.to(product_dtype).T
                grad_x = product(da, weight, ragged=ragged).view_as(x).to(x.dtype)
            inputs = {}  # of the products whose weights' gradients are wanted
            if ctx.needs_input_grad[3]:
                inputs["ih"] = x.reshape(-1, x.shape[-1]).to(product_dtype)
            if ctx.needs_input_grad[4]:
                previous = torch.cat([h0[None].to(product_dtype), output[:-1].to(product_dtype)])
                inputs["hh"] = previous.view(-1, hidden)
            grads = weight_gradients(da, list(inputs.values()), ragged=ragged)
            grads = dict(zip(inputs, (grad.to(weight_hh.dtype) for grad in grads), strict=True))
        grad_h0, grad_c0 = dh.to(h0.dtype), dc.to(c0.dtype)
        return (
            grad_x, grad_h0, grad_c0, grads.get("ih"), grads.get("hh"), grad_bias,
            None, None, None, None, None,
        )  # fmt: skip


def _readable_backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of `_FusedRecurrence` through the loop, with a graph where one is wanted."""
    temperature, batch_sizes, product_dtype = ctx.settings
    needed, with_graph = ctx.needs_input_grad[:6], torch.is_grad_enabled()
    # Views: the arguments may depend on each other, and each is to be a variable of its own.
    with torch.enable_grad():
        *arguments, noise = (t if t is None else t.view_as(t) for t in ctx.saved_tensors[:7])
        x, h0, c0, *parameters = arguments
        binary_output = noise is not None and noise.shape[2] == 3 * h0.shape[1]
        if binary_output:  # the loop divides what `fused_recurrence` has divided
            parameters = (
                t if t is None else _divide_output(t, 1 / temperature, 4) for t in parameters
            )
            noise = _divide_output(noise, 1 / temperature, 3, dim=2)
        weight_ih, weight_hh, bias = parameters
        with autocast_to(x.device, product_dtype if product_dtype in HALF else None):
            results = reference_recurrence(
                x, h0, c0, weight_ih, weight_hh, bias, None if bias is None else 0.0, noise,
                temperature, batch_sizes, binary_output,
            )[:3]  # fmt: skip
    wanted = [t for t, need in zip(arguments, needed, strict=True) if need]
    grads = [grad.to(result.dtype) for grad, result in zip(grads, results, strict=True)]
    found = iter(
        torch.autograd.grad(results, wanted, grads, create_graph=with_graph, allow_unused=True)
    )
    return *(next(found) if need else None for need in needed), None, None, None, None


def _scaled(parameter: Tensor, scales: Sequence[float]) -> Tensor:
    """A copy of a parameter [4H, ...] with the rows of each gate times its scale, in float32."""
    scaled = parameter.to(torch.promote_types(parameter.dtype, torch.float32), copy=True)
    for rows, scale in zip(scaled.chunk(4), scales, strict=True):
        if scale != 1.0:
            rows.mul_(scale)
    return scaled
