import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from g2lstm.attention import Memory
from g2lstm.batches import pad
from g2lstm.inspection import record_gates
from g2lstm.low_rank_lstm import factorise
from g2lstm.subwords import BEGIN, END, PAD
from g2lstm.translation import TranslationModel

SOURCES = [[5, 6, 7, 8, 9, END], [9, END], [6, 6, 8, END]]
TARGETS = [[4, 5, END], [7, 8, 9, 10, END], [11, END]]
INPUTS = [[BEGIN, *target[:-1]] for target in TARGETS]
ARCHITECTURES = [
    {},
    {"attention": "luong"},
    {"encoder_layers": 1, "decoder_layers": 1},
    {"encoder_layers": 3, "decoder_layers": 3},
    {"input_feeding": True},
    {"input_feeding": True, "decoder_layers": 1, "attention": "luong"},
]


def make(gate="sigmoid", dtype=torch.float64, **settings):
    torch.manual_seed(0)
    settings = {"embedding_size": 6, "hidden_size": 5, "dropout": 0.3} | settings
    model = TranslationModel(12, 13, gate=gate, **settings)
    nn.init.normal_(model.output_bias)
    return model.to(dtype).eval()


def lengths(sequences):
    return torch.tensor([len(sequence) for sequence in sequences])


def scores(model, sources, inputs, extra=0):
    """Log-probabilities [T, V] of each pair's next subwords, all pairs in one batch."""
    source, decoder_inputs = (
        torch.cat([pad(side), torch.full((extra, len(side)), PAD)]) for side in (sources, inputs)
    )
    hidden = model(source, lengths(sources), decoder_inputs).hidden
    result = model.log_probabilities(hidden)
    return [result[: len(sequence), i] for i, sequence in enumerate(inputs)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_padding_never_changes_a_score(architecture, gate):
    model = make(gate, **architecture)
    together = scores(model, SOURCES, INPUTS, extra=3)
    for source, inputs, batched in zip(SOURCES, INPUTS, together, strict=True):
        (alone,) = scores(model, [source], [inputs])
        torch.testing.assert_close(batched, alone.to(batched))


@given(
    st.lists(
        st.tuples(*2 * [st.lists(st.integers(4, 11), min_size=1, max_size=7)]),
        min_size=1,
        max_size=5,
    )
)
def test_padding_never_changes_a_score_of_any_batch(pairs):
    model = make("gumbel")
    sources, inputs = ([list(side) for side in sides] for sides in zip(*pairs, strict=True))
    together = scores(model, sources, inputs)
    for source, decoder_inputs, batched in zip(sources, inputs, together, strict=True):
        (alone,) = scores(model, [source], [decoder_inputs])
        torch.testing.assert_close(batched, alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steps_equal_teacher_forcing(architecture):
    model = make(**architecture)
    memory = model.encode(pad(SOURCES), lengths(SOURCES))
    whole = model.decode(pad(INPUTS), model.start(memory), memory)
    state = model.start(memory)
    for t, tokens in enumerate(pad(INPUTS)):
        log_probabilities, state = model.step(tokens, state, memory)
        expected = model.log_probabilities(whole.hidden[t])
        torch.testing.assert_close(log_probabilities, expected)


def test_equals_lstms_and_attention_by_hand():
    """One pair, word by word, with torch.nn.LSTM and plain formulas."""
    model = make()
    encoder = nn.LSTM(6, 5, bidirectional=True).double()
    upper_encoder, decoder = nn.LSTM(10, 5).double(), nn.LSTM(6, 5).double()
    upper_decoder = nn.LSTM(10, 5).double()
    for ours, theirs in (
        (model.encoder, encoder),
        (model.upper_encoder, upper_encoder),
        (model.decoder, decoder),
        (model.upper_decoder, upper_decoder),
    ):
        theirs.load_state_dict(ours.state_dict())
    source = torch.tensor(SOURCES[0])
    values, _ = upper_encoder(encoder(model.source_embedding(source))[0])  # [S, 5]
    start = torch.tanh(model.bridge(values.mean(0)))
    states = [(h[None], torch.zeros(1, 5).double()) for h in start.chunk(2)]
    for t, token in enumerate(INPUTS[1]):
        bottom, states[0] = decoder(model.target_embedding(torch.tensor([token])), states[0])
        energies = torch.stack(
            [
                model.attention.score.weight[0]
                @ torch.tanh(
                    model.attention.query.weight @ bottom[0]
                    + model.attention.query.bias
                    + model.attention.key.weight @ value
                )
                for value in values
            ]
        )
        weights = energies.exp() / energies.exp().sum()
        context = sum(weight * value for weight, value in zip(weights, values, strict=True))
        top, states[1] = upper_decoder(torch.cat([bottom[0], context])[None], states[1])
        attentional = torch.tanh(model.readout(torch.cat([top[0], context])))
        logits = model.target_embedding.weight @ attentional + model.output_bias
        expected = torch.log_softmax(logits, 0)
        (ours,) = scores(model, SOURCES[:1], INPUTS[1:2])
        torch.testing.assert_close(ours[t], expected)


def test_attention_weights_are_a_distribution_over_the_words():
    model = make()
    output = model(pad(SOURCES), lengths(SOURCES), pad(INPUTS))
    assert output.attention.shape == (5, 6, 3)
    torch.testing.assert_close(output.attention.sum(1), torch.ones(5, 3).to(output.attention))
    assert (output.attention[:, 2:, 1] == 0).all()


def test_rows_of_several_beams_are_those_of_their_sentences():
    model = make(input_feeding=True)
    memory = model.encode(pad(SOURCES), lengths(SOURCES))
    state = model.start(memory)
    tokens = torch.tensor([4, 5, 6])
    single, after = model.step(tokens, state, memory)
    rows = torch.tensor([0, 1, 2, 0, 1, 2])
    double, _ = model.step(tokens[rows], state.select(rows), memory)
    torch.testing.assert_close(double, single[rows])
    kept = torch.tensor([2, 0])
    some, _ = model.step(tokens[kept], after.select(kept), memory.select(kept))
    every, _ = model.step(tokens, after, memory)
    torch.testing.assert_close(some, every[kept])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_are_torchs_cross_entropy(smoothing):
    model = make()
    targets = pad(TARGETS)
    hidden = model(pad(SOURCES), lengths(SOURCES), pad(INPUTS)).hidden
    smoothed, plain = model.losses(hidden, targets, smoothing)
    logits = hidden @ model.target_embedding.weight.T + model.output_bias
    arguments = {"ignore_index": PAD}
    expected = cross_entropy(
        logits.flatten(0, 1), targets.flatten(), label_smoothing=smoothing, **arguments
    )
    torch.testing.assert_close(smoothed, expected)
    expected = cross_entropy(logits.flatten(0, 1), targets.flatten(), **arguments)
    torch.testing.assert_close(plain, expected)


def test_the_softmax_is_tied_to_the_target_embedding():
    model = make()
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    assert shapes.count((13, 6)) == 1
    assert shapes.count((12, 6)) == 1
    shared = TranslationModel(13, 13, 6, 5, share_embeddings=True)
    assert shared.source_embedding is shared.target_embedding
    with pytest.raises(ValueError, match="share_embeddings needs one vocabulary, got 12 source"):
        TranslationModel(12, 13, share_embeddings=True)


def test_layers_are_as_many_as_asked_for():
    model = make(encoder_layers=3, decoder_layers=4)
    assert [lstm.num_layers for lstm in model.lstms] == [1, 2, 1, 3]
    assert [lstm.bidirectional for lstm in model.lstms] == [True, False, False, False]
    assert [lstm.num_layers for lstm in make(encoder_layers=1, decoder_layers=1).lstms] == [1, 1]


def test_dropout_changes_training_and_leaves_evaluation_alone():
    with_it, without = make(dropout=0.5), make(dropout=0.0)
    without.load_state_dict(with_it.state_dict())
    batch = pad(SOURCES), lengths(SOURCES), pad(INPUTS)
    expected = without(*batch).hidden
    assert torch.equal(with_it(*batch).hidden, expected)
    torch.testing.assert_close(without.train()(*batch).hidden, expected)
    dropped = with_it.train()(*batch).hidden
    assert not torch.allclose(dropped, expected)
    assert (dropped == 0).all(0).any(), "one mask for all steps"


def test_input_feeding_lets_attention_reach_the_next_step():
    """The first layer's gates at step 1 depend on the source's encoding only with input feeding."""
    for feeding in (False, True):
        model = make(input_feeding=feeding)
        seen = []
        for scale in (1.0, 2.0):
            memory = model.encode(pad(SOURCES), lengths(SOURCES))
            state = model.start(memory)
            memory = Memory(memory.values * scale, memory.keys, memory.mask, memory.summary)
            with record_gates(model.decoder) as records:
                model.decode(pad(INPUTS), state, memory)
            seen.append(torch.cat([record.input_gate for record in records]))
        assert torch.equal(seen[0][0], seen[1][0])
        assert torch.equal(seen[0][1:], seen[1][1:]) is not feeding


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_every_parameter_gets_a_gradient(architecture, gate):
    model = make(gate, **architecture).train()
    output = model(pad(SOURCES), lengths(SOURCES), pad(INPUTS))
    model.losses(output.hidden, pad(TARGETS))[0].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert (model.source_embedding.weight.grad[PAD] == 0).all()


def test_noise_is_drawn_in_training_only():
    model = make("gumbel", dropout=0.0)
    batch = pad(SOURCES), lengths(SOURCES), pad(INPUTS)
    assert torch.equal(model(*batch).hidden, model(*batch).hidden)
    model.train()
    assert not torch.equal(model(*batch).hidden, model(*batch).hidden)


@pytest.mark.parametrize("share_embeddings", [False, True])
def test_the_seed_decides_the_initial_weights(share_embeddings):
    models = []  # all kept alive, so that each has an address of its own
    for _ in range(20):
        torch.manual_seed(3)
        models.append(TranslationModel(12, 12, 6, 5, share_embeddings=share_embeddings))
    for model in models[1:]:
        for a, b in zip(model.parameters(), models[0].parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trains_under_autocast(architecture):
    model = make("gumbel", torch.float32, **architecture).train()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(pad(SOURCES), lengths(SOURCES), pad(INPUTS))
        smoothed, loss = model.losses(output.hidden, pad(TARGETS), 0.1)
    assert smoothed.dtype == loss.dtype == torch.float32
    smoothed.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
    expected = make("gumbel", torch.float32, **architecture)
    with torch.autocast("cpu", torch.bfloat16):
        near = expected(pad(SOURCES), lengths(SOURCES), pad(INPUTS)).hidden
    exact = expected(pad(SOURCES), lengths(SOURCES), pad(INPUTS)).hidden
    torch.testing.assert_close(near.float(), exact, rtol=0, atol=0.05)


def test_recorded_gates_leave_padding_out_with_input_feeding():
    model = make("gumbel", input_feeding=True)
    memory = model.encode(pad(SOURCES), lengths(SOURCES))
    with record_gates(model.decoder) as records:
        masked = model.decode(pad(INPUTS), model.start(memory), memory, lengths(INPUTS))
    assert [int(record.running.sum()) for record in records] == [3, 3, 2, 1, 1]
    plain = model.decode(pad(INPUTS), model.start(memory), memory)
    running = torch.arange(5)[:, None] < lengths(INPUTS)
    torch.testing.assert_close(masked.hidden[running], plain.hidden[running])
    steps, rows = running.nonzero(as_tuple=True)
    torch.testing.assert_close(masked.attention[steps, :, rows], plain.attention[steps, :, rows])


def test_recorded_gates_leave_padding_out():
    model = make("gumbel")
    with record_gates(model) as records:
        memory = model.encode(pad(SOURCES), lengths(SOURCES))
        model.decode(pad(INPUTS), model.start(memory), memory, lengths(INPUTS))
    modules = [record.module for record in records]
    assert modules == ["encoder", "encoder", "upper_encoder", "decoder", "upper_decoder"]
    for record, sequences in zip(records, [SOURCES] * 3 + [INPUTS] * 2, strict=True):
        assert record.running.sum(0).tolist() == lengths(sequences).tolist()


def test_lengths_of_the_targets_change_no_score():
    model = make()
    memory = model.encode(pad(SOURCES), lengths(SOURCES))
    plain = model.decode(pad(INPUTS), model.start(memory), memory)
    masked = model.decode(pad(INPUTS), model.start(memory), memory, lengths(INPUTS))
    running = torch.arange(5)[:, None] < lengths(INPUTS)
    torch.testing.assert_close(masked.hidden[running], plain.hidden[running])


def test_temperature_is_that_of_all_layers():
    model = make("sharpened", temperature=0.5)
    assert [lstm.temperature for lstm in model.lstms] == [0.5] * 4
    model.temperature = 0.25
    assert [lstm.temperature for lstm in model.lstms] == [0.25] * 4
    assert model.temperature == 0.25


def test_the_settings_of_gates_are_those_of_all_layers():
    settings = {
        "noise_distribution": "gaussian", "noise_gates": "input-forget-output",
        "evaluation_gate": "temperature",
    }  # fmt: skip
    model = make("gumbel", **settings)
    for name, value in settings.items():
        assert [getattr(layer, name) for layer in model.lstms] == [value] * 4
    assert model.evaluation_gate == "temperature"
    model.evaluation_gate = "hard"
    assert [layer.evaluation_gate for layer in model.lstms] == ["hard"] * 4
    with pytest.raises(ValueError, match=r"evaluation_gate must be one of .* got 'soft'"):
        model.evaluation_gate = "soft"
    with pytest.raises(ValueError, match="holds no G2LSTM"):
        factorise(model, 1).evaluation_gate = "plain"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "dot"}, "attention must be one of bahdanau, luong, got 'dot'"),
        ({"embedding_size": -1}, "embedding_size must be at least 1, got -1"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"encoder_layers": 0}, "encoder_layers must be at least 1, got 0"),
        ({"decoder_layers": -1}, "decoder_layers must be at least 1, got -1"),
        ({"dropout": 1.5}, "1.5"),
        ({"gate": "gumbl"}, "gumbl"),
        ({"temperature": 0.0}, "temperature"),
    ],
)
def test_a_bad_argument_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
