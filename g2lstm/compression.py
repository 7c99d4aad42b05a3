"""Compression of gates, as the paper simulates it: rounding, clipping, low rank.

Each method acts on one block of weights at a time: the part of one matrix that belongs to one gate
(in PyTorch's order i, f, g, o), a matrix [H, D] or [H, H]. The result has the shape it had; what is
really smaller is in `low_rank_lstm` and `packing`.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

GATE_BLOCKS = {"input": 0, "forget": 1, "cell": 2, "output": 3}  # torch.nn.LSTM's order
MATRICES = ("input", "recurrent", "context")


class CompressionError(ValueError):
    """There is nothing to compress in the model, or the choice of what to compress is wrong."""


class ReparametrisedError(CompressionError):
    """Weights of an LSTM are computed from others, which compression would not see."""


class WeightsError(RuntimeError):
    """Weights are NaN or infinite: nothing that is computed with them means anything."""


class Method(Protocol):
    """Turns a block of weights [rows, columns] into another one of the same shape."""

    def __call__(self, block: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Round:
    """Round each weight to the nearest multiple of ``step`` (ties to the even one), as the paper.

    Args:
        step: r > 0; the paper has 0.2 for the language model and 0.5 for translation.

    Raises:
        CompressionError: ``step`` is not a finite number > 0.
    """

    step: float

    def __post_init__(self) -> None:
        _check_positive("step", self.step)

    def __call__(self, block: Tensor) -> Tensor:
        return (block / self.step).round() * self.step + 0.0  # -0 and 0 are one value


@dataclass(frozen=True)
class RoundClip:
    """Clip each weight to [-clip, clip], then round it, in this order (authors' code).

    With clip = 2 step, as in the paper, five values remain: -2, -1, 0, 1 and 2 steps.

    Args:
        step: r > 0, see `Round`.
        clip: c >= r; the paper has 2 r.

    Raises:
        CompressionError: one of them is not a finite number > 0; or ``step`` is larger than
            ``clip``, which leaves no multiple of it but 0 in [-c, c].
    """

    step: float
    clip: float

    def __post_init__(self) -> None:
        _check_positive("step", self.step)
        _check_positive("clip", self.clip)
        if self.step > self.clip:
            raise CompressionError(
                f"step={self.step} is larger than clip={self.clip}, so that no multiple of the "
                "step but 0 lies within the clip: give a clip of at least the step (the paper: "
                f"twice the step), or swap them, as in RoundClip({self.clip}, {self.step})"
            )

    def __call__(self, block: Tensor) -> Tensor:
        return Round(self.step)(block.clamp(-self.clip, self.clip))


@dataclass(frozen=True)
class LowRank:
    """The best approximation of a block of at most this rank (truncated SVD, Eckart and Young).

    Args:
        rank: at least 1; a block of no higher rank stays as it is.

    Raises:
        CompressionError: ``rank`` is not an integer >= 1.
    """

    rank: int

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise CompressionError(f"rank must be an integer >= 1, got {self.rank!r}")

    def factors(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """U [rows, rank] and V [rank, columns] whose product is the approximation."""
        u, s, v = torch.linalg.svd(block.double(), full_matrices=False)
        root = s[: self.rank].sqrt()
        left, right = u[:, : self.rank] * root, root[:, None] * v[: self.rank]
        return left.to(block.dtype), right.to(block.dtype)

    def __call__(self, block: Tensor) -> Tensor:
        if self.rank >= min(block.shape):
            return block.clone()
        left, right = self.factors(block)
        return left @ right


@dataclass(frozen=True)
class Integers:
    """Whole multiples of the row's largest absolute weight / (2^(bits - 1) - 1).

    Args:
        bits: of the integers, 2 to 8; default 8, the int8 of common use.

    Raises:
        CompressionError: ``bits`` out of its range.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits not in range(2, 9):
            raise CompressionError(f"bits must be an integer from 2 to 8, got {self.bits!r}")

    def codes(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """The integers, of the shape of ``block``, and the step of each row [rows, 1]."""
        limit = 2 ** (self.bits - 1) - 1
        step = block.abs().amax(-1, keepdim=True) / limit
        step = torch.where(step > 0, step, torch.ones_like(step))
        return (block / step).round().clamp(-limit, limit).to(torch.int8), step

    def __call__(self, block: Tensor) -> Tensor:
        codes, step = self.codes(block)
        return codes.to(block.dtype) * step


@dataclass(frozen=True)
class Chain:
    """Several methods one after the other, as in ``Chain((LowRank(16), Round(0.1)))``."""

    methods: tuple[Method, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "methods", tuple(self.methods))

    def __call__(self, block: Tensor) -> Tensor:
        for method in self.methods:
            block = method(block)
        return block


def compress(
    model: nn.Module,
    method: Method,
    gates: Iterable[str] = ("input", "forget"),
    matrices: Iterable[str] = ("input", "recurrent"),
    biases: bool = False,
) -> nn.Module:
    """A copy of ``model`` with the weights of its LSTMs compressed, block by block.

    Args:
        model: any module that is or holds a `torch.nn.LSTM` or `G2LSTM`; left as it is.
        method: `Round`, `RoundClip`, `LowRank`, `Integers` or a `Chain` of them.
        gates: of "input", "forget", "cell" and "output"; the paper: the first two.
        matrices: of "input" (W_x), "recurrent" (W_h) and "context" (those columns of W_x that see
            attention's context, as the model's ``context_columns`` names them). The paper's
            language model: the first two; the authors' translation code: the last two.
        biases: whether the biases of these gates are compressed too, as matrices [1, H].

    Returns:
        The compressed copy, on the same device and in the same mode.

    Raises:
        CompressionError: an unknown gate or matrix, nothing chosen or nothing there of what is
            chosen, no LSTM in the model, or one that is factored already.
        ReparametrisedError: see `check_own_weights`.
        WeightsError: a weight is NaN or infinite.
    """
    check_own_weights(model)
    check_finite(type(model).__name__, model.named_parameters())
    compressed = copy.deepcopy(model)
    with torch.no_grad():
        for _, block in _chosen_blocks(compressed, gates, matrices, biases):
            flat = block if block.dim() == 2 else block[None]
            flat.copy_(method(flat.clone()))
    return compressed


def check_own_weights(model: nn.Module) -> None:
    """See that the weights of all LSTMs are parameters of their own, not computed from others.

    Raises:
        ReparametrisedError: they are, as by `torch.nn.utils.weight_norm` or
            `torch.nn.utils.parametrize`; names the weight and what undoes it.
    """
    for module, lstm in model.named_modules():
        if not isinstance(lstm, nn.LSTM):
            continue
        for name in lstm._flat_weights_names:
            if name in lstm._parameters:
                continue
            how, remedy = _reparametrisation(lstm, name)
            raise ReparametrisedError(
                f"{name} of {module or type(lstm).__name__} is no parameter but computed from "
                f"others, by {how}: call {remedy} first"
            )


def _reparametrisation(lstm: nn.LSTM, name: str) -> tuple[str, str]:
    """What computes the weight ``name``, and the call that makes it a parameter again."""
    if is_parametrized(lstm, name):
        parts = ", ".join(type(part).__name__ for part in lstm.parametrizations[name])
        call = f"remove_parametrizations(lstm, {name!r})"
        return f"the parametrization {parts}", f"torch.nn.utils.parametrize.{call}"
    hooks = {
        WeightNorm: "remove_weight_norm",
        SpectralNorm: "remove_spectral_norm",
        BasePruningMethod: "prune.remove",
    }
    for hook in lstm._forward_pre_hooks.values():
        for kind, remove in hooks.items():
            if isinstance(hook, kind) and name in vars(hook).values():
                return type(hook).__name__, f"torch.nn.utils.{remove}(lstm, {name!r})"
    return "code of its own", f"lstm.register_parameter({name!r}, torch.nn.Parameter(value))"


def check_finite(what: object, weights: Iterable[tuple[str, Tensor]]) -> None:
    """See that all weights are numbers.

    Args:
        what: the model, or the file that it was read from, for the message.
        weights: their names and values.

    Raises:
        WeightsError: one is NaN or infinite; names it.
    """
    for name, weight in weights:
        odd = weight.numel() - int(torch.isfinite(weight).sum())
        if odd:
            raise WeightsError(
                f"{what}: {odd} of {weight.numel()} weights of {name} are NaN or infinite, because "
                "the training diverged or the file was changed: train again, with a lower "
                "learning_rate or clip, or put back a good copy"
            )


def gate_blocks(
    model: nn.Module,
    gates: Iterable[str] = ("input", "forget"),
    matrices: Iterable[str] = ("input", "recurrent"),
    biases: bool = False,
) -> dict[str, Tensor]:
    """The blocks that `compress` would act on, views of the model's parameters, by name.

    A name is that of the parameter and of the gate, as in "layers.0.weight_hh_l0: forget".

    Raises:
        CompressionError: as `compress`.
    """
    check_own_weights(model)
    return dict(_chosen_blocks(model, gates, matrices, biases))


def bits_per_weight(block: Tensor) -> int:
    """Bits that tell the values of ``block`` apart, all of them stored equally long; at least 1."""
    return max(1, (len(torch.unique(block)) - 1).bit_length())


def _chosen_blocks(
    model: nn.Module, gates: Iterable[str], matrices: Iterable[str], biases: bool
) -> Iterator[tuple[str, Tensor]]:
    gates, matrices = _checked("gate", gates, GATE_BLOCKS), _checked("matrix", matrices, MATRICES)
    lstms = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.LSTM)]
    if not lstms:
        raise CompressionError(f"{type(model).__name__} holds no torch.nn.LSTM or G2LSTM")
    if not gates or not (matrices or biases):
        raise CompressionError("nothing is chosen: name at least one gate and one matrix")
    context: Mapping[str, slice] = getattr(model, "context_columns", {})
    found = False
    for module, lstm in lstms:
        if any(own_name.startswith("left") for own_name, _ in lstm.named_parameters()):
            raise CompressionError(
                f"{module or type(lstm).__name__} is factored already: compress it before"
            )
        for own_name, parameter in lstm.named_parameters(recurse=False):
            name = f"{module}.{own_name}" if module else own_name
            columns = _columns(name, own_name, matrices, biases, context)
            if columns is None:
                continue
            found = True
            for gate in gates:
                block = parameter.detach().chunk(4)[GATE_BLOCKS[gate]]
                yield f"{name}: {gate}", block if block.dim() == 1 else block[:, columns]
    if not found:
        chosen = ", ".join((*matrices, *(["biases"] if biases else [])))
        raise CompressionError(f"{type(model).__name__} has nothing of what is chosen: {chosen}")


def _columns(
    name: str,
    own_name: str,
    matrices: tuple[str, ...],
    biases: bool,
    context: Mapping[str, slice],
) -> slice | None:
    """The columns of a parameter that are chosen; None: it is not chosen at all."""
    everything = slice(None)
    if own_name.startswith("bias"):
        return everything if biases else None
    if own_name.startswith("weight_hh"):
        return everything if "recurrent" in matrices else None
    if own_name.startswith("weight_ih") and "input" in matrices:
        return everything
    if "context" in matrices and name in context:
        return context[name]
    return None


def _checked(kind: str, names: Iterable[str], known: Iterable[str]) -> tuple[str, ...]:
    names = (names,) if isinstance(names, str) else tuple(names)
    for name in names:
        if name not in known:
            raise CompressionError(f"{kind} must be one of {', '.join(known)}, got {name!r}")
    return names


def _check_positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise CompressionError(f"{name} must be a number, got {value!r}")
    if not 0 < value < float("inf"):
        raise CompressionError(f"{name} must be a finite number > 0, got {value!r}")
