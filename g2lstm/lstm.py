"""G2LSTM: `torch.nn.LSTM` whose input and forget gates can be Gumbel or sharpened gates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from g2lstm.gate_modes import (
    check_settings,
    draw_noise,
    gates_of,
    has_binary_output,
    note_gate,
    warn_of_another_gate,
)
from g2lstm.gates import DEFAULT_TEMPERATURES, NOISE_EPS
from g2lstm.layer_inputs import check_call
from g2lstm.products import emulates_bfloat16
from g2lstm.recurrence import fused_recurrence, reference_recurrence
from g2lstm.steps import is_single_step, run_single_step
from g2lstm.transforms import autocast_dtype, is_transformed, one_call

# Called with layer, reverse, gates [T, B, 2H] in time order, batch_sizes (None if not packed).
GateHook = Callable[[int, bool, Tensor, list[int] | None], None]


class BackendError(RuntimeError):
    """The backend asked for cannot serve the gate, mode or input at hand."""


class G2LSTM(nn.LSTM):
    """LSTM with a choice of input and forget gate; otherwise `torch.nn.LSTM`.

    Constructor, inputs, outputs, `PackedSequence` handling, initialisation, parameter names and
    gate order (i, f, g, o) are those of `torch.nn.LSTM`, so state_dicts load both ways. A G2LSTM
    warns of weights of another gate. A `torch.nn.LSTM` cannot: with weights of sharpened gates it
    computes something else, without a word. (No projections: ``proj_size`` is not offered.)

    Args:
        input_size: number of features of the input.
        hidden_size: number of features of the hidden state.
        num_layers: number of stacked layers.
        bias: whether there are biases.
        batch_first: input and output are [B, T, ...] instead of [T, B, ...].
        dropout: dropout probability on the output of every layer but the last, in training.
        bidirectional: also run from the end of the sequence to its start.
        gate: "sigmoid" (the paper's baseline LSTM), "sharpened" (``sigmoid(a / temperature)``, in
            training and evaluation) or "gumbel" (G2-LSTM: ``sigmoid((a + noise) / temperature)`` in
            training, ``sigmoid(a)`` in evaluation, as in the authors' code).
        temperature: tau > 0 of the sharpened and Gumbel gates (default, as in the paper: 0.2 and
            0.9); this and all settings below may be set anew between calls, which check them.
        noise_probability: probability that a gate receives noise (authors' code: 0.2). The
            temperature divides gates without noise too, also if it is 0 (there the authors' code
            leaves the division out).
        noise_eps: eps inside the logarithms of the noise, see `gates.logistic_noise`.
        noise_distribution: "logistic", which makes the Gumbel-sigmoid, or "gaussian", a control
            with the same variance and mask, see `gates.gaussian_noise`.
        noise_gates: which gates are Gumbel gates: "input-forget" (the paper's) or
            "input-forget-output" (section 3.2 of the paper: "a performance drop").
        evaluation_gate: in evaluation only, settable: "plain" (as said under ``gate``; the authors'
            code), "temperature" (Gumbel gates keep it: ``sigmoid(a / temperature)``) or "hard" (of
            every kind of gate: 1 where ``a >= 0``, else 0, see `gates.hard_gate`; slower).
        weight_dropout: dropout probability on the recurrent weights ``weight_hh_l*``, in training,
            one mask a forward pass (AWD-LSTM's DropConnect).
        backend: "reference" (readable loop), "fused" (hand-written forward and backward pass),
            "native" (`torch.nn.LSTM`'s kernel; sigmoid and, in evaluation, Gumbel gates, without
            weight dropout in training) or "auto" ("native" where it can serve, but not
            where it is slower, in training under autocast or, on a CPU, with packed input, nor
            where it fails, under autocast on a CPU without bfloat16; else "fused").
        device, dtype: of the parameters.

    Under autocast the reference and fused backends use half-precision products, keep the states in
    float32 and return float32; the native one does as `torch.nn.LSTM` does.

    `torch.func`, forward-mode differentiation, `torch.export` (also of a number of sequences left
    open) and `torch.jit.trace` run or record the readable loop where "native" does not serve;
    `torch.compile` leaves the layer as it is, `torch.fx` makes it one node, as of `torch.nn.LSTM`.

    Raises:
        ValueError: an argument out of its range, named with its value; at a call also a setting.
        BackendError: at a call, when ``backend`` cannot serve it; from `torch.jit.script`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        gate: str = "gumbel",
        temperature: float | None = None,
        noise_probability: float = 0.2,
        noise_eps: float = NOISE_EPS,
        noise_distribution: str = "logistic",
        noise_gates: str = "input-forget",
        evaluation_gate: str = "plain",
        weight_dropout: float = 0.0,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
            device=device, dtype=dtype,
        )  # fmt: skip
        self.gate, self.noise_gates, self.evaluation_gate = gate, noise_gates, evaluation_gate
        default = DEFAULT_TEMPERATURES.get(gate) if isinstance(gate, str) else None
        self.temperature = default if temperature is None else temperature
        self.noise_probability, self.noise_eps = noise_probability, noise_eps
        self.noise_distribution = noise_distribution
        self.weight_dropout, self.backend = weight_dropout, backend
        check_settings(self)

    def extra_repr(self) -> str:
        text = f"{super().extra_repr()}, gate={self.gate}"
        if self.gate != "sigmoid":
            text += f", temperature={self.temperature}"
        if self.gate == "gumbel":
            text += f", noise_probability={self.noise_probability}"
            if self.noise_eps != NOISE_EPS:
                text += f", noise_eps={self.noise_eps}"
            if self.noise_distribution != "logistic":
                text += f", noise_distribution={self.noise_distribution}"
            if self.noise_gates != "input-forget":
                text += f", noise_gates={self.noise_gates}"
        if self.evaluation_gate != "plain":
            text += f", evaluation_gate={self.evaluation_gate}"
        if self.weight_dropout:
            text += f", weight_dropout={self.weight_dropout}"
        return f"{text}, backend={self.backend}"

    def __prepare_scriptable__(self) -> None:
        raise BackendError(
            "torch.jit.script cannot compile a G2LSTM: use torch.jit.trace or torch.export, or, "
            "for gate='sigmoid', a torch.nn.LSTM that loads the layer's state_dict"
        )

    @one_call
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        """Run the LSTM; arguments and results as `torch.nn.LSTM`'s.

        Args:
            input: [T, B, D], with ``batch_first`` [B, T, D], without batch [T, D], or packed.
            hx: initial (h, c), each [num_layers * directions, B, H] (without batch
                [num_layers * directions, H]); default zeros.

        Returns:
            output [T, B, directions * H] (laid out as the input was), and the final (h, c).
        """
        if self.choose_backend(isinstance(input, PackedSequence)) == "native":
            check_call(self, input, hx)
            if is_single_step(self, input, hx):
                return run_single_step(self, input, hx)
            return super().forward(input, hx)
        return run_layers(self, input, hx)

    def choose_backend(self, packed: bool = False) -> str:
        """Backend of the next call in the present mode; raises BackendError if it cannot serve."""
        undivided = gates_of(self, self.training) == (1.0, False)  # checks all settings, too
        plain = self.gate == "sigmoid" or (self.gate == "gumbel" and not self.training)
        native = plain and undivided and not (self.training and self.weight_dropout > 0)
        if self.backend == "native" and not native:
            mode = "training" if self.training else "evaluation"
            raise BackendError(
                f"backend='native' cannot serve gate={self.gate!r} with weight_dropout="
                f"{self.weight_dropout} and evaluation_gate={self.evaluation_gate!r} in {mode} "
                "mode; use backend='fused' or 'auto'"
            )
        if self.backend != "auto":
            return self.backend
        device = self.weight_hh_l0.device
        autocast = autocast_dtype(device) is not None
        if is_transformed() or (autocast and emulates_bfloat16(device)):
            return "fused"
        # Under autocast the kernel of torch.nn.LSTM would keep the states in half precision; for
        # packed input on a CPU it is a loop over steps with autograd through each.
        avoided = autocast or (packed and device.type == "cpu")
        return "native" if native and not (self.training and avoided) else "fused"

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        note_gate(self, destination, prefix)

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *arguments) -> None:
        warn_of_another_gate(self, local_metadata, prefix)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *arguments)


@contextmanager
def set_mode(module: nn.Module, training: bool) -> Iterator[None]:
    """Training or evaluation mode within the context, the module's own mode after it."""
    own = module.training
    module.train(training)
    try:
        yield
    finally:
        module.train(own)


def run_layers(
    lstm: nn.LSTM,
    input: Tensor | PackedSequence,
    hx: tuple[Tensor, Tensor] | None = None,
    gate_hook: GateHook | None = None,
    run_direction: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] | None = None,
) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
    """Forward pass of a `G2LSTM` or `torch.nn.LSTM`, layer by layer through `recurrence`.

    Args:
        lstm: the module whose parameters, gate and mode are used.
        input, hx: as in `G2LSTM.forward`.
        gate_hook: called for each layer and direction with (layer, reverse, gate values
            [T, B, 2H] in the order of time, batch_sizes or None).
        run_direction: runs one layer and direction instead, with arguments (lstm, x, (h, c),
            layer, reverse, batch_sizes) and results (output, h, c, gates) as `recurrence` has them.

    Returns:
        As `G2LSTM.forward`.
    """
    if lstm.proj_size > 0:
        raise ValueError(f"LSTM: proj_size={lstm.proj_size} is not supported, only 0")
    check_call(lstm, input, hx)
    packed = input if isinstance(input, PackedSequence) else None
    if packed is not None:
        in_order = PackedSequence(packed.data, packed.batch_sizes)  # longest first
        x, lengths = pad_packed_sequence(in_order)  # [T, B, D]
        batch_sizes = packed.batch_sizes.tolist()
        if hx is not None:
            hx = lstm.permute_hidden(hx, packed.sorted_indices)
    else:
        batch_sizes = None
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(0 if lstm.batch_first else 1)
        x = x.transpose(0, 1) if lstm.batch_first else x
        if hx is not None and not batched:
            hx = tuple(state.unsqueeze(1) for state in hx)
    directions = 2 if lstm.bidirectional else 1
    if hx is None:
        shape = (lstm.num_layers * directions, x.shape[1], lstm.hidden_size)
        weight = next(lstm.parameters())
        hx = (weight.new_zeros(shape), weight.new_zeros(shape))

    h_n, c_n = [], []
    for layer in range(lstm.num_layers):
        outputs = []
        for direction in range(directions):
            output, h, c, gates = (run_direction or _run_direction)(
                lstm, x, hx, layer, reverse=direction == 1, batch_sizes=batch_sizes
            )
            if gate_hook is not None:
                gate_hook(layer, direction == 1, gates, batch_sizes)
            outputs.append(output)
            h_n.append(h)
            c_n.append(c)
        x = torch.cat(outputs, dim=2) if directions == 2 else outputs[0]
        if lstm.dropout > 0 and lstm.training and layer < lstm.num_layers - 1:
            if packed is None:
                x = dropout(x, lstm.dropout)
            else:  # on the packed data, as in torch.nn.LSTM: the same seed gives the same mask
                data = dropout(pack_padded_sequence(x, lengths).data, lstm.dropout)
                x, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes))
    state = (torch.stack(h_n), torch.stack(c_n))

    if packed is not None:
        data = pack_padded_sequence(x, lengths).data
        output = PackedSequence(
            data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices
        )
        return output, lstm.permute_hidden(state, packed.unsorted_indices)
    x = x.transpose(0, 1) if lstm.batch_first else x
    if not batched:
        x = x.squeeze(0 if lstm.batch_first else 1)
        state = tuple(part.squeeze(1) for part in state)
    return x, state


def _run_direction(
    lstm: nn.LSTM,
    x: Tensor,
    hx: tuple[Tensor, Tensor],
    layer: int,
    reverse: bool,
    batch_sizes: list[int] | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    suffix = f"_l{layer}" + ("_reverse" if reverse else "")
    weight_ih = getattr(lstm, "weight_ih" + suffix)
    weight_hh = getattr(lstm, "weight_hh" + suffix)
    biases = [getattr(lstm, f"bias_{kind}{suffix}") if lstm.bias else None for kind in ("ih", "hh")]
    temperature, hard = gates_of(lstm, lstm.training)  # checks all settings, too
    weight_dropout = getattr(lstm, "weight_dropout", 0.0)
    if weight_dropout and lstm.training:
        weight_hh = dropout(weight_hh, weight_dropout)
    noise = draw_noise(lstm, x.shape[0], x.shape[1], x.device)

    index = layer * (2 if lstm.bidirectional else 1) + reverse
    readable = getattr(lstm, "backend", "auto") == "reference"
    recurrence = reference_recurrence if readable else fused_recurrence
    x = reverse_time(x, batch_sizes) if reverse else x
    output, h, c, gates = recurrence(
        x, hx[0][index], hx[1][index], weight_ih, weight_hh, *biases,
        noise, temperature, batch_sizes, has_binary_output(lstm), hard,
    )  # fmt: skip
    if reverse:
        output, gates = reverse_time(output, batch_sizes), reverse_time(gates, batch_sizes)
    return output, h, c, gates


def reverse_time(x: Tensor, batch_sizes: list[int] | None) -> Tensor:
    """Reverse each sequence of x [T, B, ...] within its own length."""
    if batch_sizes is None:
        return x.flip(0)
    numbers = torch.arange(x.shape[1], device="cpu")
    lengths = (numbers[:, None] < torch.tensor(batch_sizes, device="cpu")).sum(1)  # [B]
    step = torch.arange(len(batch_sizes), device="cpu")[:, None]  # [T, 1]
    source = torch.where(step < lengths, lengths - 1 - step, step).to(x.device)  # [T, B]
    return x.gather(0, source[:, :, None].expand_as(x))
