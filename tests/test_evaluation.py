import math

import pytest
import torch

from g2lstm.evaluation import (
    Perplexity,
    batchify,
    evaluate,
    evaluate_with_cache,
    segments,
    unigram_perplexity,
)
from g2lstm.language_model import LanguageModel


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = LanguageModel(20, 8, 8, 2, gate="gumbel")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


TEXT = torch.randint(20, (120,), generator=torch.Generator().manual_seed(3))


def log_probabilities(model, text):
    """[L - 1, V]: one forward pass over the whole text, the definition."""
    model.eval()
    with torch.no_grad():
        output = model(text[:-1, None])
        return model.log_probabilities(output.hidden[:, 0]).double(), output.hidden[:, 0].double()


def test_batchify_cuts_strands_in_reading_order():
    strands = batchify(torch.arange(11), 3)
    assert strands.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_segments_predict_every_token_but_the_first_once():
    strands = batchify(torch.arange(22), 2)
    pieces = list(segments(strands, 4))
    assert torch.equal(torch.cat([targets for _, targets in pieces]), strands[1:])
    assert torch.equal(torch.cat([inputs for inputs, _ in pieces]), strands[:-1])


@pytest.mark.parametrize("bptt", [1, 7, 1000])
def test_perplexity_is_that_of_one_pass_whatever_the_segments(model, bptt):
    expected, _ = log_probabilities(model, TEXT)
    loss = -expected.gather(1, TEXT[1:, None]).mean().item()
    result = evaluate(model, TEXT, bptt=bptt)
    assert result.loss == pytest.approx(loss, abs=1e-6)
    assert result.perplexity == pytest.approx(math.exp(loss), rel=1e-6)
    assert result.tokens == 119


def test_strands_start_from_a_zero_state(model):
    expected = [evaluate(model, half) for half in TEXT.view(2, 60)]
    result = evaluate(model, TEXT, batch_size=2, bptt=13)
    assert result.tokens == 118
    assert result.loss == pytest.approx(sum(part.loss for part in expected) / 2, abs=1e-6)


def test_evaluation_is_deterministic_and_restores_the_mode(model):
    model.train()
    assert evaluate(model, TEXT) == evaluate(model, TEXT)
    assert model.training
    model.eval()
    evaluate(model, TEXT)
    assert not model.training


@pytest.mark.parametrize("window", [1, 5, 1000])
@pytest.mark.parametrize("bptt", [1, 9, 200])
def test_cache_pointer_equals_a_plain_loop(model, window, bptt):
    theta, weight = 0.4, 0.3
    scores, hidden = log_probabilities(model, TEXT)
    targets = TEXT[1:]
    total = 0.0
    for t in range(len(targets)):
        p = scores[t].exp()
        if t > 0:
            past = range(max(0, t - window), t)
            attention = torch.softmax(theta * torch.stack([hidden[i] @ hidden[t] for i in past]), 0)
            cache = torch.zeros(20, dtype=torch.float64)
            for share, i in zip(attention, past, strict=True):
                cache[targets[i]] += share
            p = (1 - weight) * p + weight * cache
        total -= math.log(p[targets[t]])
    result = evaluate_with_cache(model, TEXT, window, theta, weight, bptt)
    assert result.loss == pytest.approx(total / len(targets), abs=1e-6)


def test_a_cache_of_no_weight_changes_nothing(model):
    plain = evaluate(model, TEXT)
    assert evaluate_with_cache(model, TEXT, cache_lambda=0.0).loss == pytest.approx(plain.loss)


def test_unigram_perplexity_of_even_counts_is_the_vocabulary_size():
    text = torch.arange(10).repeat(3)
    assert unigram_perplexity(text, text, 10) == pytest.approx(10)
    assert unigram_perplexity(torch.tensor([0, 0]), torch.tensor([1]), 2) == pytest.approx(4)


def test_perplexity_of_a_hopeless_model_is_infinite():
    assert Perplexity(1000.0, 1).perplexity == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: evaluate(m, TEXT[:1]), "1 tokens are too few for batch_size=1"),
        (lambda m: evaluate(m, TEXT, batch_size=100), "too few for batch_size=100"),
        (lambda m: evaluate(m, TEXT, batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda m: evaluate(m, TEXT, bptt=0), "bptt must be at least 1, got 0"),
        (lambda m: evaluate_with_cache(m, TEXT, window=0), "window must be at least 1, got 0"),
        (lambda m: evaluate_with_cache(m, TEXT, cache_lambda=2), "cache_lambda must be in"),
    ],
)
def test_a_bad_argument_is_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


@pytest.mark.parametrize("cutoff", [0, 6])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("measure", [evaluate, evaluate_with_cache])
def test_a_half_precision_model_is_measured_in_full_digits(dtype, cutoff, measure):
    torch.manual_seed(0)
    model = LanguageModel(20, 8, 8, 2, cutoff=cutoff).to(dtype)
    text = torch.randint(20, (4000,), generator=torch.Generator().manual_seed(3))
    # Its weights and outputs in float32: the sum of 4,000 losses in half precision is far off.
    expected = measure(model, text, bptt=40).loss
    assert measure(model, text, bptt=4000).loss == pytest.approx(expected, rel=1e-4)
    twin = LanguageModel(20, 8, 8, 2, cutoff=cutoff)
    twin.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    assert expected == pytest.approx(measure(twin, text).loss, rel=1e-2)


def test_a_loss_that_is_no_number_is_no_perplexity(model):
    assert math.isnan(Perplexity(math.nan, 3).perplexity)
    assert Perplexity(1e6, 3).perplexity == math.inf
    torch.nn.init.constant_(model.decoder_bias, math.nan)
    for measure in (evaluate, evaluate_with_cache):
        assert math.isnan(measure(model, TEXT).perplexity)
