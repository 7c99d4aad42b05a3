"""LSTM whose gates' blocks are stored and computed as two thin products."""

import copy
import warnings
from bisect import bisect_left
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from g2lstm.compression import CompressionError, LowRank, check_own_weights
from g2lstm.gate_modes import gates_of, has_binary_output
from g2lstm.gates import hard_gate
from g2lstm.low_rank_inference import run_inference, serves
from g2lstm.lstm import reverse_time, run_layers
from g2lstm.transforms import one_call

KINDS = {"input": "ih", "recurrent": "hh"}
FACTORED = ("input-forget", "all")


class LowRankLSTM(nn.LSTM):
    """`torch.nn.LSTM` in which W_xi, W_xf, W_hi and W_hf are products of factors of rank r.

    Inputs, outputs and options are those of `torch.nn.LSTM`; gates are plain sigmoids, or hard.
    Made from a trained layer by `from_lstm`, for inference; gradients pass too. For each layer and
    direction, with k = ih (size D) or hh (size H)::

        weight_k  [2r + 2H, D or H]  right factors of i and f, then the whole blocks of g and o
        left_k    [2, H, r]          left factors of i and f
        bias      [4H]               both biases together, in the order i, f, g, o

    With ``gates="all"`` the four blocks of a matrix are factored together, as one matrix::

        weight_k  [r, D or H]        its right factor
        left_k    [1, 4H, r]         its left factor

    A kind that is not factored has ``weight_k`` [4H, D or H] and no ``left_k``.

    In float32 on a CPU, where no gradient is asked for and the input is not packed, the layer
    keeps a copy of its weights as fast products need them (`low_rank_inference`). A change of the
    weights renews the copy, but for a change through ``.data``, which PyTorch does not record.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional: as in
            `torch.nn.LSTM`.
        rank: r, at least 1; of a block with fewer rows or columns, their number.
        matrices: which to factor, of "input" and "recurrent".
        hard: gates that are `gates.hard_gate` of their pre-activations: of "i", "f" and "o".
        gates: "input-forget" (each block by itself, as in the paper) or "all" (together).
        device, dtype: of the parameters, which are zeros.

    Raises:
        CompressionError: ``rank``, ``matrices``, ``hard`` or ``gates`` out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        rank: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        matrices: Iterable[str] = ("input", "recurrent"),
        hard: str = "",
        gates: str = "input-forget",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device="meta",
        )  # fmt: skip
        self.rank, self.hard = LowRank(rank).rank, hard
        self.matrices = (matrices,) if isinstance(matrices, str) else tuple(matrices)
        if not self.matrices or not set(self.matrices) <= set(KINDS):
            raise CompressionError(
                f"matrices must be some of {', '.join(KINDS)}, got {self.matrices!r}"
            )
        if gates not in FACTORED:
            raise CompressionError(f"gates must be one of {', '.join(FACTORED)}, got {gates!r}")
        if not isinstance(hard, str) or not set(hard) <= set("ifo"):
            raise CompressionError(f"hard must be some of i, f, o, got {hard!r}")
        self.gates = gates
        options = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        sizes = {name: part.shape[1] for name, part in self.named_parameters() if part.dim() == 2}
        self._parameters.clear()
        h = hidden_size
        for name, columns in sizes.items():  # weight_ih_l0, weight_hh_l0, weight_ih_l0_reverse, ...
            _, kind, suffix = name.split("_", 2)
            factored = kind in {KINDS[matrix] for matrix in self.matrices}
            blocks, height = (1, 4 * h) if gates == "all" else (2, h)
            r = min(self.rank, height, columns)
            rows = blocks * (r - height) + 4 * h if factored else 4 * h
            self.register_parameter(name, nn.Parameter(torch.zeros(rows, columns, **options)))
            if factored:
                left = nn.Parameter(torch.zeros(blocks, height, r, **options))
                self.register_parameter(f"left_{kind}_{suffix}", left)
            if kind == "hh" and bias:
                self.register_parameter(
                    f"bias_{suffix}", nn.Parameter(torch.zeros(4 * h, **options))
                )
        # torch.nn.LSTM lists its parameters, for copies, and looks up the dtype of the first one.
        self._flat_weights_names = list(self._parameters)
        self._all_weights = [self._flat_weights_names]
        self._init_flat_weights()

    @classmethod
    def from_lstm(
        cls,
        lstm: nn.LSTM,
        rank: int,
        matrices: Iterable[str] = ("input", "recurrent"),
        gates: str = "input-forget",
    ) -> "LowRankLSTM":
        """The layer with the weights of a trained `torch.nn.LSTM` or `G2LSTM`, which is left alone.

        It computes what the layer compressed by `LowRank` computes in evaluation mode. The
        temperature of a gate that has one there is worked into the weights. On the meta device it
        has the sizes alone.

        Raises:
            CompressionError: see `LowRankLSTM`; or a layer with projections, or factored already.
            ReparametrisedError: see `compression.check_own_weights`.
        """
        check_own_weights(lstm)
        if isinstance(lstm, cls):
            raise CompressionError(f"the layer is factored already, to rank {lstm.rank}")
        if lstm.proj_size > 0:
            raise CompressionError(f"proj_size={lstm.proj_size} is not supported, only 0")
        weight = lstm.weight_hh_l0
        (temperature, hard), binary_output = gates_of(lstm, False), has_binary_output(lstm)
        of_output = temperature if binary_output else 1.0
        compact = cls(
            lstm.input_size, lstm.hidden_size, rank, lstm.num_layers, lstm.bias, lstm.batch_first,
            lstm.dropout, lstm.bidirectional, matrices=matrices, gates=gates,
            hard="" if not hard else "ifo" if binary_output else "if",
            device=weight.device, dtype=weight.dtype,
        ).train(lstm.training)  # fmt: skip
        if weight.is_meta:
            return compact  # sizes alone
        with torch.no_grad():
            for name, target in compact.named_parameters():
                part, _, suffix = name.partition("_")
                if part == "bias":
                    value = getattr(lstm, f"bias_ih_{suffix}") + getattr(lstm, f"bias_hh_{suffix}")
                    value[: 2 * lstm.hidden_size] /= temperature
                    value[3 * lstm.hidden_size :] /= of_output
                    target.copy_(value)
                elif part == "weight":
                    whole = getattr(lstm, name).clone()
                    left = compact._parameters.get(f"left_{suffix}")
                    if left is None:
                        whole[: 2 * lstm.hidden_size] /= temperature
                        whole[3 * lstm.hidden_size :] /= of_output
                        target.copy_(whole)
                        continue
                    blocks, height, r = left.shape
                    rights = []
                    for index, block in enumerate(whole[: blocks * height].chunk(blocks)):
                        factor, right = LowRank(r).factors(block)
                        factor[: 2 * lstm.hidden_size] /= temperature
                        factor[3 * lstm.hidden_size :] /= of_output
                        left[index] = factor
                        rights.append(right)
                    rest = whole[blocks * height :]  # g and o, or nothing
                    rest[lstm.hidden_size :] /= of_output
                    target.copy_(torch.cat([*rights, rest]))
        return compact

    def dense_weight(self, kind: str, suffix: str) -> Tensor:
        """The matrix [4H, D or H] with its factors multiplied out.

        Args:
            kind: "ih" or "hh".
            suffix: of the layer and direction, such as "l0" or "l1_reverse".
        """
        weight = getattr(self, f"weight_{kind}_{suffix}")
        left = self._parameters.get(f"left_{kind}_{suffix}")
        if left is None:
            return weight
        blocks, _, r = left.shape
        right = weight[: blocks * r].view(blocks, r, -1)
        return torch.cat([torch.bmm(left, right).flatten(0, 1), weight[blocks * r :]])

    def flatten_parameters(self) -> None:
        """Nothing to do: no kernel of cuDNN runs over these parameters."""

    def extra_repr(self) -> str:
        about = f"rank={self.rank}, matrices={self.matrices}, gates={self.gates}"
        return f"{super().extra_repr()}, {about}"

    @one_call
    def forward(
        self, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """As `torch.nn.LSTM`."""
        run = run_inference if serves(self, input, hx) else _run_direction
        return run_layers(self, input, hx, run_direction=run)


def factorise(
    model: nn.Module,
    rank: int,
    matrices: Iterable[str] = ("input", "recurrent"),
    gates: str = "input-forget",
) -> nn.Module:
    """A copy of ``model`` in which every LSTM is a `LowRankLSTM`; for inference.

    It warns of a rank that makes the model larger, see `largest_rank`.

    Raises:
        CompressionError: as `LowRankLSTM.from_lstm`; or there is no LSTM in the model.
    """
    compact = _factorised(model, rank, matrices, gates)
    if problem := rank_without_saving(model, rank, matrices, gates):
        warnings.warn(problem, stacklevel=2)
    return compact


def rank_without_saving(
    model: nn.Module,
    rank: int,
    matrices: Iterable[str] = ("input", "recurrent"),
    gates: str = "input-forget",
) -> str:
    """In words, that factors of this rank have no fewer weights than ``model``; "" if they have."""
    largest = largest_rank(model, matrices, gates)
    if rank <= largest:
        return ""
    remedy = f"the largest rank that saves any is {largest}" if largest else "no rank saves any"
    return f"rank={rank} saves no weights: {remedy}"


def largest_rank(
    model: nn.Module,
    matrices: Iterable[str] = ("input", "recurrent"),
    gates: str = "input-forget",
) -> int:
    """The largest rank at which `factorise` leaves fewer weights than ``model`` has; 0: none.

    A matrix of R x C weights has factors of r (R + C).
    """
    kinds = [KINDS[name] for name in ([matrices] if isinstance(matrices, str) else matrices)]
    blocks = [  # each as often as all others, so that one of each will do
        (weight.shape[0] // (1 if gates == "all" else 4), weight.shape[1])
        for lstm in model.modules()
        if isinstance(lstm, nn.LSTM)
        for name, weight in lstm.named_parameters(recurse=False)
        if name.startswith("weight") and name.split("_")[1] in kinds
    ]
    whole = sum(rows * columns for rows, columns in blocks)

    def saves(rank: int) -> bool:
        factored = sum(min(rank, *block) * sum(block) for block in blocks)
        return factored < whole

    most = max((min(block) for block in blocks), default=0)
    return bisect_left(range(1, most + 1), True, key=lambda rank: not saves(rank))


def _factorised(model: nn.Module, rank: int, matrices: Iterable[str], gates: str) -> nn.Module:
    if isinstance(model, nn.LSTM):
        return LowRankLSTM.from_lstm(model, rank, matrices, gates)
    names = [name for name, part in model.named_modules() if isinstance(part, nn.LSTM)]
    if not names:
        raise CompressionError(f"{type(model).__name__} holds no torch.nn.LSTM or G2LSTM")
    check_own_weights(model)
    copied = copy.deepcopy(model)
    for name in names:
        parent, _, own_name = name.rpartition(".")
        compact = LowRankLSTM.from_lstm(model.get_submodule(name), rank, matrices, gates)
        setattr(copied.get_submodule(parent), own_name, compact)
    return copied


def _run_direction(
    lstm: LowRankLSTM,
    x: Tensor,
    hx: tuple[Tensor, Tensor],
    layer: int,
    reverse: bool,
    batch_sizes: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    suffix = f"l{layer}" + ("_reverse" if reverse else "")
    index = layer * (2 if lstm.bidirectional else 1) + reverse
    x = reverse_time(x, batch_sizes) if reverse else x
    steps, batch, _ = x.shape
    size = lstm.hidden_size
    a_x = _product(lstm, "ih", suffix, x.flatten(0, 1)).view(steps, batch, 4 * size)
    if lstm.bias:
        a_x = a_x + getattr(lstm, f"bias_{suffix}")
    h, c = hx[0][index], hx[1][index]
    sigmoid_i, sigmoid_f, sigmoid_o = (
        hard_gate if k in lstm.hard else torch.sigmoid for k in "ifo"
    )
    outputs, gates = [], []
    for t in range(steps):
        n = batch if batch_sizes is None else batch_sizes[t]
        a = a_x[t, :n] + _product(lstm, "hh", suffix, h[:n])
        a_i, a_f, a_g, a_o = a.chunk(4, dim=1)
        i, f, o = sigmoid_i(a_i), sigmoid_f(a_f), sigmoid_o(a_o)
        c_new = f * c[:n] + i * a_g.tanh()
        h_new = o * c_new.tanh()
        if n < batch:  # sequences that have ended keep their state and put out 0
            padding = (0, 0, 0, batch - n)
            outputs.append(nn.functional.pad(h_new, padding))
            h, c = torch.cat([h_new, h[n:]]), torch.cat([c_new, c[n:]])
        else:
            outputs.append(h_new)
            h, c = h_new, c_new
        gates.append(nn.functional.pad(torch.cat([i, f], 1), (0, 0, 0, batch - n)))
    output, gates = torch.stack(outputs), torch.stack(gates)
    if reverse:
        output, gates = reverse_time(output, batch_sizes), reverse_time(gates, batch_sizes)
    return output, h, c, gates


def _product(lstm: LowRankLSTM, kind: str, suffix: str, x: Tensor) -> Tensor:
    """Pre-activations [N, 4H] of x [N, D or H]."""
    y = x @ getattr(lstm, f"weight_{kind}_{suffix}").T
    left = lstm._parameters.get(f"left_{kind}_{suffix}")
    if left is None:
        return y
    blocks, _, r = left.shape
    thin = y[:, : blocks * r].view(len(y), blocks, r).transpose(0, 1)  # [blocks, N, r]
    factored = torch.bmm(thin, left.transpose(1, 2))  # [blocks, N, rows of a block]
    return torch.cat([*factored, y[:, blocks * r :]], 1)
