"""G2LSTM against torch.nn.LSTM, and its gates against plain loops in float64."""

import copy
import functools
import io
import itertools
import math

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from g2lstm import G2LSTM, lstm
from g2lstm.gate_rates import scale_gates
from g2lstm.gates import NOISE_GATES, gaussian_noise, logistic_noise
from g2lstm.inspection import record_gates
from g2lstm.lstm import BackendError, run_layers

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
INPUT, HIDDEN, STEPS, BATCH = 3, 4, 5, 6
LENGTHS = {"sorted": [5, 4, 4, 2, 2, 1], "unsorted": [2, 5, 1, 4, 2, 4]}

# Settings under which the layer must equal torch.nn.LSTM: (gate, training, backends).
PLAIN = [
    ("sigmoid", True, ("auto", "reference", "fused", "native")),
    ("sigmoid", False, ("auto", "reference", "fused", "native")),
    ("gumbel", False, ("auto", "reference", "fused", "native")),
]


def pair(device="cpu", **arguments):
    """A float64 torch.nn.LSTM, and a G2LSTM with the same weights."""
    shared = {k: v for k, v in arguments.items() if k not in ("gate", "backend", "weight_dropout")}
    lstm = nn.LSTM(INPUT, HIDDEN, **shared, dtype=torch.float64, device=device)
    layer = G2LSTM(INPUT, HIDDEN, **arguments, dtype=torch.float64, device=device)
    layer.load_state_dict(lstm.state_dict())
    return lstm, layer


def make_input(kind, batch_first, device="cpu"):
    generator = torch.Generator().manual_seed(3)
    shape = (BATCH, STEPS, INPUT) if batch_first else (STEPS, BATCH, INPUT)
    shape = (STEPS, INPUT) if kind == "unbatched" else shape
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x.to(device).requires_grad_()


def make_state(module, kind, device="cpu"):
    generator = torch.Generator().manual_seed(4)
    shape = (module.num_layers * (2 if module.bidirectional else 1), BATCH, HIDDEN)
    shape = (shape[0], HIDDEN) if kind == "unbatched" else shape
    draw = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return tuple(state.to(device).requires_grad_() for state in draw)


def call(module, x, kind, hx):
    """Output (data and all index tensors of a packed one) and final state."""
    if kind not in LENGTHS:
        output, state = module(x, hx)
        return [output, *state]
    packed = pack_padded_sequence(
        x, LENGTHS[kind], batch_first=module.batch_first, enforce_sorted=kind == "sorted"
    )
    output, state = module(packed, hx)
    indices = [i for i in (output.sorted_indices, output.unsorted_indices) if i is not None]
    return [output.data, *state, output.batch_sizes, *indices]


def everything(module, x, kind, hx):
    results = call(module, x, kind, hx)
    leaves = [x, *(hx or ()), *module.parameters()]
    loss = sum((result * result).sum() + result.sum() for result in results[:3])
    return results, torch.autograd.grad(loss, leaves)


def assert_same(one, other, tolerance=1e-10):
    for values in zip(one, other, strict=True):
        for a, b in zip(*values, strict=True):
            assert a.dtype == b.dtype
            assert a.is_floating_point() or torch.equal(a, b)
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["batched", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_equals_nn_lstm(num_layers, bidirectional, batch_first, kind, device):
    for bias, given in itertools.product((True, False), (True, False)):
        shape = {"num_layers": num_layers, "bidirectional": bidirectional}
        shape |= {"batch_first": batch_first, "bias": bias}
        lstm, _ = pair(device, **shape)
        x = make_input(kind, batch_first, device)
        hx = make_state(lstm, kind, device) if given else None
        expected = everything(lstm, x, kind, hx)
        for gate, training, backends in PLAIN:
            for backend in backends:
                layer = G2LSTM(
                    INPUT, HIDDEN, **shape, gate=gate, backend=backend, dtype=x.dtype, device=device
                )
                layer.load_state_dict(lstm.state_dict())
                layer.train(training)
                if device == "cuda" and not training and backend in ("native", "auto"):
                    # cuDNN has no backward pass in evaluation mode.
                    assert_same([call(layer, x, kind, hx)], expected[:1])
                else:
                    assert_same(everything(layer, x, kind, hx), expected)


@pytest.mark.parametrize("kind", ["batched", "sorted"])
@pytest.mark.parametrize("backend", ["auto", "reference", "fused", "native"])
def test_dropout_between_layers_is_that_of_nn_lstm(backend, kind):
    """On CPU even the masks are the same, given the same seed."""
    lstm, layer = pair(num_layers=3, dropout=0.5, gate="sigmoid", backend=backend)
    x = make_input(kind, False)
    torch.manual_seed(0)
    expected = everything(lstm, x, kind, None)
    torch.manual_seed(0)
    assert_same(everything(layer, x, kind, None), expected)
    assert_same([call(layer.eval(), x, kind, None)], [call(lstm.eval(), x, kind, None)])
    assert not torch.allclose(call(layer, x, kind, None)[0], expected[0][0])


@pytest.mark.parametrize("backend", ["auto", "native", "fused", "reference"])
@pytest.mark.parametrize(("num_layers", "bias"), [(1, True), (2, True), (2, False)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_single_steps_equal_the_whole_sequence(batch_first, num_layers, bias, backend):
    lstm, layer = pair(num_layers=num_layers, bias=bias, batch_first=batch_first, backend=backend)
    lstm.eval(), layer.eval()
    x = make_input("batched", batch_first)
    state = initial = make_state(lstm, "batched")
    outputs = []
    for x_t in x.split(1, dim=1 if batch_first else 0):
        output, state = layer(x_t, state)
        outputs.append(output)
    output = torch.cat(outputs, dim=1 if batch_first else 0)
    leaves = [x, *initial, *layer.parameters()]
    gradients = torch.autograd.grad((output * output).sum(), leaves)
    expected, expected_state = lstm(x, initial)
    leaves = [x, *initial, *lstm.parameters()]
    expected_gradients = torch.autograd.grad((expected * expected).sum(), leaves)
    assert_same(([output, *state], gradients), ([expected, *expected_state], expected_gradients))


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}]
)
def test_state_dicts_load_both_ways(arguments):
    lstm, layer = nn.LSTM(INPUT, HIDDEN, **arguments), G2LSTM(INPUT, HIDDEN, **arguments)
    assert list(lstm.state_dict()) == list(layer.state_dict())
    assert [n for n, _ in lstm.named_parameters()] == [n for n, _ in layer.named_parameters()]
    x = torch.randn(STEPS, BATCH, INPUT)
    assert not torch.allclose(layer.eval()(x)[0], lstm(x)[0])
    layer.load_state_dict(lstm.state_dict(), strict=True)
    torch.testing.assert_close(layer(x)[0], lstm(x)[0])
    fresh = nn.LSTM(INPUT, HIDDEN, **arguments)
    fresh.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(fresh(x)[0], lstm(x)[0])


def test_initialisation_is_that_of_nn_lstm():
    torch.manual_seed(0)
    lstm = nn.LSTM(INPUT, HIDDEN, 2, bidirectional=True)
    torch.manual_seed(0)
    layer = G2LSTM(INPUT, HIDDEN, 2, bidirectional=True)
    for a, b in zip(lstm.parameters(), layer.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_deepcopy_pickle_and_state_dict_keep_the_layer(gate):
    layer = G2LSTM(INPUT, HIDDEN, 2, gate=gate, temperature=0.3, weight_dropout=0.2).eval()
    layer.temperature = 0.4
    x = torch.randn(STEPS, BATCH, INPUT)
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    for other in (copy.deepcopy(layer), loaded):
        assert repr(other) == repr(layer)
        for mode in (True, False):
            torch.manual_seed(1)
            expected = layer.train(mode)(x)[0]
            torch.manual_seed(1)
            assert torch.equal(other.train(mode)(x)[0], expected)
    with torch.no_grad():
        loaded.weight_hh_l0.zero_()
    assert layer.weight_hh_l0.any()


def test_module_can_be_moved_to_another_dtype():
    layer = G2LSTM(INPUT, HIDDEN).double()
    output, (h, c) = layer(torch.randn(STEPS, BATCH, INPUT).double())
    assert output.dtype == h.dtype == c.dtype == torch.float64
    layer.bfloat16()
    for mode in (True, False):
        output, (h, c) = layer.train(mode)(torch.randn(STEPS, BATCH, INPUT).bfloat16())
        assert output.dtype == h.dtype == c.dtype == torch.bfloat16


# --- weight dropout ------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
def test_weight_dropout_changes_the_output_in_training_only(backend, gate):
    """Against a layer without it whose recurrent weights went through the same dropout by hand."""
    arguments = {"gate": gate, "backend": backend, "noise_probability": 0.0}
    layer = G2LSTM(INPUT, 20, 2, weight_dropout=0.5, **arguments).double()
    plain = copy.deepcopy(layer)
    plain.weight_dropout = 0.0
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    x = make_input("batched", False)

    torch.manual_seed(0)
    dropped = layer(x)[0]
    torch.manual_seed(0)
    by_hand = copy.deepcopy(plain)
    with torch.no_grad():
        for weight in (by_hand.weight_hh_l0, by_hand.weight_hh_l1):
            weight.copy_(nn.functional.dropout(weight, 0.5))
            assert 0.3 < (weight == 0).double().mean() < 0.7
    torch.testing.assert_close(dropped, by_hand(x)[0], rtol=0, atol=1e-10)
    assert not torch.allclose(dropped, plain(x)[0])
    assert not torch.allclose(dropped, layer(x)[0])  # another mask each time

    dropped.pow(2).sum().backward()
    gradient = layer.weight_hh_l0.grad
    assert torch.equal(gradient == 0, by_hand.weight_hh_l0 == 0)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    assert isinstance(layer.weight_hh_l0, nn.Parameter)

    torch.testing.assert_close(layer.eval()(x)[0], plain.eval()(x)[0], rtol=0, atol=1e-10)


# --- gates ---------------------------------------------------------------------------------------


def sigmoid(a):
    return 1 / (1 + torch.exp(-a))


def loop(layer, x, temperature, noise=None, binary_output=False, sigmoid=sigmoid):
    """One layer in plain float64 arithmetic: a / tau for the input and forget gates."""
    h = c = torch.zeros(x.shape[1], HIDDEN, dtype=torch.float64)
    outputs = []
    for t, x_t in enumerate(x):
        a = nn.functional.linear(x_t, layer.weight_ih_l0, layer.bias_ih_l0)
        a = a + nn.functional.linear(h, layer.weight_hh_l0, layer.bias_hh_l0)
        i, f, g, o = a.split(HIDDEN, dim=1)
        if noise is not None:
            i, f = i + noise[t, :, :HIDDEN], f + noise[t, :, HIDDEN : 2 * HIDDEN]
            o = o + noise[t, :, 2 * HIDDEN :] if binary_output else o
        i, f = sigmoid(i / temperature), sigmoid(f / temperature)
        o = sigmoid(o / temperature) if binary_output else 1 / (1 + torch.exp(-o))
        c = f * c + i * torch.tanh(g)
        h = torch.tanh(c) * o
        outputs.append(h)
    return torch.stack(outputs), h, c


def compare_with_loop(layer, temperature, noise=None, seed=None, **modes):
    x = make_input("batched", False)
    leaves = [x, *layer.parameters()]
    expected = loop(layer, x, temperature, noise, **modes)
    if seed is not None:
        torch.manual_seed(seed)
    output, (h, c) = layer(x)
    gradients = torch.autograd.grad((output * output).sum() + c.sum(), leaves)
    loss = (expected[0] * expected[0]).sum() + expected[2].sum()
    assert_same(([output, h[0], c[0]], gradients), (expected, torch.autograd.grad(loss, leaves)))


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("temperature", [0.2, 0.9, 1.0])
def test_sharpened_gates_divide_by_the_temperature_in_every_mode(temperature, training, backend):
    layer = G2LSTM(INPUT, HIDDEN, gate="sharpened", temperature=0.5, backend=backend).double()
    layer.temperature = temperature
    compare_with_loop(layer.train(training), temperature)


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_gumbel_gates_in_training(probability, backend):
    """All noise of the sequence comes in one draw of the global generator."""
    layer = G2LSTM(INPUT, HIDDEN, temperature=0.7, noise_probability=probability, backend=backend)
    torch.manual_seed(5)
    noise = logistic_noise((STEPS, BATCH, 2 * HIDDEN), probability).double()
    compare_with_loop(layer.double(), 0.7, noise, seed=5)


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
def test_gaussian_noise_takes_the_place_of_the_logistic(backend):
    layer = G2LSTM(
        INPUT, HIDDEN, temperature=0.7, noise_probability=0.5, noise_distribution="gaussian",
        backend=backend,
    )  # fmt: skip
    torch.manual_seed(5)
    noise = gaussian_noise((STEPS, BATCH, 2 * HIDDEN), 0.5).double()
    compare_with_loop(layer.double(), 0.7, noise, seed=5)


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
@pytest.mark.parametrize("probability", [0.0, 0.5])
def test_the_output_gate_may_be_a_gumbel_gate_too(probability, backend):
    """Noise of the three gates in one draw; without the option the output gate stays as it is."""
    layer = G2LSTM(
        INPUT, HIDDEN, temperature=0.7, noise_probability=probability, noise_gates=NOISE_GATES[1],
        backend=backend,
    )  # fmt: skip
    torch.manual_seed(5)
    noise = logistic_noise((STEPS, BATCH, 3 * HIDDEN), probability).double()
    compare_with_loop(layer.double(), 0.7, noise, seed=5, binary_output=True)
    x = make_input("batched", False)
    assert_same([layer.eval()(x)[:1]], [pair_of(layer)(x)[:1]])


def pair_of(layer):
    """A torch.nn.LSTM with the weights of the layer."""
    lstm = nn.LSTM(INPUT, HIDDEN, layer.num_layers, bidirectional=layer.bidirectional).double()
    lstm.load_state_dict(layer.state_dict())
    return lstm


@pytest.mark.parametrize("kind", ["batched", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
def test_gumbel_gates_that_keep_their_temperature_are_sharpened_in_evaluation(backend, kind):
    shape = {"num_layers": 2, "bidirectional": True, "temperature": 0.3, "backend": backend}
    layer = G2LSTM(INPUT, HIDDEN, **shape, evaluation_gate="temperature").double().eval()
    sharpened = G2LSTM(INPUT, HIDDEN, **shape, gate="sharpened").double().eval()
    sharpened.load_state_dict(layer.state_dict())
    x = make_input(kind, False)
    assert_same(everything(layer, x, kind, None), everything(sharpened, x, kind, None))
    layer.evaluation_gate = "plain"
    assert_same([call(layer, x, kind, None)], [call(pair_of(layer), x, kind, None)])


def test_the_output_gate_keeps_its_temperature_if_it_is_a_gumbel_gate():
    layer = G2LSTM(INPUT, HIDDEN, temperature=0.3, noise_gates=NOISE_GATES[1]).double().eval()
    layer.evaluation_gate = "temperature"
    compare_with_loop(layer, 0.3, binary_output=True)
    layer.evaluation_gate = "hard"
    compare_with_loop(layer, 1.0, binary_output=True, sigmoid=lambda a: (a >= 0).double())


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_hard_gates_of_every_kind_in_evaluation(gate, backend):
    layer = G2LSTM(INPUT, HIDDEN, gate=gate, temperature=0.4, backend=backend).double().eval()
    with torch.no_grad():
        layer.bias_ih_l0[0] = -layer.bias_hh_l0[0]
        layer.weight_ih_l0[0] = layer.weight_hh_l0[0] = 0.0  # a is 0: an open gate
    plain = layer(make_input("batched", False))[0]
    layer.evaluation_gate = "hard"
    compare_with_loop(layer, 1.0, sigmoid=lambda a: (a >= 0).double())
    with record_gates(layer) as records, torch.no_grad():
        output = layer(make_input("batched", False))[0]
    assert set(records[0].input_gate.unique().tolist()) == {0.0, 1.0}
    assert set(records[0].forget_gate.unique().tolist()) == {0.0, 1.0}
    assert (records[0].input_gate[:, :, 0] == 1).all()
    assert not torch.allclose(output, plain)
    # And through time and directions as ever: each sequence of a packed batch as if alone.
    deep = G2LSTM(INPUT, HIDDEN, 2, bidirectional=True, gate=gate, evaluation_gate="hard").eval()
    x = torch.randn(STEPS, BATCH, INPUT, generator=torch.Generator().manual_seed(0))
    packed = pack_padded_sequence(x, LENGTHS["unsorted"], enforce_sorted=False)
    found, _ = pad_packed_sequence(deep(packed)[0])
    for b, length in enumerate(LENGTHS["unsorted"]):
        torch.testing.assert_close(found[:length, b], deep(x[:length, b])[0])


@pytest.mark.parametrize("evaluation_gate", ["temperature", "hard"])
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_gates_of_evaluation_change_nothing_in_training(gate, evaluation_gate):
    layer, x = G2LSTM(INPUT, HIDDEN, 2, gate=gate, backend="fused").double(), make_input("", False)
    torch.manual_seed(3)
    expected = everything(layer, x, "", None)
    layer.evaluation_gate = evaluation_gate
    torch.manual_seed(3)
    assert_same(everything(layer, x, "", None), expected, 0)


def test_an_lstm_with_rescaled_weights_is_the_sharpened_sigmoid():
    """W' = W / tau in the rows of the input and forget gates, biases too (paper, section 3.2)."""
    sharpened = G2LSTM(INPUT, HIDDEN, 2, gate="sharpened", temperature=0.2).double()
    lstm, x = pair_of(sharpened), make_input("batched", False)
    assert not torch.allclose(sharpened(x)[0], lstm(x)[0])
    scale_gates(lstm, 1 / 0.2)
    assert_same([sharpened(x)[:1]], [lstm(x)[:1]])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["batched", "unbatched", "sorted", "unsorted"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_backends_sample_the_same_noise(bidirectional, kind, device):
    """Seed, run one backend; seed again, run the other: the same results and gradients."""
    found = []
    for backend in ("fused", "reference", "auto"):
        torch.manual_seed(0)
        layer = G2LSTM(
            INPUT, HIDDEN, 2, dropout=0.3, bidirectional=bidirectional, noise_probability=0.5,
            weight_dropout=0.4, backend=backend, device=device,
        ).double()  # fmt: skip
        x = make_input(kind, False, device)
        torch.manual_seed(1)
        found.append(everything(layer, x, kind, None))
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


def test_gumbel_noise_is_drawn_anew_at_every_call_step_sequence_and_layer():
    layer = G2LSTM(INPUT, HIDDEN, 2, noise_probability=1.0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.fill_(0.1)
    x = torch.ones(STEPS, BATCH, INPUT)
    one, other = layer(x)[0], layer(x)[0]
    assert (one != other).all()
    assert len(one.detach().flatten().unique()) > 0.9 * one.numel()
    assert torch.equal(layer.eval()(x)[0], layer(x)[0])


def test_gumbel_gates_have_the_share_p_of_noise_and_open_with_probability_sigmoid_a():
    """With weights of 0 every gate sees a = b, so a gate without noise has one known value."""
    steps, batch, a, tau = 50, 40, 0.8, 0.5
    layer = G2LSTM(INPUT, 20, temperature=tau, noise_probability=0.2, backend="fused").double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.bias_ih_l0.fill_(a)
    recorded = []
    torch.manual_seed(0)
    x = torch.zeros(steps, batch, INPUT).double()
    run_layers(layer, x, gate_hook=lambda *record: recorded.append(record[2]))
    (gates,) = recorded
    assert gates.shape == (steps, batch, 40)
    noisy = (gates - 1 / (1 + math.exp(-a / tau))).abs() > 1e-12
    count = gates.numel()
    assert abs(noisy.double().mean() - 0.2) < 5 * (0.2 * 0.8 / count) ** 0.5
    # eps = 1e-3 inside the logarithms moves the probability by less than 1e-3.
    share = (gates[noisy] > 0.5).double().mean()
    assert abs(share - 1 / (1 + math.exp(-a))) < 1e-3 + 5 * 0.5 / (0.2 * count) ** 0.5


def test_temperature_may_be_set_and_is_checked_at_the_next_call():
    layer = G2LSTM(INPUT, HIDDEN)
    layer.temperature = -1.0
    with pytest.raises(ValueError, match=r"temperature.*-1\.0"):
        layer(torch.zeros(2, 2, INPUT))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_the_gate_in_evaluation_may_be_set_and_is_checked_at_the_next_call(backend):
    layer = G2LSTM(INPUT, HIDDEN, backend=backend).eval()
    layer.evaluation_gate = "soft"
    with pytest.raises(ValueError, match=r"evaluation_gate must be one of plain.*got 'soft'"):
        layer(torch.zeros(2, 2, INPUT))


@pytest.mark.parametrize("kind", ["batched", "unbatched", "unsorted"])
def test_another_recurrence_may_run_each_layer_and_direction(kind):
    """One by a loop of nn.LSTMCell, over each sequence alone, inside the layouts of run_layers."""
    lstm, _ = pair(num_layers=2, bidirectional=True)
    calls = []

    def by_cells(lstm, x, hx, layer, reverse, batch_sizes):
        suffix = f"_l{layer}" + "_reverse" * reverse
        cell = nn.LSTMCell(x.shape[2], HIDDEN, dtype=x.dtype)
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        cell.load_state_dict({name: getattr(lstm, name + suffix) for name in names})
        h, c = (part[2 * layer + reverse].clone() for part in hx)
        output = x.new_zeros(*x.shape[:2], HIDDEN)
        for b in range(x.shape[1]):
            length = len(x) if batch_sizes is None else sum(size > b for size in batch_sizes)
            state = h[b], c[b]
            for t in reversed(range(length)) if reverse else range(length):
                state = cell(x[t, b], state)
                output[t, b] = state[0]
            h[b], c[b] = state
        calls.append((layer, reverse))
        return output, h, c, None

    x, hx = make_input(kind, False).detach(), make_state(lstm, kind)
    with torch.no_grad():
        expected = call(lstm, x, kind, hx)
        lstm.forward = functools.partial(run_layers, lstm, run_direction=by_cells)
        assert_same([call(lstm, x, kind, hx)], [expected])
    assert calls == [(0, False), (0, True), (1, False), (1, True)]


# --- backends ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "training"),
    [
        ({"gate": "gumbel"}, True),
        ({"gate": "gumbel", "noise_probability": 0.0}, True),
        ({"gate": "sharpened"}, True),
        ({"gate": "sharpened"}, False),
        ({"gate": "sigmoid", "weight_dropout": 0.5}, True),
        ({"gate": "sigmoid", "evaluation_gate": "hard"}, False),
        ({"gate": "gumbel", "evaluation_gate": "temperature"}, False),
    ],
)
def test_native_backend_refuses_what_it_cannot_serve(arguments, training):
    layer = G2LSTM(INPUT, HIDDEN, **arguments, backend="native").train(training)
    with pytest.raises(BackendError, match=r"native.*use backend='fused'"):
        layer(torch.zeros(2, 2, INPUT))


def test_auto_takes_the_fastest_backend_that_is_right(monkeypatch):
    calls = []
    native = nn.LSTM.forward

    def counted(*arguments):
        calls.append(1)
        return native(*arguments)

    monkeypatch.setattr(nn.LSTM, "forward", counted)

    def uses_native(training, packed=False, **arguments):
        calls.clear()
        x = torch.zeros(2, 2, INPUT)
        x = pack_padded_sequence(x, [2, 1]) if packed else x
        G2LSTM(INPUT, HIDDEN, **arguments).train(training)(x)
        return bool(calls)

    assert uses_native(True, gate="sigmoid")
    assert uses_native(False, gate="sigmoid", weight_dropout=0.5)
    assert uses_native(False, gate="gumbel")
    assert not uses_native(True, gate="gumbel")
    assert not uses_native(True, gate="sigmoid", weight_dropout=0.5)
    assert not uses_native(False, gate="sharpened")
    assert uses_native(True, gate="sigmoid", evaluation_gate="hard")
    assert not uses_native(False, gate="sigmoid", evaluation_gate="hard")
    assert not uses_native(False, gate="gumbel", evaluation_gate="temperature")
    assert not uses_native(True, packed=True, gate="sigmoid")
    assert uses_native(False, packed=True, gate="sigmoid")
    with torch.autocast("cpu", torch.bfloat16):
        assert not uses_native(True, gate="sigmoid")


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("device", DEVICES)
def test_trains_in_bfloat16_autocast(backend, device):
    """Learns to output the mean of its past inputs; the loss must fall well below the start."""
    torch.manual_seed(0)
    layer = G2LSTM(INPUT, 16, 2, batch_first=True, backend=backend, device=device)
    head = nn.Linear(16, INPUT, device=device)
    optimiser = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    x = torch.randn(16, 8, INPUT, device=device)
    target = x.cumsum(1) / torch.arange(1, 9, device=device)[None, :, None]
    losses = []
    for _ in range(60):
        with torch.autocast(device, torch.bfloat16):
            output, _ = layer(x)
            assert output.dtype == torch.float32
            loss = (head(output).float() - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("emulated", "backend"), [(True, "fused"), (False, "native")])
def test_where_bfloat16_is_emulated_torchs_kernel_is_left_alone(monkeypatch, emulated, backend):
    monkeypatch.setattr(lstm, "emulates_bfloat16", lambda device: emulated)
    layer = G2LSTM(INPUT, HIDDEN, gate="gumbel").eval()
    assert layer.choose_backend() == "native"
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.choose_backend() == backend


@pytest.mark.parametrize("backend", ["auto", "fused", "reference", "native"])
@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(0, 2, INPUT),),
        (torch.zeros(5, 2, INPUT + 1),),
        (torch.zeros(5, 2, 2, INPUT),),
        (torch.zeros(INPUT),),
        (torch.zeros(5, 2, INPUT).double(),),
        (torch.zeros(5, 2, INPUT), (torch.zeros(1, 3, HIDDEN), torch.zeros(1, 2, HIDDEN))),
        (torch.zeros(5, 2, INPUT), (torch.zeros(1, 2, HIDDEN), torch.zeros(1, 2, HIDDEN + 1))),
        (torch.zeros(5, 2, INPUT), (torch.zeros(2, HIDDEN), torch.zeros(2, HIDDEN))),
        (torch.zeros(5, INPUT), (torch.zeros(1, 1, HIDDEN), torch.zeros(1, 1, HIDDEN))),
        (pack_padded_sequence(torch.zeros(5, 2, INPUT + 1), [5, 2]),),
    ],
    ids=[
        "no-steps", "features", "4-d", "1-d", "dtype", "hidden-batch", "cell-size", "hidden-2-d",
        "hidden-3-d", "packed-features",
    ],
)  # fmt: skip
def test_wrong_input_is_the_same_kind_of_error_as_in_nn_lstm(arguments, backend):
    with pytest.raises((ValueError, RuntimeError)) as expected:
        nn.LSTM(INPUT, HIDDEN)(*arguments)
    layer = G2LSTM(INPUT, HIDDEN, gate="sigmoid", backend=backend)
    with pytest.raises(expected.type):
        layer(*arguments)


@pytest.mark.parametrize("backend", ["auto", "fused", "reference", "native"])
def test_empty_batch(backend):
    output, (h, c) = G2LSTM(INPUT, HIDDEN, backend=backend).eval()(torch.zeros(STEPS, 0, INPUT))
    assert output.shape == (STEPS, 0, HIDDEN)
    assert h.shape == c.shape == (1, 0, HIDDEN)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"gate": "hard"}, "gate.*'hard'"),
        ({"temperature": 0.0}, r"temperature.*0\.0"),
        ({"noise_probability": 1.5}, r"probability.*1\.5"),
        ({"noise_distribution": "normal"}, "noise_distribution.*'normal'"),
        ({"noise_gates": "output"}, "noise_gates.*'output'"),
        ({"evaluation_gate": "soft"}, "evaluation_gate.*'soft'"),
        ({"weight_dropout": -0.5}, r"-0\.5"),
        ({"backend": "cuda"}, "backend.*'cuda'"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_layers": 0}, "num_layers"),
        ({"dropout": 2.0}, "dropout"),
    ],
)
def test_wrong_arguments_are_named(arguments, match):
    with pytest.raises(ValueError, match=match):
        G2LSTM(**{"input_size": INPUT, "hidden_size": HIDDEN, **arguments})


def test_repr_tells_the_settings():
    text = repr(G2LSTM(3, 4, 2, temperature=0.5, weight_dropout=0.1))
    for part in ("3, 4", "num_layers=2", "gate=gumbel", "temperature=0.5", "weight_dropout=0.1"):
        assert part in text
    assert "temperature" not in repr(G2LSTM(3, 4, gate="sigmoid"))


def test_noise_eps_bounds_the_noise():
    torch.manual_seed(0)
    x = torch.zeros(50, 4, 3)
    lstm = G2LSTM(3, 8, temperature=1.0, noise_probability=1.0, noise_eps=0.5)
    with torch.no_grad():
        for parameter in lstm.parameters():
            parameter.zero_()
    with record_gates(lstm) as records:
        lstm(x)
    limit = torch.sigmoid(torch.tensor(1.5 / 0.5).log())  # |noise| <= log((1 + eps) / eps)
    assert records[0].input_gate.max() <= limit + 1e-6
    lstm.noise_eps = 1e-3
    with record_gates(lstm) as records:
        lstm(x)
    assert records[0].input_gate.max() > limit
    assert "noise_eps=0.5" in repr(G2LSTM(3, 8, noise_eps=0.5))
    with pytest.raises(ValueError, match="eps must be a finite number >= 0, got -1"):
        G2LSTM(3, 8, noise_eps=-1)
