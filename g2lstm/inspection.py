"""Gate values of any model: recording them, and what to say about them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from g2lstm.lstm import run_layers


@dataclass(frozen=True)
class GateRecord:
    """Gate values of one layer and direction in one forward pass.

    Attributes:
        module: qualified name of the LSTM in the model ("" if it is the model).
        layer: 0, 1, ... within the LSTM.
        reverse: whether it is the backward direction; values are in the order of time all the same.
        training: whether the LSTM was in training mode (Gumbel gates then carry noise).
        input_gate, forget_gate: [T, B, H], detached; 0 after the end of a packed sequence. The
            batch of a packed sequence is in its sorted order, longest first.
        lengths: [B] lengths of packed sequences in that order, else None.
    """

    module: str
    layer: int
    reverse: bool
    training: bool
    input_gate: Tensor
    forget_gate: Tensor
    lengths: Tensor | None


@contextmanager
def record_gates(module: nn.Module) -> Iterator[list[GateRecord]]:
    """Collect the gate values of every `G2LSTM` and `torch.nn.LSTM` in ``module``.

    Within the context every forward pass appends a `GateRecord` for each LSTM, layer and direction.
    An LSTM then runs layer by layer on the fused backend, or on the reference backend if that is
    its own; outputs stay the same up to rounding.

    Args:
        module: any model, or an LSTM itself.

    Yields:
        The list the records are appended to.
    """
    records: list[GateRecord] = []
    lstms = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.LSTM)]
    before = [part.__dict__.get("forward") for _, part in lstms]
    for name, part in lstms:
        part.forward = _recording_forward(name, part, records)
    try:
        yield records
    finally:
        for (_, part), forward in zip(lstms, before, strict=True):
            if forward is None:
                del part.forward
            else:
                part.forward = forward


def _recording_forward(name: str, lstm: nn.LSTM, records: list[GateRecord]):
    def keep(layer: int, reverse: bool, gates: Tensor, batch_sizes: list[int] | None) -> None:
        input_gate, forget_gate = gates.detach().chunk(2, dim=2)
        lengths = None
        if batch_sizes is not None:
            running = torch.tensor(batch_sizes)[:, None] > torch.arange(batch_sizes[0])
            lengths = running.sum(0)
        records.append(
            GateRecord(name, layer, reverse, lstm.training, input_gate, forget_gate, lengths)
        )

    def forward(input, hx=None):
        return run_layers(lstm, input, hx, gate_hook=keep)

    return forward


def gate_histogram(values: Tensor, bins: int = 10) -> np.ndarray:
    """Share of ``values`` (any shape, in [0, 1]) in each of ``bins`` equal bins of [0, 1].

    Raises:
        ValueError: no values, or a value outside [0, 1].
    """
    array = values.detach().float().cpu().numpy().ravel()
    if array.size == 0:
        raise ValueError("no gate values to count")
    if not (array.min() >= 0 and array.max() <= 1):
        raise ValueError(f"gate values must be in [0, 1], got {array.min()} to {array.max()}")
    counts, _ = np.histogram(array, bins=bins, range=(0, 1))
    return counts / array.size


def saturation(values: Tensor, margin: float = 0.1) -> float:
    """Share of ``values`` (any shape) below ``margin`` or above 1 - ``margin``.

    Raises:
        ValueError: ``margin`` outside (0, 1/2).
    """
    if not 0 < margin < 0.5:
        raise ValueError(f"margin must be in (0, 1/2), got {margin!r}")
    return float(((values < margin) | (values > 1 - margin)).float().mean())
