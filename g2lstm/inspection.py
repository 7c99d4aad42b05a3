"""What the gates of a trained model do: recording, histograms and saturation."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from g2lstm.lstm import G2LSTM, run_layers, set_mode


@dataclass(frozen=True)
class GateRecord:
    """Gate values of one layer and direction in one call of an LSTM.

    Attributes:
        module: qualified name of the LSTM in the recorded module, "" for that module itself.
        layer: index of the layer within the LSTM.
        reverse: whether this is the direction from the end to the start.
        training: whether the LSTM was in training mode (then Gumbel gates include their noise).
        input_gate, forget_gate: [T, B, H] in the order of the input's steps and sequences,
            detached; B is 1 for an input without batch. Steps after the end of a packed sequence
            are 0; `saturation` and `gate_histogram` of the gate as it is here leave them out.
        lengths: steps of each sequence, [B], on CPU; None if the input was not packed.
    """

    module: str
    layer: int
    reverse: bool
    training: bool
    input_gate: Tensor
    forget_gate: Tensor
    lengths: Tensor | None

    def __post_init__(self) -> None:
        if self.lengths is not None:
            for gate in (self.input_gate, self.forget_gate):
                gate.running = self.running  # for `_gate_values`

    @property
    def running(self) -> Tensor:
        """Mask [T, B]: True at the steps of each sequence, False after its end."""
        steps, batch = self.input_gate.shape[:2]
        lengths = torch.full((batch,), steps) if self.lengths is None else self.lengths
        return (torch.arange(steps)[:, None] < lengths).to(self.input_gate.device)


@contextmanager
def record_gates(module: nn.Module) -> Iterator[list[GateRecord]]:
    """Record the input and forget gates of every LSTM inside ``module``, itself included.

    Usage::

        with record_gates(model) as records:
            model(x)
        records[0].forget_gate  # [T, B, H]

    The list grows by one record per layer and direction with each call of a `G2LSTM` or
    `torch.nn.LSTM`, in training and in evaluation mode; contexts may be nested. Meanwhile every
    LSTM runs through `g2lstm.lstm.run_layers`. A `G2LSTM` draws the same noise and masks from the
    same seed as without recording; where a kernel of torch is replaced (`torch.nn.LSTM`, backend
    "native"), results are equal up to rounding, float32 under autocast, and on CUDA the dropout
    between layers draws other masks.

    Raises:
        ValueError: there is no LSTM in ``module``, or one that has projections or its own forward.
    """
    lstms = {name: part for name, part in module.named_modules() if isinstance(part, nn.LSTM)}
    if not lstms:
        raise ValueError(f"{type(module).__name__} holds no torch.nn.LSTM or G2LSTM to record")
    for name, lstm in lstms.items():
        if type(lstm).forward not in (nn.LSTM.forward, G2LSTM.forward):
            raise ValueError(f"cannot record {name!r}: {type(lstm).__name__} has its own forward")
        if lstm.proj_size > 0:
            raise ValueError(f"cannot record {name!r}: proj_size={lstm.proj_size}, only 0 can be")
    records: list[GateRecord] = []
    entered = []
    try:
        for name, lstm in lstms.items():
            recorder = vars(lstm).get("forward")
            if not isinstance(recorder, _Recorder):
                recorder = _Recorder(lstm, recorder)
                lstm.forward = recorder
            recorder.receivers.append((name, records))
            entered.append(recorder)
        yield records
    finally:
        for recorder in entered:
            recorder.leave(records)


class _Recorder:
    """Stands in for the ``forward`` of an LSTM while at least one context records it."""

    def __init__(self, lstm: nn.LSTM, replaced: object) -> None:
        self.lstm = lstm
        self.replaced = replaced  # an instance attribute set by someone else, normally None
        self.receivers: list[tuple[str, list[GateRecord]]] = []

    def __call__(self, input, hx=None):
        lstm = self.lstm
        if isinstance(lstm, G2LSTM):
            lstm.choose_backend()  # raises where the layer itself would

        def receive(layer: int, reverse: bool, gates: Tensor, batch_sizes: list[int] | None):
            gates, lengths = gates.detach(), None
            if isinstance(input, PackedSequence):
                starts = torch.arange(gates.shape[1])[:, None]  # [B, 1], longest sequence first
                lengths = (starts < torch.tensor(batch_sizes)).sum(1)
                if input.unsorted_indices is not None:
                    gates = gates.index_select(1, input.unsorted_indices)
                    lengths = lengths[input.unsorted_indices.cpu()]
            halves = [half.clone() for half in gates.chunk(2, dim=2)]
            for name, records in self.receivers:
                records.append(GateRecord(name, layer, reverse, lstm.training, *halves, lengths))

        return run_layers(lstm, input, hx, gate_hook=receive)

    def leave(self, records: list[GateRecord]) -> None:
        self.receivers = [entry for entry in self.receivers if entry[1] is not records]
        if not self.receivers and vars(self.lstm).get("forward") is self:
            del self.lstm.forward
            if self.replaced is not None:
                self.lstm.forward = self.replaced


@torch.no_grad()
def recorded(model: nn.Module, training: bool, call: Callable[[], object]) -> list[GateRecord]:
    """Gates of ``model`` during ``call``, in training or evaluation mode.

    Noise and masks are drawn from a fixed seed; mode and random state are restored.
    """
    with set_mode(model, training), torch.random.fork_rng(), record_gates(model) as records:
        torch.manual_seed(0)
        call()
    return records


def gate_histogram(values: Tensor | np.ndarray, bins: int = 10) -> np.ndarray:
    """Shares of gate values in ``bins`` equal parts of [0, 1], as in the paper's histograms.

    Args:
        values: gate values of any shape. A record's gate counts by the steps of each sequence
            alone; before you derive anything from it, take ``gate[record.running]``.
        bins: number of parts; each holds its lower edge, the last one also 1.

    Returns:
        ``bins`` shares that sum to 1.

    Raises:
        ValueError: no values, or a value outside [0, 1].
    """
    if bins < 1:
        raise ValueError(f"bins must be >= 1, got {bins!r}")
    values = _gate_values(values)
    return np.histogram(values, bins=bins, range=(0.0, 1.0))[0] / values.size


def saturation(values: Tensor | np.ndarray, margin: float = 0.1) -> float:
    """Share of gate values nearer than ``margin`` to 0 or to 1.

    Args:
        values: as of `gate_histogram`.
        margin: in (0, 1/2].

    Raises:
        ValueError: no values, a value outside [0, 1], or ``margin`` out of its range.
    """
    if not 0 < margin <= 0.5:
        raise ValueError(f"margin must be in (0, 1/2], got {margin!r}")
    values = _gate_values(values)
    return float(np.mean((values < margin) | (values > 1 - margin)))


def gate_summary(records: Iterable[GateRecord]) -> dict[str, dict[str, Any]]:
    """Histogram (10 shares), saturation and mean of the gates of all records together.

    Args:
        records: as `record_gates` collects them; steps after the end of a sequence do not count.

    Returns:
        ``{"input": {"histogram": [...], "saturation": ..., "mean": ...}, "forget": {...}}``.

    Raises:
        ValueError: there are no gate values.
    """
    records = list(records)
    summary = {}
    for kind in ("input", "forget"):
        parts = [getattr(record, f"{kind}_gate")[record.running].flatten() for record in records]
        values = torch.cat(parts) if parts else torch.empty(0)
        summary[kind] = {
            "histogram": [float(share) for share in gate_histogram(values)],
            "saturation": saturation(values),
            "mean": float(values.mean()),
        }
    return summary


def _gate_values(values: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(values, Tensor):
        running = getattr(values, "running", None)
        values = values if running is None else values[running]
        values = values.detach().double().cpu().numpy()
    values = np.asarray(values, dtype=np.float64).ravel()
    if values.size == 0:
        raise ValueError("no gate values: was the recorded module called?")
    wrong = values[~((values >= 0) & (values <= 1))]
    if wrong.size:
        raise ValueError(f"gate values must be in [0, 1], got {float(wrong[0])!r}")
    return values
