"""Trained models as ONNX files, which run without PyTorch; also with weights in int8.

Every layer becomes ONNX's own operator LSTM. ONNX Runtime runs that as one call for the whole
sequence, and with weights in int8 several times faster than `torch.nn.LSTM`
(`benchmarks/compression.md`). The extra ``onnx`` installs what is needed.
"""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from g2lstm.compression import check_own_weights
from g2lstm.files import replacing
from g2lstm.gate_modes import gates_of, has_binary_output
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import LowRankLSTM

OPSET = 17
IR_VERSION = 9  # runs in ONNX Runtime from 1.16 on
GATES = (0, 3, 1, 2)  # ONNX's order i, o, f, c in PyTorch's i, f, g, o


class ExportError(ValueError):
    """The model cannot be exported; says what can."""


def export_onnx(model: nn.Module, path: Path | str, int8: bool = False) -> None:
    """Write ``model``, as it computes in evaluation mode, to the ONNX file ``path``, atomically.

    Numbers of steps T and of sequences B are free, and the state is carried by the caller. Inputs
    and outputs by name, for a layer with L layers and R directions (with ``batch_first``, input
    and output are [B, T, ...])::

        input [T, B, D], h_0, c_0 [L * R, B, H] -> output [T, B, R * H], h_n, c_n [L * R, B, H]

    and for a language model, whose layers 0, 1, ... may have different sizes::

        tokens [T, B] (int64), h_0_l0, c_0_l0, h_0_l1, ... [1, B, H]
            -> log_probabilities [T, B, V], h_n_l0, c_n_l0, h_n_l1, ... [1, B, H]

    Args:
        model: a `torch.nn.LSTM`, `G2LSTM` or `LowRankLSTM`, or a `LanguageModel`, in float32.
            Temperatures are folded into the weights, which changes nothing else. Of factors only
            those of ``gates="all"`` on the input stay factors; all others are multiplied out, for
            ONNX's LSTM has whole matrices.
        path: of the file.
        int8: store matrices as int8 and compute with it (`quantize_dynamic` of ONNX Runtime; a
            scale a matrix). From PyTorch's initial weights, outputs and states change by less than
            0.02; of trained models `benchmarks/compression.md` has the perplexity.

    Raises:
        ExportError: another module, another type of weights, a layer with projections or with
            hard gates; or onnx, or for int8 ONNX Runtime, is not installed.
        ReparametrisedError: see `compression.check_own_weights`.
        WriteError: the file cannot be written; ``path`` is as it was.
    """
    graph = _Graph()
    if isinstance(model, nn.LSTM):
        _layer(graph, model)
    elif isinstance(model, LanguageModel):
        _language_model(graph, model)
    else:
        raise ExportError(
            f"{type(model).__name__} cannot be exported to ONNX: export a torch.nn.LSTM, G2LSTM, "
            "LowRankLSTM or LanguageModel (of a translation model: the LSTMs inside, one by one)"
        )
    content = graph.proto()
    with replacing(path) as temporary:
        if int8:
            _write_int8(content, temporary)
        else:
            temporary.write_bytes(content.SerializeToString())


class _Graph:
    """An ONNX graph in the making; values are known by their names."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            raise ExportError(f"{error}: install g2lstm[onnx] to export models") from error
        self.onnx = onnx
        self.nodes, self.constants, self.inputs, self.outputs = [], [], [], []

    def add(self, operator: str, *inputs: str, count: int = 1, **attributes) -> str | list[str]:
        """A node; the name of its result, or of its ``count`` results."""
        number = len(self.nodes)
        names = [f"{operator}_{number}_{index}" for index in range(count)]
        node = self.onnx.helper.make_node(operator, inputs, names, name=names[0], **attributes)
        self.nodes.append(node)
        return names[0] if count == 1 else names

    def constant(self, value: Tensor | Sequence[int]) -> str:
        array = value.detach().cpu().contiguous() if isinstance(value, Tensor) else None
        if array is not None and array.dtype != torch.float32:
            raise ExportError(f"weights must be float32, got {array.dtype}: convert by .float()")
        array = torch.tensor(value) if array is None else array
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(array.numpy(), name))
        return name

    def input(self, name: str, shape: Sequence[str | int], integers: bool = False) -> str:
        kind = self.onnx.TensorProto.INT64 if integers else self.onnx.TensorProto.FLOAT
        self.inputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[str | int]) -> None:
        self.nodes.append(self.onnx.helper.make_node("Identity", [value], [name], name=name))
        kind = self.onnx.TensorProto.FLOAT
        self.outputs.append(self.onnx.helper.make_tensor_value_info(name, kind, shape))

    def proto(self):
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, "g2lstm", self.inputs, self.outputs, self.constants)
        model = helper.make_model(
            graph,
            producer_name="g2lstm",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        self.onnx.checker.check_model(model, full_check=True)
        return model


def _layer(graph: _Graph, lstm: nn.LSTM) -> None:
    directions = 2 if lstm.bidirectional else 1
    order = ["batch", "steps"] if lstm.batch_first else ["steps", "batch"]
    state = [lstm.num_layers * directions, "batch", lstm.hidden_size]
    x = graph.input("input", [*order, lstm.input_size])
    h, c = graph.input("h_0", state), graph.input("c_0", state)
    if lstm.batch_first:
        x = graph.add("Transpose", x, perm=[1, 0, 2])
    x, h, c = _lstm(graph, lstm, x, h, c)
    if lstm.batch_first:
        x = graph.add("Transpose", x, perm=[1, 0, 2])
    graph.output("output", x, [*order, directions * lstm.hidden_size])
    graph.output("h_n", h, state)
    graph.output("c_n", c, state)


def _language_model(graph: _Graph, model: LanguageModel) -> None:
    tokens = graph.input("tokens", ["steps", "batch"], integers=True)
    embedding = model.embedding.weight
    # Tied, the matrix is in the file once: [E, V], as the last product needs it.
    weight = graph.constant(embedding.T if model.decoder is None else model.decoder.weight.T)
    if model.decoder is None:
        x = graph.add("Gather", weight, tokens, axis=1)
        x = graph.add("Transpose", x, perm=[1, 2, 0])
    else:
        x = graph.add("Gather", graph.constant(embedding), tokens, axis=0)
    states = []
    for index, lstm in enumerate(model.layers):
        shape = [1, "batch", lstm.hidden_size]
        names = [f"{kind}_{{}}_l{index}" for kind in ("h", "c")]
        h, c = (graph.input(name.format(0), shape) for name in names)
        x, h, c = _lstm(graph, lstm, x, h, c)
        states += [(names[0].format("n"), h, shape), (names[1].format("n"), c, shape)]
    logits = graph.add("MatMul", x, weight)
    logits = graph.add("Add", logits, graph.constant(model.decoder_bias))
    size = len(model.decoder_bias)
    if model.cutoff:
        sizes = graph.constant([model.cutoff, size - model.cutoff])
        head, tail = graph.add("Split", logits, sizes, axis=2, count=2)
        others = graph.add("MatMul", x, graph.constant(model.tail_weight.T))
        others = graph.add("Add", others, graph.constant(model.tail_bias))
        head = graph.add("LogSoftmax", graph.add("Concat", head, others, axis=2), axis=2)
        head, others = graph.add("Split", head, graph.constant([model.cutoff, 1]), axis=2, count=2)
        tail = graph.add("Add", graph.add("LogSoftmax", tail, axis=2), others)
        result = graph.add("Concat", head, tail, axis=2)
    else:
        result = graph.add("LogSoftmax", logits, axis=2)
    graph.output("log_probabilities", result, ["steps", "batch", size])
    for name, value, shape in states:
        graph.output(name, value, shape)


def _lstm(graph: _Graph, lstm: nn.LSTM, x: str, h: str, c: str) -> tuple[str, str, str]:
    """All layers of an LSTM over x [T, B, D] from states [L * R, B, H]; names of the results."""
    if lstm.proj_size > 0:
        raise ExportError(f"proj_size={lstm.proj_size} is not supported, only 0")
    check_own_weights(lstm)
    if gates_of(lstm, training=False)[1] or getattr(lstm, "hard", ""):
        raise ExportError("ONNX's LSTM has no hard gates: set evaluation_gate to another mode")
    directions = 2 if lstm.bidirectional else 1
    if lstm.num_layers == 1:
        states = [(h, c)]
    else:
        sizes = graph.constant([directions] * lstm.num_layers)
        split = [graph.add("Split", s, sizes, axis=0, count=lstm.num_layers) for s in (h, c)]
        states = list(zip(*split, strict=True))
    results = []
    for layer, (h, c) in enumerate(states):
        suffixes = [f"l{layer}{end}" for end in ("", "_reverse")[:directions]]
        parts = [_parts(lstm, suffix) for suffix in suffixes]
        weight_ih, weight_hh, bias = (torch.stack(values) for values in zip(*parts, strict=True))
        if _keeps_factors(lstm):
            right = torch.cat([getattr(lstm, f"weight_ih_{suffix}") for suffix in suffixes])
            x = graph.add("MatMul", x, graph.constant(right.T))
        y, h, c = graph.add(
            "LSTM",
            x, *map(graph.constant, (weight_ih, weight_hh, bias)), "", h, c,
            count=3,
            hidden_size=lstm.hidden_size,
            direction="bidirectional" if directions == 2 else "forward",
        )  # fmt: skip
        # [T, R, B, H] to [T, B, R * H]
        y = graph.add("Transpose", y, perm=[0, 2, 1, 3])
        x = graph.add("Reshape", y, graph.constant([0, 0, directions * lstm.hidden_size]))
        results.append((h, c))
    if lstm.num_layers == 1:
        return x, h, c
    h, c = (graph.add("Concat", *part, axis=0) for part in zip(*results, strict=True))
    return x, h, c


def _keeps_factors(lstm: nn.LSTM) -> bool:
    """Whether the input's matrices are left factors, of what their right factors have made."""
    return isinstance(lstm, LowRankLSTM) and lstm.gates == "all" and "input" in lstm.matrices


def _parts(lstm: nn.LSTM, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
    """weight_ih [4H, D], weight_hh [4H, H] and bias [8H] of a layer and direction, as ONNX's."""
    hidden = lstm.hidden_size
    if isinstance(lstm, LowRankLSTM):
        weight_ih, weight_hh = (lstm.dense_weight(kind, suffix) for kind in ("ih", "hh"))
        if _keeps_factors(lstm):
            weight_ih = getattr(lstm, f"left_ih_{suffix}")[0]
            if lstm.bidirectional:  # each direction has its own right factors, side by side in x
                none = torch.zeros_like(weight_ih)
                sides = [none, weight_ih] if suffix.endswith("_reverse") else [weight_ih, none]
                weight_ih = torch.cat(sides, dim=1)
        zeros = weight_hh.new_zeros(4 * hidden)
        biases = [getattr(lstm, f"bias_{suffix}") if lstm.bias else zeros, zeros]
    else:
        weight_ih, weight_hh = (getattr(lstm, f"weight_{kind}_{suffix}") for kind in ("ih", "hh"))
        zeros = weight_hh.new_zeros(4 * hidden)
        names = [f"bias_ih_{suffix}", f"bias_hh_{suffix}"]
        biases = [getattr(lstm, name) if lstm.bias else zeros for name in names]
    scale = torch.ones(4, device=weight_hh.device, dtype=weight_hh.dtype)
    for index, temperature in enumerate(_temperatures(lstm)):
        scale[index] /= temperature
    arranged = []
    for value in (weight_ih, weight_hh, *biases):
        value = value.detach()
        blocks = value.view(4, hidden, -1) * scale[:, None, None]
        arranged.append(blocks[list(GATES)].reshape(value.shape))
    return arranged[0], arranged[1], torch.cat(arranged[2:])


def _temperatures(lstm: nn.LSTM) -> tuple[float, float, float, float]:
    """What divides the pre-activations of i, f, g and o in evaluation mode."""
    temperature, _ = gates_of(lstm, training=False)
    return temperature, temperature, 1.0, temperature if has_binary_output(lstm) else 1.0


def _write_int8(content, path: Path) -> None:
    try:
        from onnxruntime.quantization import quantize_dynamic
    except ImportError as error:
        raise ExportError(f"{error}: install g2lstm[onnx] to export in int8") from error
    advice = logging.getLogger()  # which its functions give to the root logger
    level = advice.level
    advice.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder) / "int8.onnx"
            quantize_dynamic(content, written)
            path.write_bytes(written.read_bytes())
    finally:
        advice.setLevel(level)
