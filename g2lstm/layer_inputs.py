"""Checks of what an LSTM is called with, the same ones whatever computes it.

`torch.nn.LSTM` leaves some to its kernels, which read past a wrong size without a word: it takes
states of another batch with packed input, for example, and the first of them.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from g2lstm.transforms import autocast_dtype


def check_call(
    lstm: nn.LSTM, input: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None
) -> None:
    """See that input and states have the sizes and types that the layer takes.

    Args:
        lstm: the layer.
        input, hx: as in `G2LSTM.forward`.

    Raises:
        ValueError: input of another number of dimensions or another dtype than the weights'.
        RuntimeError: another wrong size, or states of another dtype.
        TypeError: ``hx`` is no pair of tensors.
    """
    if isinstance(input, PackedSequence):
        lstm.check_input(input.data, input.batch_sizes)
        _check_packed(input)
        batch = (int(input.batch_sizes[0]),)
    else:
        if input.dim() not in (2, 3):
            raise ValueError(f"LSTM: expected input of 2 or 3 dimensions, got {input.dim()}")
        batched = input.dim() == 3
        lstm.check_input(input if batched else input.unsqueeze(0), None)
        if input.shape[1 if lstm.batch_first and batched else 0] == 0:
            raise RuntimeError("LSTM: expected a sequence of at least one step, got 0")
        batch = (input.shape[0 if lstm.batch_first else 1],) if batched else ()
    if hx is None:
        return
    if not isinstance(hx, tuple | list) or len(hx) != 2:
        got = f"{len(hx)} values" if isinstance(hx, tuple | list) else type(hx).__name__
        raise TypeError(f"LSTM: hx must be a pair of tensors (h, c), got {got}")
    expected = (lstm.num_layers * (2 if lstm.bidirectional else 1), *batch, lstm.hidden_size)
    dtype = input.data.dtype if isinstance(input, PackedSequence) else input.dtype  # the weights'
    for name, state in zip(("h", "c"), hx, strict=True):
        if state.shape != expected:
            found = tuple(state.shape)
            raise RuntimeError(f"LSTM: expected {name} of shape {expected}, got {found}")
        if state.dtype != dtype and autocast_dtype(state.device) is None:
            raise RuntimeError(
                f"LSTM: expected {name} of {dtype}, as the weights, got {state.dtype}"
            )


def _check_packed(packed: PackedSequence) -> None:
    """Those of `pack_padded_sequence` are right; what was put together by hand may not be."""
    if torch.compiler.is_compiling():
        return
    sizes = packed.batch_sizes.tolist()
    falling = sizes == sorted(sizes, reverse=True) and min(sizes, default=-1) >= 0
    if not falling or sum(sizes) != len(packed.data):
        raise RuntimeError(
            f"LSTM: packed data of {len(packed.data)} rows with batch_sizes={sizes}, which must "
            "not rise and must add up to the rows: use torch.nn.utils.rnn.pack_padded_sequence"
        )
    for name in ("sorted_indices", "unsorted_indices"):
        indices = getattr(packed, name)
        if indices is not None and len(indices) != sizes[0]:
            raise RuntimeError(
                f"LSTM: packed {name} of {len(indices)} sequences for a batch of {sizes[0]}"
            )
