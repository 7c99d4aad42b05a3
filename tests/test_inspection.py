"""Recorded gates against plain loops in float64; recording must change nothing else."""

import copy

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from g2lstm import G2LSTM
from g2lstm.inspection import (
    gate_histogram,
    gate_summary,
    record_gates,
    recorded,
    saturation,
)
from g2lstm.lstm import BackendError

INPUT, HIDDEN, STEPS, BATCH = 3, 4, 6, 5


def gates_by_hand(lstm, x, layer=0, reverse=False, h=None, c=None, temperature=1.0):
    """Input and forget gates [T, B, H] and output of one direction, by torch.lstm_cell's maths."""
    suffix = f"_l{layer}" + "_reverse" * reverse
    w_ih, w_hh = getattr(lstm, "weight_ih" + suffix), getattr(lstm, "weight_hh" + suffix)
    b_ih, b_hh = getattr(lstm, "bias_ih" + suffix), getattr(lstm, "bias_hh" + suffix)
    h = torch.zeros(x.shape[1], HIDDEN, dtype=x.dtype) if h is None else h
    c = torch.zeros_like(h) if c is None else c
    inputs, forgets, outputs = [], [], []
    for x_t in x.flip(0) if reverse else x:
        a = x_t @ w_ih.T + b_ih + h @ w_hh.T + b_hh
        i, f = (torch.sigmoid(a[:, k : k + HIDDEN] / temperature) for k in (0, HIDDEN))
        g, o = torch.tanh(a[:, 2 * HIDDEN : 3 * HIDDEN]), torch.sigmoid(a[:, 3 * HIDDEN :])
        c = f * c + i * g
        h = o * torch.tanh(c)
        inputs.append(i), forgets.append(f), outputs.append(h)
    stacked = [torch.stack(values) for values in (inputs, forgets, outputs)]
    return [values.flip(0) for values in stacked] if reverse else stacked


def assert_record(record, expected):
    assert record.input_gate.shape == expected[0].shape
    torch.testing.assert_close(record.input_gate, expected[0].detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(record.forget_gate, expected[1].detach(), rtol=0, atol=1e-12)


def draw(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def make(kind, **arguments):
    torch.manual_seed(0)
    return kind(INPUT, HIDDEN, **arguments, dtype=torch.float64)


class Model(nn.Module):
    """Two LSTMs at different depths, one of them called twice."""

    def __init__(self):
        super().__init__()
        self.first = make(nn.LSTM)
        self.rest = nn.ModuleDict({"second": make(G2LSTM, batch_first=True)})
        self.back = nn.Linear(HIDDEN, INPUT, dtype=torch.float64)

    def forward(self, x):
        x, state = self.first(x)
        x, _ = self.first(self.back(x), state)
        return self.rest["second"](self.back(x).transpose(0, 1))[0]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, G2LSTM])
def test_values_of_every_layer_and_direction(kind, training):
    arguments = {"gate": "sigmoid"} if kind is G2LSTM else {}
    lstm = make(kind, num_layers=2, bidirectional=True, **arguments).train(training)
    x = draw(STEPS, BATCH, INPUT)
    with record_gates(lstm) as records:
        lstm(x)
    found = [(r.module, r.layer, r.reverse, r.training, r.lengths) for r in records]
    assert found == [("", k, r, training, None) for k in (0, 1) for r in (False, True)]
    for layer in (0, 1):
        outputs = []
        for reverse in (False, True):
            expected = gates_by_hand(lstm, x, layer, reverse)
            assert_record(records[2 * layer + reverse], expected)
            outputs.append(expected[2])
        x = torch.cat(outputs, dim=2)


def test_every_lstm_of_a_model_is_recorded_by_name_in_the_order_of_calls():
    model = Model().eval()
    x = draw(STEPS, BATCH, INPUT)
    plain = model(x)
    with record_gates(model) as records:
        recorded = model(x)
    torch.testing.assert_close(recorded, plain, rtol=0, atol=1e-12)
    assert [r.module for r in records] == ["first", "first", "rest.second"]
    one = gates_by_hand(model.first, x)
    assert_record(records[0], one)
    _, (h, c) = model.first(x)
    two = gates_by_hand(model.first, model.back(one[2]), h=h[0], c=c[0])
    assert_record(records[1], two)
    assert_record(records[2], gates_by_hand(model.rest["second"], model.back(two[2])))


@pytest.mark.parametrize("training", [True, False])
def test_sharpened_gates_are_recorded_as_used(training):
    lstm = make(G2LSTM, gate="sharpened", temperature=0.2).train(training)
    x = draw(STEPS, BATCH, INPUT)
    with record_gates(lstm) as records:
        lstm(x)
    assert_record(records[0], gates_by_hand(lstm, x, temperature=0.2))


def test_gumbel_gates_have_noise_in_training_and_none_in_evaluation():
    lstm = make(G2LSTM, noise_probability=0.5, temperature=1.0)
    x = draw(1, 2000, INPUT)  # with one step the pre-activations are known
    expected = gates_by_hand(lstm, x)
    with record_gates(lstm) as records:
        lstm(x)
        lstm.eval()(x)
    assert [r.training for r in records] == [True, False]
    assert_record(records[1], expected)
    for values, plain in zip(
        (records[0].input_gate, records[0].forget_gate), expected, strict=False
    ):
        noisy = (values - plain).abs() > 1e-12
        assert abs(noisy.double().mean() - 0.5) < 5 * 0.5 / noisy.numel() ** 0.5


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_packed_input_is_recorded_in_the_order_of_the_caller(enforce_sorted):
    lengths = [6, 4, 4, 2, 1] if enforce_sorted else [2, 6, 1, 4, 4]
    lstm = make(nn.LSTM, bidirectional=True)
    x = draw(STEPS, BATCH, INPUT)
    with record_gates(lstm) as records:
        lstm(pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted))
    for record in records:
        assert record.lengths.tolist() == lengths
        assert record.lengths.dtype == torch.int64
        for b, length in enumerate(lengths):
            assert record.running[:, b].tolist() == [t < length for t in range(STEPS)]
            alone = gates_by_hand(lstm, x[:length, b : b + 1], reverse=record.reverse)
            torch.testing.assert_close(record.input_gate[:length, b : b + 1], alone[0].detach())
            torch.testing.assert_close(record.forget_gate[:length, b : b + 1], alone[1].detach())
            assert not record.input_gate[length:, b].any()
            assert not record.forget_gate[length:, b].any()


@pytest.mark.parametrize("kind", [nn.LSTM, G2LSTM])
def test_batch_first_and_unbatched_input(kind):
    lstm = make(kind, batch_first=True).eval()
    x = draw(BATCH, STEPS, INPUT)
    with record_gates(lstm) as records:
        lstm(x)
        lstm(x[0])
    assert_record(records[0], gates_by_hand(lstm, x.transpose(0, 1)))
    assert_record(records[1], gates_by_hand(lstm, x[0, :, None]))
    assert records[1].running.shape == (STEPS, 1)
    assert records[1].running.all()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (nn.LSTM, {}),
        (G2LSTM, {"gate": "sigmoid", "backend": "native"}),
        (G2LSTM, {"gate": "sharpened", "weight_dropout": 0.3}),
        (G2LSTM, {"noise_probability": 0.5, "weight_dropout": 0.3}),
        (G2LSTM, {"backend": "reference"}),
    ],
)
def test_recording_leaves_results_and_gradients_as_they_were(kind, arguments, training, packed):
    """Same seed, same masks and noise: in training with dropout between the layers too."""
    lstm = make(kind, num_layers=2, bidirectional=True, dropout=0.4, **arguments).train(training)
    x = draw(STEPS, BATCH, INPUT).requires_grad_()

    def run():
        torch.manual_seed(2)
        input = pack_padded_sequence(x, [6, 4, 4, 2, 1]) if packed else x
        output, state = lstm(input)
        output = output.data if packed else output
        loss = output.square().sum() + state[1].sum()
        gradients = torch.autograd.grad(loss, [x, *lstm.parameters()])
        return output, *state, *gradients, torch.rand(1).double()

    before = run()
    with record_gates(lstm) as records:
        during = run()
    for a, b, c in zip(before, during, run(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
        assert torch.equal(a, c)
    assert len(records) == 4


def test_records_are_detached_copies():
    lstm = make(G2LSTM)
    with record_gates(lstm) as records:
        output, _ = lstm(draw(STEPS, BATCH, INPUT))
    for gate in (records[0].input_gate, records[0].forget_gate):
        assert not gate.requires_grad
        gate.zero_()
    output.sum().backward()  # what the backward pass needs was not touched
    assert lstm.weight_hh_l0.grad.any()


def test_everything_is_restored_also_after_an_error():
    model = Model()
    attributes = [dict(vars(part)) for part in model.modules()]
    with record_gates(model):
        model(draw(STEPS, BATCH, INPUT))
        assert "forward" in vars(model.first)
    with pytest.raises(RuntimeError, match="input_size"), record_gates(model):
        model(draw(STEPS, BATCH, INPUT + 1))
    for part, before in zip(model.modules(), attributes, strict=True):
        assert vars(part).keys() == before.keys()
        assert "forward" not in vars(part)


def test_nested_and_repeated_recording():
    model = Model().eval()
    x = draw(STEPS, BATCH, INPUT)
    with record_gates(model) as outer:
        model(x)
        with record_gates(model.rest) as inner:
            model(x)
            model(x)
        model(x)
    assert [r.module for r in outer] == ["first", "first", "rest.second"] * 4
    assert [r.module for r in inner] == ["second", "second"]
    assert torch.equal(inner[0].forget_gate, outer[5].forget_gate)
    model(x)
    assert (len(outer), len(inner)) == (12, 2)
    with record_gates(model) as again:
        model(x)
    assert len(again) == 3
    assert "forward" not in vars(model.first)


def test_a_forward_set_on_the_instance_comes_back():
    lstm = make(nn.LSTM)
    lstm.forward = own = lambda *_: "own"
    with record_gates(lstm) as records:
        lstm(draw(STEPS, BATCH, INPUT))
    assert lstm.forward is own
    assert len(records) == 1


def test_hooks_of_the_module_still_run():
    lstm, called = make(nn.LSTM), []
    lstm.register_forward_hook(lambda *_: called.append(1))
    with record_gates(lstm):
        lstm(draw(STEPS, BATCH, INPUT))
    assert called == [1]


def test_errors_of_the_layer_stay():
    layer = make(G2LSTM, backend="native")
    with record_gates(layer), pytest.raises(BackendError):
        layer(draw(STEPS, BATCH, INPUT))


def test_works_under_autocast_and_without_gradients():
    model = nn.Sequential(nn.LSTM(INPUT, HIDDEN))
    x = torch.randn(STEPS, BATCH, INPUT)
    with torch.no_grad(), record_gates(model) as records:
        model(x)
        with torch.autocast("cpu", torch.bfloat16):
            output, _ = model(x)
    assert output.dtype == records[1].input_gate.dtype == torch.float32
    torch.testing.assert_close(records[0].input_gate, records[1].input_gate, rtol=0, atol=0.02)


def test_what_cannot_be_recorded_is_an_error():
    with pytest.raises(ValueError, match="Linear holds no"), record_gates(nn.Linear(2, 2)):
        pass
    model = nn.ModuleList([nn.LSTM(3, 4), nn.LSTM(3, 4, proj_size=2)])
    with pytest.raises(ValueError, match="'1': proj_size=2"), record_gates(model):
        pass

    class Other(nn.LSTM):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="Other has its own forward"), record_gates(Other(3, 4)):
        pass
    assert "forward" not in vars(model[0])


def test_a_subclass_without_its_own_forward_is_recorded():
    class Named(G2LSTM):
        pass

    lstm = Named(INPUT, HIDDEN).eval()
    with record_gates(copy.deepcopy(lstm)) as records:
        lstm(torch.zeros(STEPS, BATCH, INPUT))
    assert records == []  # another module
    with record_gates(lstm) as records:
        lstm(torch.zeros(STEPS, BATCH, INPUT))
    assert len(records) == 1


# --- numbers -------------------------------------------------------------------------------------


def test_histogram_counts_shares():
    values = torch.tensor([[0.0, 0.05, 0.1, 0.55], [0.95, 1.0, 0.99, 0.31]], dtype=torch.float64)
    expected = [2, 1, 0, 1, 0, 1, 0, 0, 0, 3]
    np.testing.assert_allclose(gate_histogram(values), np.array(expected) / 8)
    np.testing.assert_allclose(gate_histogram(values.numpy(), bins=2), [0.5, 0.5])
    assert gate_histogram(torch.rand(1000).bfloat16(), bins=7).sum() == pytest.approx(1)


def test_saturation_counts_what_is_near_0_and_1():
    values = torch.tensor([0.0, 0.05, 0.2, 0.5, 0.8, 0.97, 1.0, 1.0])
    assert saturation(values) == 5 / 8
    assert saturation(values, margin=0.25) == 7 / 8
    assert saturation(values.requires_grad_(), margin=0.01) == 3 / 8
    assert saturation(values.detach().numpy(), margin=0.04) == 4 / 8


@pytest.mark.parametrize("function", [gate_histogram, saturation])
@pytest.mark.parametrize(
    ("values", "match"),
    [([], "no gate values"), ([0.5, 1.5], r"1\.5"), ([-0.25], r"-0\.25"), ([np.nan], "nan")],
)
def test_wrong_values_are_named(function, values, match):
    with pytest.raises(ValueError, match=match):
        function(np.array(values))


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"bins.*0"):
        gate_histogram(np.zeros(1), bins=0)
    for margin in (0.0, 0.6, float("nan")):
        with pytest.raises(ValueError, match=f"margin.*{margin!r}"):
            saturation(np.zeros(1), margin)


def test_recorded_restores_mode_and_random_state_and_repeats():
    lstm = G2LSTM(3, 4, gate="gumbel").eval()
    x = torch.randn(5, 2, 3)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = (recorded(lstm, True, lambda: lstm(x)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert not lstm.training
    assert first[0].training
    assert torch.equal(first[0].input_gate, second[0].input_gate)
    plain = recorded(lstm, False, lambda: lstm(x))
    assert not torch.equal(plain[0].input_gate, first[0].input_gate)
    with pytest.raises(ZeroDivisionError):
        recorded(lstm, True, lambda: 1 / 0)
    assert not lstm.training, "also after an error"


def unpad_sequence_of(packed):
    x, lengths = pad_packed_sequence(packed)
    return [x[:n, i : i + 1] for i, n in enumerate(lengths.tolist())]


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 9))
def test_padding_counts_neither_as_saturated_nor_in_the_histogram(lengths, seed):
    torch.manual_seed(seed)
    lstm = nn.LSTM(3, 4, bidirectional=True)
    x = torch.randn(6, len(lengths), 3)
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    records = recorded(lstm, False, lambda: lstm(packed))
    alone = [recorded(lstm, False, lambda b=b, n=n: lstm(x[:n, b])) for b, n in enumerate(lengths)]
    for index, record in enumerate(records):
        for kind in ("input_gate", "forget_gate"):
            values = torch.cat([getattr(one[index], kind).flatten() for one in alone])
            for gate in (getattr(record, kind), getattr(record, kind)[record.running]):
                assert saturation(gate, 0.4) == pytest.approx(saturation(values, 0.4), abs=1e-6)
                np.testing.assert_allclose(gate_histogram(gate, 3), gate_histogram(values, 3))


def test_gate_summary_counts_running_steps_alone():
    lstm = nn.LSTM(3, 4)
    packed = pack_padded_sequence(torch.randn(5, 2, 3), [5, 2])
    summary = gate_summary(recorded(lstm, False, lambda: lstm(packed)))
    alone = [recorded(lstm, False, lambda x=x: lstm(x)) for x in unpad_sequence_of(packed)]
    values = torch.cat([records[0].forget_gate.flatten() for records in alone])
    assert summary["forget"]["mean"] == pytest.approx(float(values.mean()), abs=1e-6)
    assert sum(summary["input"]["histogram"]) == pytest.approx(1)
    with pytest.raises(ValueError, match="no gate values"):
        gate_summary([])
