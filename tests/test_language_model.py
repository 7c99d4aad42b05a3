import pytest
import torch
from torch import nn

from g2lstm.language_model import LanguageModel, detach, locked_dropout
from g2lstm.low_rank_lstm import factorise

SIZES = {"vocabulary_size": 30, "embedding_size": 12, "hidden_size": 16, "num_layers": 2}
NO_DROPOUT = {
    "dropout": 0.0,
    "dropout_between": 0.0,
    "dropout_embedding": 0.0,
    "dropout_words": 0.0,
    "weight_dropout": 0.0,
}
TOKENS = torch.arange(40).view(10, 4) % 30


def make(**changes):
    torch.manual_seed(0)
    settings = SIZES | NO_DROPOUT | {"gate": "sigmoid"} | changes
    return LanguageModel(**settings)


def test_equals_embedding_lstms_and_tied_softmax_by_hand():
    model = make().double()
    x = nn.functional.embedding(TOKENS, model.embedding.weight)
    for layer in model.layers:
        plain = nn.LSTM(layer.input_size, layer.hidden_size).double()
        plain.load_state_dict(layer.state_dict())
        x, _ = plain(x)
    expected = torch.log_softmax(x @ model.embedding.weight.T + model.decoder_bias, -1)
    result = model.log_probabilities(model(TOKENS).hidden)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_layers_have_the_papers_widths():
    model = LanguageModel(50)
    widths = [(layer.input_size, layer.hidden_size) for layer in model.layers]
    assert widths == [(400, 1150), (1150, 1150), (1150, 400)]
    assert model.decoder is None


def test_untied_softmax_has_weights_of_its_own():
    model = make(tie_weights=False)
    assert model.decoder.weight.shape == (30, 16)
    assert model.log_probabilities(model(TOKENS).hidden).shape == (10, 4, 30)


@pytest.mark.parametrize("cutoff", [0, 7])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_loss_is_the_mean_of_the_normalised_log_probabilities(cutoff, tie_weights):
    model = make(cutoff=cutoff, tie_weights=tie_weights).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    hidden = torch.randn(40, 12 if tie_weights else 16, dtype=torch.float64)
    targets = TOKENS.flatten()
    log_probabilities = model.log_probabilities(hidden)
    torch.testing.assert_close(log_probabilities.exp().sum(-1), torch.ones(40).double())
    chosen = -log_probabilities.gather(1, targets[:, None])
    torch.testing.assert_close(model.loss(hidden, targets), chosen.mean())
    torch.testing.assert_close(model.loss(hidden, targets, reduction="sum"), chosen.sum())


def test_two_level_softmax_by_hand():
    model = make(cutoff=7).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    h = torch.randn(12, dtype=torch.float64)
    scores = model.embedding.weight @ h + model.decoder_bias
    other = (model.tail_weight @ h + model.tail_bias).squeeze()
    head_total = scores[:7].exp().sum() + other.exp()
    word = 20
    expected = other.exp() / head_total * scores[word].exp() / scores[7:].exp().sum()
    torch.testing.assert_close(model.log_probabilities(h)[word].exp(), expected)


def test_a_cutoff_beyond_the_vocabulary_is_an_ordinary_softmax():
    assert make(cutoff=30).state_dict().keys() == make().state_dict().keys()


def test_a_text_without_rare_words_has_a_finite_loss():
    model = make(cutoff=7)
    loss = model.loss(torch.randn(5, 12, requires_grad=True), torch.zeros(5, dtype=torch.long))
    loss.backward()
    assert torch.isfinite(loss)


def test_carried_state_makes_two_halves_equal_to_the_whole():
    model = make().double().eval()
    whole = model(TOKENS)
    first = model(TOKENS[:6])
    second = model(TOKENS[6:], detach(first.state))
    torch.testing.assert_close(torch.cat([first.hidden, second.hidden]), whole.hidden)
    torch.testing.assert_close(second.state[1][1], whole.state[1][1])
    assert not detach(first.state)[0][0].requires_grad


@pytest.mark.parametrize("name", list(NO_DROPOUT))
def test_each_dropout_changes_training_and_leaves_evaluation_alone(name):
    plain, dropped = make(), make(**{name: 0.5})
    assert torch.equal(plain.eval()(TOKENS).hidden, dropped.eval()(TOKENS).hidden)
    plain.train(), dropped.train()
    torch.manual_seed(1)
    before = plain(TOKENS).hidden
    torch.manual_seed(1)
    assert not torch.allclose(before, dropped(TOKENS).hidden)


def test_word_dropout_drops_every_occurrence_of_a_word():
    model = make(dropout_words=0.5)
    tokens = torch.tensor([[3, 5], [5, 3], [3, 3]])
    dropped = set()
    for seed in range(20):
        torch.manual_seed(seed)
        x = model._embed(tokens)
        gone = (x == 0).all(-1)
        for word in (3, 5):
            assert gone[tokens == word].unique().numel() == 1
        dropped |= {bool(gone[0, 0])}
        kept = x[tokens == 3][0]
        if not gone[0, 0]:
            torch.testing.assert_close(kept, 2 * model.embedding.weight[3])
    assert dropped == {True, False}


def test_locked_dropout_keeps_one_mask_for_all_steps():
    torch.manual_seed(0)
    x = locked_dropout(torch.ones(5, 3, 100), 0.3, training=True)
    assert torch.equal(x, x[:1].expand_as(x))
    assert not torch.equal(x[:, 0], x[:, 1])
    assert set(x.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    assert locked_dropout(x, 0.3, training=False) is x


def test_output_dropout_is_in_hidden_but_not_in_raw():
    model = make(dropout=0.5)
    output = model(TOKENS)
    assert (output.hidden == 0).any()
    assert not (output.raw == 0).any()


def test_temperature_is_that_of_all_layers():
    model = make(gate="gumbel", temperature=0.7)
    assert model.temperature == 0.7
    model.temperature = 0.3
    assert [layer.temperature for layer in model.layers] == [0.3, 0.3]


def test_the_settings_of_gates_are_those_of_all_layers():
    settings = {
        "noise_distribution": "gaussian", "noise_gates": "input-forget-output",
        "evaluation_gate": "temperature",
    }  # fmt: skip
    model = make(**settings)
    for name, value in settings.items():
        assert [getattr(layer, name) for layer in model.layers] == [value] * 2
    assert model.evaluation_gate == "temperature"
    model.evaluation_gate = "hard"
    assert [layer.evaluation_gate for layer in model.layers] == ["hard"] * 2
    with pytest.raises(ValueError, match=r"evaluation_gate must be one of .* got 'soft'"):
        model.evaluation_gate = "soft"
    with pytest.raises(ValueError, match="holds no G2LSTM"):
        factorise(model, 1).evaluation_gate = "plain"


@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_every_parameter_gets_a_gradient(gate):
    model = make(gate=gate, cutoff=7)
    output = model(TOKENS)
    model.loss(output.hidden.flatten(0, 1), TOKENS.flatten()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"dropout": 1.5}, "got 1.5"),
        ({"gate": "hard"}, "got 'hard'"),
        ({"cutoff": -1}, "cutoff must not be negative, got -1"),
    ],
)
def test_a_bad_argument_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
