"""Forward pass of a `LowRankLSTM` without gradients, at the speed of its thin products.

Three things make it fast: the weights are kept as the products need them, the operations of a step
are few, and none of them is tanh, which takes several times as long as the sigmoid on a CPU. With
tanh a = 2 sigmoid(2a) - 1, C = 2c and n = -h, a step is::

    i, f, s, o = sigmoid of the pre-activations, those of g doubled
    C' = f C + 4 i s - 2 i
    n' = o - 2 o sigmoid(C')

The factors 2 and -1 are in the kept weights.
"""

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from g2lstm import products
from g2lstm.transforms import is_recorded, is_transformed


class _Direction(NamedTuple):
    """Weights of a layer and direction, in one part, or in two: of i and f, and of g and o.

    Attributes:
        inputs: for each part, the matrices to multiply x by, one after the other, and the bias.
        steps: for each part, a, n -> a + (recurrent matrix) h.
    """

    inputs: list[tuple[list[Tensor], Tensor | None]]
    steps: list[Callable[[Tensor, Tensor], Tensor]]


class _Kept(NamedTuple):
    key: tuple
    parameters: list[Tensor]
    directions: dict[str, _Direction]


# Beside the modules, so that copies, pickles and state_dicts know nothing of it.
_kept: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def serves(lstm: nn.LSTM, input: object, hx: tuple[Tensor, Tensor] | None) -> bool:
    """Whether `run_inference` can run this call of a `LowRankLSTM`."""
    if not isinstance(input, Tensor) or lstm.hard or is_transformed() or is_recorded():
        return False
    tensors = [input, *(() if hx is None else hx), *lstm._parameters.values()]
    if any(t.dtype != torch.float32 or t.device.type != "cpu" for t in tensors):
        return False
    if torch.is_autocast_enabled("cpu") or any(t.is_inference() for t in lstm._parameters.values()):
        return False  # the version of inference tensors is not known
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))


def run_inference(
    lstm: nn.LSTM,
    x: Tensor,
    hx: tuple[Tensor, Tensor],
    layer: int,
    reverse: bool,
    batch_sizes: None,
) -> tuple[Tensor, Tensor, Tensor, None]:
    """Run one layer and direction over x [T, B, D]; as `run_layers` asks for it, without gates."""
    suffix = f"l{layer}" + ("_reverse" if reverse else "")
    index = layer * (2 if lstm.bidirectional else 1) + reverse
    steps, batch, _ = x.shape
    kept = _directions(lstm, batch)[suffix]
    x = x.flip(0) if reverse else x
    parts = []
    for matrices, bias in kept.inputs:
        y = x.reshape(steps * batch, x.shape[2])
        for matrix in matrices[:-1]:
            y = products.product(y, matrix)
        parts.append(
            products.product(y, matrices[-1], bias).view(steps, batch, len(matrices[-1])).unbind(0)
        )
    n, c2 = hx[0][index].neg(), hx[1][index] * 2  # -h and 2c
    outputs = []
    if len(parts) == 1:
        (add,) = kept.steps
        for a in parts[0]:
            i, f, s, o = add(a, n).sigmoid_().chunk(4, 1)
            c2 = torch.mul(f, c2).addcmul_(i, s, value=4).sub_(i, alpha=2)
            n = torch.addcmul(o, o, c2.sigmoid(), value=-2)
            outputs.append(n)
    else:
        add_if, add_go = kept.steps
        for a_if, a_go in zip(*parts, strict=True):
            i, f = add_if(a_if, n).sigmoid_().chunk(2, 1)
            s, o = add_go(a_go, n).sigmoid_().chunk(2, 1)
            c2 = torch.mul(f, c2).addcmul_(i, s, value=4).sub_(i, alpha=2)
            n = torch.addcmul(o, o, c2.sigmoid(), value=-2)
            outputs.append(n)
    output = torch.stack(outputs).neg_()
    h = output[-1].clone()
    return output.flip(0) if reverse else output, h, c2 * 0.5, None


def _directions(lstm: nn.LSTM, batch: int) -> dict[str, _Direction]:
    """The kept weights, made anew where the parameters are not as they were."""
    parameters = list(lstm._parameters.values())
    rows = 1 << (batch - 1).bit_length() if batch else 0  # few sizes, for batches that shrink
    key = (rows, products.library(), [(p._version, p.data_ptr()) for p in parameters])
    kept = _kept.get(lstm)
    same = kept is not None and kept.key == key
    if not same or any(p is not q for p, q in zip(kept.parameters, parameters, strict=True)):
        with torch.no_grad():
            directions = {
                name.removeprefix("weight_hh_"): _made(lstm, name.removeprefix("weight_hh_"), rows)
                for name in lstm._parameters
                if name.startswith("weight_hh_")
            }
        kept = _kept[lstm] = _Kept(key, parameters, directions)
    return kept.directions


def _made(lstm: nn.LSTM, suffix: str, rows: int) -> _Direction:
    size = lstm.hidden_size
    heights = [4 * size] if lstm.gates == "all" else [2 * size, 2 * size]
    scale = torch.ones(4, size)
    scale[2] = 2.0  # of g
    scales = scale.view(-1).split(heights)
    biases = getattr(lstm, f"bias_{suffix}").split(heights) if lstm.bias else [None] * len(heights)
    biases = [None if b is None else b * s for b, s in zip(biases, scales, strict=True)]
    inputs = []
    for matrices, s in zip(_matrices(lstm, "ih", suffix, heights), scales, strict=True):
        inputs.append([*matrices[:-1], matrices[-1] * s[:, None]])
    steps = []
    for matrices, s in zip(_matrices(lstm, "hh", suffix, heights), scales, strict=True):
        scaled = [*matrices[:-1], matrices[-1] * -s[:, None]]
        steps.append(_chain([products.held_product(matrix, rows) for matrix in scaled]))
    return _Direction(list(zip(inputs, biases, strict=True)), steps)


def _chain(parts: list[Callable[..., Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return ``a, n -> a + `` what one or two products make of n."""
    if len(parts) == 1:
        (only,) = parts
        return lambda a, n: only(n, a)
    first, last = parts
    return lambda a, n: last(first(n), a)


def _matrices(lstm: nn.LSTM, kind: str, suffix: str, heights: list[int]) -> list[list[Tensor]]:
    """For each part, of so many rows, the matrices whose product it is, the right one first."""
    weight = getattr(lstm, f"weight_{kind}_{suffix}")
    left = lstm._parameters.get(f"left_{kind}_{suffix}")
    if left is None:
        return [[part] for part in weight.split(heights)]
    blocks, _, r = left.shape
    factors = [weight[: blocks * r], torch.block_diag(*left)]
    rest = weight[blocks * r :]
    return [factors, [rest]] if blocks > 1 else [factors]
