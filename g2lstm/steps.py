"""The steps of the fast recurrence, forward and backward: what must be done one after the other.

Two ways to the same values, but for rounding. *In place* serves every device: operations of torch
on views of one tensor for all steps. On a GPU, which waits for the launch of each small operation,
one kernel of torch's does all of a step but its product; it has no packed sequences.

Shapes and names as in `recurrence`; z [T, B, 4H] are the pre-activations without the recurrent
part, noise included, and then, in their place or anew, the values of i, f, g and o.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from g2lstm.products import product, serves, step_product, thin_product

# Private to torch, and on CUDA alone; those of `torch.nn.LSTMCell`.
_cell = getattr(torch.ops.aten, "_thnn_fused_lstm_cell", None)
_cell_backward = getattr(torch.ops.aten, "_thnn_fused_lstm_cell_backward_impl", None)


def gate_scales(x: Tensor, temperature: float, batch_sizes: Sequence[int] | None) -> list[float]:
    """What `forward_steps` wants the pre-activations of i, f, g and o to be multiplied by.

    x [T, B, D] is the layer's input. The division by the temperature costs nothing where it is done
    once, on the weights.
    """
    doubled = 1.0 if batch_sizes is None and _kernel_serves(x) else 2.0
    return [1 / temperature, 1 / temperature, doubled, 1.0]


def forward_steps(
    z: Tensor,
    h: Tensor,
    c: Tensor,
    weight_hh: Tensor,
    batch_sizes: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Run all steps.

    Args:
        z: scaled pre-activations, in the type of the states; may be overwritten.
        h, c: initial states [B, H].
        weight_hh: [4H, H], scaled, in the type of the products.
        batch_sizes: as in `recurrence`.

    Returns:
        output [T, B, H], cells [T, B, H], gate values [T, B, 4H], h_n and c_n [B, H].
    """
    one_kernel = batch_sizes is None and _kernel_serves(z)
    run = _forward_by_kernel if one_kernel else _forward_in_place
    return run(z, h, c, weight_hh, batch_sizes)


def backward_steps(
    grad_output: Tensor,
    dh: Tensor,
    dc: Tensor,
    c0: Tensor,
    weight_hh: Tensor,
    z: Tensor,
    cells: Tensor,
    temperature: float,
    batch_sizes: Sequence[int] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run all steps backwards.

    Args:
        grad_output: of the output [T, B, H].
        dh, dc: gradients of h_n and c_n, overwritten.
        c0: initial state.
        weight_hh: [4H, H], in the type of the products.
        z, cells: as `forward_steps` returns them.
        temperature, batch_sizes: as in `recurrence`.

    Returns:
        The gradients of the pre-activations [T, B, 4H], of h0 and of c0.
    """
    one_kernel = batch_sizes is None and _kernel_serves(z)
    run = _backward_by_kernel if one_kernel else _backward_in_place
    return run(grad_output, dh, dc, c0, weight_hh, z, cells, temperature, batch_sizes)


def _forward_in_place(z, h, c, weight_hh, batch_sizes):
    steps, batch, _ = z.shape
    hidden = weight_hh.shape[1]
    new = torch.empty if batch_sizes is None else torch.zeros
    output, cells = (new(steps, batch, hidden, dtype=z.dtype, device=z.device) for _ in range(2))
    h_n, c_n = h.clone(), c.clone()
    # tanh a = 2 sigmoid(2 a) - 1: on a CPU torch's sigmoid is 5 to 8 times as fast as its tanh. So
    # all four gates are one sigmoid, whose argument comes scaled (`gate_scales`).
    minus_one = z.new_tensor(-1.0)
    add_product = step_product(weight_hh, batch, steps)
    i, f, g, o = z.view(steps, batch, 4, hidden).unbind(2)
    views = zip(z, i, f, g, o, output, cells, strict=True)
    sizes = [batch] * steps if batch_sizes is None else batch_sizes
    for views_t, n in zip(views, sizes, strict=True):
        if n < batch:
            views_t, h, c = [view[:n] for view in views_t], h[:n], c[:n]
        a_t, i_t, f_t, g_t, o_t, h_t, c_t = views_t
        torch.sigmoid(add_product(a_t, h), out=a_t)
        torch.add(minus_one, g_t, alpha=2, out=g_t)
        torch.mul(f_t, c, out=c_t).addcmul_(i_t, g_t)
        torch.mul(c_t, 2, out=h_t).sigmoid_()
        torch.add(minus_one, h_t, alpha=2, out=h_t).mul_(o_t)
        h, c = h_t, c_t
        if batch_sizes is not None:
            h_n[:n], c_n[:n] = h, c
    if batch_sizes is None:
        h_n, c_n = h.clone(), c.clone()
    else:
        numbers = torch.arange(batch, device="cpu")
        ended = numbers >= torch.tensor(sizes, device="cpu")[:, None]
        z.masked_fill_(ended.to(z.device)[:, :, None], 0.0)
    return output, cells, z, h_n, c_n


def _backward_in_place(grad_output, dh, dc, c0, weight_hh, z, cells, temperature, batch_sizes):
    steps, batch, hidden = cells.shape
    # All local derivatives of the sequence at once; only dh and dc remain for the loop.
    # They are 0 where a sequence has ended, as the gates are 0 there.
    i, f, g, o = z.view(steps, batch, 4, hidden).unbind(2)
    local = torch.empty(steps, batch, 4, hidden, dtype=z.dtype, device=z.device)
    d_i, d_f, d_g, d_o = local.unbind(2)
    sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
    tanh_backward = torch.ops.aten.tanh_backward.grad_input
    tanh_cells = torch.mul(cells, 2).sigmoid_().mul_(2).sub_(1)
    sigmoid_backward(g, i, grad_input=d_i)  # dc/da_i = g i (1 - i)
    sigmoid_backward(c0, f[0], grad_input=d_f[0])
    sigmoid_backward(cells[:-1], f[1:], grad_input=d_f[1:])
    tanh_backward(i, g, grad_input=d_g)
    sigmoid_backward(tanh_cells, o, grad_input=d_o)
    d_cell = tanh_backward(o, tanh_cells, grad_input=tanh_cells)  # dh/dc
    if temperature != 1.0:
        local[:, :, :2].mul_(1 / temperature)

    add_product = step_product(weight_hh.T, batch, steps)
    da = local.view(steps, batch, 4 * hidden)
    sizes = [batch] * steps if batch_sizes is None else batch_sizes
    # A step adds the gradient of the output before it to what it passes on to that step.
    grads = [grad_output.new_zeros(batch, hidden), *grad_output.contiguous()]
    dh[: sizes[-1]].add_(grads.pop()[: sizes[-1]])
    views = zip(grads, da, local[:, :, :3], d_o, d_cell, f, strict=True)
    running = zip(sizes, [0, *sizes[:-1]], strict=True)
    for views_t, (n, n_before) in zip(reversed(list(views)), reversed(list(running)), strict=True):
        dh_t, dc_t, grad_before = dh, dc, views_t[0]
        if n < batch:
            views_t, dh_t, dc_t = [view[:n] for view in views_t], dh[:n], dc[:n]
        grad_t, da_t, da_ifg_t, da_o_t, d_cell_t, f_t = views_t
        dc_t.addcmul_(dh_t, d_cell_t)
        da_ifg_t.mul_(dc_t.unsqueeze(1))
        da_o_t.mul_(dh_t)
        dc_t.mul_(f_t)
        if n == batch:
            dh = add_product(grad_t, da_t)
        else:  # sequences that ended one step earlier join those that run
            dh_t.copy_(add_product(grad_t, da_t))
            dh[n:n_before].add_(grad_before[n:n_before])
    return da, dh, dc


def single_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, *biases: Tensor
) -> tuple[Tensor, Tensor]:
    """`torch.lstm_cell`, by the faster products and without tanh where no gradient is wanted."""
    if torch.is_grad_enabled() or not serves(len(x) * weight_hh.numel(), x, weight_hh):
        return torch.lstm_cell(x, (h, c), weight_ih, weight_hh, *biases)
    bias_ih, bias_hh = biases or (None, None)
    z = product(x, weight_ih, bias_ih, ragged=True)
    z.add_(product(h, weight_hh, bias_hh, ragged=True))
    i, f, g, o = z.chunk(4, 1)
    g.mul_(2)
    z.sigmoid_()
    g.mul_(2).sub_(1)
    c = torch.mul(f, c).addcmul_(i, g)
    return torch.mul(c, 2).sigmoid_().mul_(2).sub_(1).mul_(o), c


def is_single_step(lstm: nn.LSTM, input: object, hx: object) -> bool:
    """Whether `run_single_step` serves these arguments of ``lstm``."""
    return (
        isinstance(input, Tensor)
        and hx is not None
        and input.dim() == 3
        and input.shape[1 if lstm.batch_first else 0] == 1
        and not lstm.bidirectional
        and not (lstm.training and lstm.dropout > 0)
    )


def run_single_step(
    lstm: nn.LSTM, input: Tensor, hx: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One time step without the sequence kernel, which is several times slower."""
    time = 1 if lstm.batch_first else 0
    x = input.squeeze(time)
    h_n, c_n = [], []
    for layer, weights in enumerate(lstm.all_weights):
        x, c = single_step(x, hx[0][layer], hx[1][layer], *weights)
        h_n.append(x)
        c_n.append(c)
    return x.unsqueeze(time), (torch.stack(h_n), torch.stack(c_n))


def _kernel_serves(z: Tensor) -> bool:
    """Whether torch has its kernel for the steps of ``z``."""
    there = _cell is not None and _cell_backward is not None
    return there and z.is_cuda and z.numel() > 0


def _forward_by_kernel(z, h, c, weight_hh, _):
    recurrent_product = thin_product(weight_hh)
    results = []
    for z_t in z:
        h, c, gates_t = _cell(z_t, recurrent_product(h).to(z.dtype), c)
        results.append((h, c, gates_t))
    output, cells, z = (torch.stack(values) for values in zip(*results, strict=True))
    return output, cells, z, h, c


def _backward_by_kernel(grad_output, dh, dc, c0, weight_hh, z, cells, temperature, _):
    recurrent_product = thin_product(_divide_binary(weight_hh.clone(), temperature).T)
    da = []
    before = [c0, *cells[:-1]]
    for values in reversed(list(zip(grad_output, before, cells, z, strict=True))):
        grad_t, c_before, c_t, z_t = values
        da_t, dc, _ = _cell_backward(dh + grad_t, dc, c_before, c_t, z_t, False)
        dh = recurrent_product(da_t)
        da.append(da_t)
    da = torch.stack(da[::-1])
    return _divide_binary(da, temperature, dim=2), dh.to(z.dtype), dc


def _divide_binary(values: Tensor, temperature: float, dim: int = 0) -> Tensor:
    """Divide what belongs to the input and forget gates, the first half, in place."""
    if temperature != 1.0:
        values.narrow(dim, 0, values.shape[dim] // 2).mul_(1 / temperature)
    return values
