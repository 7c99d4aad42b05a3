"""Wrong settings, inputs and weights of the layer end in an error or a warning that names them."""

import io
import math
import re
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from g2lstm import G2LSTM
from g2lstm.inspection import record_gates
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import LowRankLSTM
from g2lstm.lstm import run_layers
from g2lstm.translation import TranslationModel

INPUT, HIDDEN, STEPS = 3, 4, 5
BACKENDS = ("auto", "reference", "fused", "native")
GATES = ("sigmoid", "sharpened", "gumbel")

# --- settings after construction -----------------------------------------------------------------

no_numbers = st.one_of(
    st.none(), st.text(max_size=5), st.booleans(), st.just([0.5]), st.just(torch.tensor(0.5)),
    st.just(math.nan), st.just(math.inf), st.just(-math.inf), st.just(1j),
)  # fmt: skip
no_choices = st.one_of(
    st.none(), st.integers(), st.text(max_size=5), st.just(math.nan), st.just(["gumbel"]),
    st.just(torch.zeros(2)), st.just(np.zeros(2)), st.sampled_from(["Gumbel", "sigmoid ", "cuda"]),
)  # fmt: skip
below = st.floats(-1e6, 0, exclude_max=True)
WRONG = {
    "temperature": no_numbers | below | st.just(0.0),
    "noise_eps": no_numbers | below,
    **dict.fromkeys(
        ("noise_probability", "weight_dropout", "dropout"),
        no_numbers | below | st.floats(1, 1e6, exclude_min=True),
    ),
    **dict.fromkeys(
        ("gate", "noise_distribution", "noise_gates", "evaluation_gate", "backend"), no_choices
    ),
}


@given(
    wrong=st.sampled_from(sorted(WRONG)).flatmap(lambda n: st.tuples(st.just(n), WRONG[n])),
    gate=st.sampled_from(["sharpened", "gumbel"]),
    training=st.booleans(),
    backend=st.sampled_from(BACKENDS),
)
def test_a_wrong_setting_is_named_at_the_next_call(wrong, gate, training, backend):
    name, value = wrong
    layer = G2LSTM(INPUT, HIDDEN, 2, gate=gate, backend=backend).train(training)
    setattr(layer, name, value)
    x = torch.zeros(STEPS, 2, INPUT)
    message = re.escape(repr(value))
    for call in (lambda: layer(x), lambda: layer(x[:1], (torch.zeros(2, 2, HIDDEN),) * 2)):
        with pytest.raises(ValueError, match=f"(?s){name} must be .*{message}"):
            call()
    with record_gates(layer), pytest.raises(ValueError, match=name):
        layer(x)
    with pytest.raises(ValueError, match=name):
        run_layers(layer, x)


@given(
    wrong=st.sampled_from(sorted(set(WRONG) - {"dropout"})).flatmap(
        lambda n: st.tuples(st.just(n), WRONG[n])
    )
)
def test_a_wrong_setting_is_named_at_construction(wrong):
    name, value = wrong
    if name == "temperature" and value is None:
        return  # that of the gate
    with pytest.raises(ValueError, match=f"{name} must be "):
        G2LSTM(INPUT, HIDDEN, **{name: value})


def test_settings_may_be_numbers_of_any_kind_and_change_between_calls():
    layer, x = G2LSTM(INPUT, HIDDEN), torch.zeros(STEPS, 2, INPUT)
    for temperature in (1, 0.5, np.float64(0.3), np.float32(0.3)):
        layer.temperature = temperature
        layer(x)
    for gate in GATES:
        layer.gate, layer.noise_probability, layer.dropout = gate, 0, 1
        layer(x)


# --- inputs and states ---------------------------------------------------------------------------


def layers():
    """One of every way to compute: in evaluation, where the kernel of torch serves."""
    yield from (G2LSTM(INPUT, HIDDEN, 2, bidirectional=True, backend=b).eval() for b in BACKENDS)
    yield LowRankLSTM(INPUT, HIDDEN, 2, 2, bidirectional=True).eval()


lengths_of = st.lists(st.integers(1, STEPS), min_size=1, max_size=5)


@given(
    lengths=lengths_of,
    packed=st.booleans(),
    changes=st.lists(st.integers(-2, 3), min_size=6, max_size=6),
    steps=st.integers(1, STEPS),
)
def test_states_of_another_size_are_refused(lengths, packed, changes, steps):
    right = (4, len(lengths), HIDDEN)
    sizes = [size + change for size, change in zip(right * 2, changes, strict=True)]
    h, c = (torch.zeros([max(size, 1) for size in part]) for part in (sizes[:3], sizes[3:]))
    x = torch.zeros(steps, len(lengths), INPUT)
    if packed:
        x = torch.zeros(STEPS, len(lengths), INPUT)
        x = pack_padded_sequence(x, lengths, enforce_sorted=False)
    for layer in layers():
        if h.shape == c.shape == right:
            layer(x, (h, c))
            continue
        with pytest.raises(RuntimeError, match=r"expected [hc] of shape"):
            layer(x, (h, c))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    ("make_hx", "kind", "match"),
    [
        (lambda s: (s, s, s), TypeError, "pair of tensors.*3 values"),
        (lambda s: (s,), TypeError, "pair of tensors.*1 values"),
        (lambda s: torch.stack([s, s]), TypeError, "pair of tensors.*Tensor"),
        (lambda s: s, TypeError, "pair of tensors.*Tensor"),
        (lambda s: (s.double(), s), RuntimeError, "h of torch.float32.*float64"),
        (lambda s: (s, s.long()), RuntimeError, "c of torch.float32.*int64"),
    ],
)
def test_states_that_are_no_pair_of_the_weights_type_are_refused(make_hx, kind, match, packed):
    x = torch.zeros(STEPS, 2, INPUT)
    x = pack_padded_sequence(x, [2, STEPS], enforce_sorted=False) if packed else x
    for layer in layers():
        for call in (layer, *([] if packed else [lambda x, hx, f=layer: f(x[:1], hx)])):
            with pytest.raises(kind, match=match):
                call(x, make_hx(torch.zeros(4, 2, HIDDEN)))


@given(
    rows=st.integers(0, 12),
    sizes=st.lists(st.integers(-1, 4), max_size=4),
    indices=st.none() | st.integers(0, 5),
)
def test_packed_data_put_together_wrongly_is_refused(rows, sizes, indices):
    order = None if indices is None else torch.arange(indices)
    x = PackedSequence(torch.zeros(rows, INPUT), torch.tensor(sizes, dtype=torch.int64), order)
    wrong = not sizes or sum(sizes) != rows or min(sizes) < 0
    wrong = wrong or sizes != sorted(sizes)[::-1] or indices not in (None, sizes[0])
    for layer in layers():
        if wrong:
            with pytest.raises(RuntimeError, match="packed"):
                layer(x)
        elif min(sizes) > 0:
            assert layer(x)[0].data.shape == (rows, 2 * HIDDEN)


def test_packed_data_of_other_features_is_refused_by_the_same_words_everywhere():
    x = pack_padded_sequence(torch.zeros(STEPS, 2, INPUT + 1), [STEPS, 2])
    for layer in layers():
        with pytest.raises(RuntimeError, match=r"Expected 3, got 4"):
            layer(x)


# --- the temperature of a gate -------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "temperature"), [("sharpened", 0.2), ("gumbel", 0.9)])
def test_the_temperature_is_by_default_that_of_the_gate(gate, temperature):
    sizes = {"embedding_size": 4, "hidden_size": 4}
    for model in (
        G2LSTM(INPUT, HIDDEN, gate=gate),
        LanguageModel(5, **sizes, gate=gate),
        TranslationModel(5, 5, **sizes, gate=gate),
    ):
        assert model.temperature == temperature
    assert G2LSTM(INPUT, HIDDEN, gate=gate, temperature=0.5).temperature == 0.5


# --- weights of another gate ---------------------------------------------------------------------

kinds = st.tuples(st.sampled_from(GATES), st.sampled_from([0.2, 0.9, 1.0]))


def through_a_file(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


@given(saved=kinds, own=kinds, inside=st.booleans(), file=st.booleans())
def test_weights_of_gates_that_compute_something_else_are_warned_of(saved, own, inside, file):
    """What they compute in evaluation decides, measured on the layers themselves."""
    one, other = (G2LSTM(INPUT, HIDDEN, gate=gate, temperature=tau) for gate, tau in (saved, own))
    state = (nn.ModuleDict({"part": one}) if inside else one).state_dict()
    state = through_a_file(state) if file else state
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        (nn.ModuleDict({"part": other}) if inside else other).load_state_dict(state, strict=True)
    for name, weight in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], weight)
    x = torch.randn(STEPS, 2, INPUT)
    same = torch.allclose(one.eval()(x)[0], other.eval()(x)[0], rtol=0, atol=1e-6)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (0 if same else 1)
    for message in messages:
        assert f"gate={saved[0]!r}" in message
        assert f"gate={own[0]!r}" in message
        assert ("'part'" in message) == inside


@pytest.mark.parametrize("gate", GATES)
def test_weights_that_say_nothing_of_a_gate_load_silently_and_both_ways(gate, recwarn):
    layer, lstm = G2LSTM(INPUT, HIDDEN, gate=gate), nn.LSTM(INPUT, HIDDEN)
    assert list(layer.state_dict()) == list(lstm.state_dict())
    lstm.load_state_dict(through_a_file(layer.state_dict()), strict=True)
    layer.load_state_dict(lstm.state_dict(), strict=True)
    layer.load_state_dict(dict(G2LSTM(INPUT, HIDDEN, gate="sharpened").state_dict()), strict=True)
    assert not recwarn.list
