"""Beam search against a search of all sequences, on models that are nothing but tables."""

import itertools
import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from g2lstm.beam_search import beam_search, greedy_search, nbest_search, translate
from g2lstm.subwords import BEGIN, END, PAD, UNKNOWN
from g2lstm.translation import TranslationModel

ALPHAS = [0.0, 0.6, 1.0, 2.0]
MOST = 4  # steps of a hypothesis
EVERYTHING = 200  # more hypotheses than there are prefixes


@dataclass(frozen=True)
class Columns:
    """Memory and state of `Tables`: the table [B] of each column or row, and its prefix [N, t]."""

    table: torch.Tensor
    prefix: torch.Tensor

    def select(self, columns):
        return Columns(self.table[columns], self.prefix[columns])


class Tables(nn.Module):
    """Log-probabilities that depend on the sentence's first subword and on the whole prefix."""

    def __init__(self, words, sharpness=1.0, end=0.0, seed=0):
        super().__init__()
        self.device = nn.Parameter(torch.zeros(()))
        self.size, self.sharpness, self.end, self.seed = END + 1 + words, sharpness, end, seed
        self.rows_per_step = []
        self.known = {}

    def encode(self, source, lengths):
        assert torch.is_inference_mode_enabled()
        assert not self.training
        assert ((source != PAD).sum(0) == lengths).all()
        return Columns(source[0], source[0][:, None][:, :0])

    def start(self, memory):
        return memory

    def step(self, tokens, state, memory):
        assert torch.equal(state.table, memory.table.repeat(len(tokens) // len(memory.table)))
        self.rows_per_step.append(len(memory.table))
        prefix = torch.cat([state.prefix, tokens[:, None]], 1)
        rows = [
            self.row(int(table), tuple(p))
            for table, p in zip(state.table, prefix.tolist(), strict=True)
        ]
        return torch.stack(rows), Columns(state.table, prefix)

    def row(self, table, prefix):
        """Log-probabilities [V] after ``prefix``, which starts with BEGIN."""
        key = (table, prefix)
        if key not in self.known:
            generator = torch.Generator().manual_seed(hash((self.seed, *key)) % 2**31)
            scores = self.sharpness * torch.randn(self.size, generator=generator).double()
            scores[END] += self.end
            self.known[key] = torch.log_softmax(scores, 0)
        return self.known[key]

    def log_probability(self, table, tokens):
        prefix, total = (BEGIN,), 0.0
        for token in tokens:
            total += float(self.row(table, prefix)[token])
            prefix = (*prefix, token)
        return total


def batch(*sources):
    lengths = torch.tensor([len(source) for source in sources])
    return nn.utils.rnn.pad_sequence([torch.tensor(s) for s in sources]), lengths


def exhaustive(model, table, alpha, most=MOST, forbidden=(PAD, BEGIN, UNKNOWN)):
    """All (score, tokens) that end within ``most`` steps, best first."""
    words = [w for w in range(model.size) if w not in (END, *forbidden)]
    found = []
    for length in range(most):
        for tokens in itertools.product(words, repeat=length):
            total = model.log_probability(table, (*tokens, END))
            found.append((total / (length + 1) ** alpha, list(tokens)))
    return sorted(found, reverse=True)


models = st.builds(
    Tables,
    words=st.integers(1, 3),
    sharpness=st.sampled_from([0.3, 1.0, 3.0]),
    end=st.sampled_from([-2.0, 0.0, 2.0]),
    seed=st.integers(0, 10**6),
)
sentences = st.lists(st.lists(st.integers(4, 9), min_size=1, max_size=4), min_size=1, max_size=4)


@pytest.mark.parametrize("alpha", ALPHAS)
@settings(max_examples=15)
@given(model=models, sources=sentences, nbest=st.integers(1, 60))
def test_a_beam_that_holds_everything_finds_the_best_of_all_sequences(alpha, model, sources, nbest):
    found = nbest_search(model, *batch(*sources), nbest, EVERYTHING, alpha, MOST)
    best = beam_search(model, *batch(*sources), EVERYTHING, alpha, MOST)
    for source, hypotheses, first in zip(sources, found, best, strict=True):
        expected = exhaustive(model, source[0], alpha)[:nbest]
        ended = [hypothesis for hypothesis in hypotheses if hypothesis.finished]
        assert [hypothesis.tokens for hypothesis in ended] == [tokens for _, tokens in expected]
        assert [h.score for h in ended] == pytest.approx([score for score, _ in expected])
        assert len(hypotheses) == nbest or len(hypotheses) > len(ended) == len(expected)
        assert first == hypotheses[0]


def plain_beam_search(model, table, beam_size, alpha, most):
    """(tokens, finished) of one sentence, best first, by a search that stops at ``most`` only."""
    live, ended = [(0.0, (BEGIN,))], []
    for step in range(1, most + 1):
        candidates = [
            (total + float(model.row(table, prefix)[token]), (*prefix, token))
            for total, prefix in live
            for token in range(END, model.size)
        ]
        beam = sorted(candidates, reverse=True)[:beam_size]
        ended += [(total / step**alpha, prefix) for total, prefix in beam if prefix[-1] == END]
        live = [(total, prefix) for total, prefix in beam if prefix[-1] != END]
    found = [(list(prefix[1:-1]), True) for _, prefix in sorted(ended, reverse=True)]
    return found + [(list(prefix[1:]), False) for _, prefix in live]


@settings(max_examples=40)
@given(
    model=models,
    sources=sentences,
    beam_size=st.integers(1, 6),
    alpha=st.sampled_from(ALPHAS),
    most=st.integers(1, 8),
    nbest=st.integers(1, 8),
)
def test_any_beam_finds_what_a_plain_search_without_early_stop_does(
    model, sources, beam_size, alpha, most, nbest
):
    found = nbest_search(model, *batch(*sources), nbest, beam_size, alpha, most)
    for source, hypotheses in zip(sources, found, strict=True):
        expected = plain_beam_search(model, source[0], beam_size, alpha, most)
        assert [(h.tokens, h.finished) for h in hypotheses] == expected[:nbest]


@settings(max_examples=30)
@given(
    model=models,
    sources=sentences,
    beam_size=st.integers(1, 6),
    alpha=st.sampled_from(ALPHAS),
    most=st.integers(1, 8),
)
def test_hypotheses_are_what_they_say(model, sources, beam_size, alpha, most):
    found = nbest_search(model, *batch(*sources), 4, beam_size, alpha, most)
    for source, hypotheses in zip(sources, found, strict=True):
        assert 1 <= len(hypotheses) <= 4
        assert len({(tuple(h.tokens), h.finished) for h in hypotheses}) == len(hypotheses)
        order = [(h.finished, h.score) for h in hypotheses]
        assert order == sorted(order, reverse=True)
        for h in hypotheses:
            steps = [*h.tokens, END] if h.finished else h.tokens
            assert not {PAD, UNKNOWN, BEGIN, END} & set(h.tokens)
            assert len(steps) <= most
            assert h.finished or len(steps) == most
            assert h.log_probability == pytest.approx(model.log_probability(source[0], steps))
            assert h.score == pytest.approx(h.log_probability / len(steps) ** alpha)


@settings(max_examples=30)
@given(
    model=models,
    sources=sentences,
    beam_size=st.integers(1, 6),
    alpha=st.sampled_from(ALPHAS),
    most=st.integers(1, 8),
)
def test_neither_the_batch_nor_the_length_of_the_list_changes_a_translation(
    model, sources, beam_size, alpha, most
):
    found = nbest_search(model, *batch(*sources), 5, beam_size, alpha, most)
    assert [best[0] for best in found] == beam_search(
        model, *batch(*sources), beam_size, alpha, most
    )
    for source, hypotheses in zip(sources, found, strict=True):
        assert nbest_search(model, *batch(source), 5, beam_size, alpha, most) == [hypotheses]
        for nbest in (2, 3):
            shorter = nbest_search(model, *batch(source), nbest, beam_size, alpha, most)
            assert shorter == [hypotheses[:nbest]]


@settings(max_examples=30)
@given(model=models, sources=sentences, alpha=st.sampled_from(ALPHAS), most=st.integers(1, 8))
def test_greedy_search_is_a_beam_of_one(model, sources, alpha, most):
    greedy = greedy_search(model, *batch(*sources), alpha, most)
    assert greedy == beam_search(model, *batch(*sources), 1, alpha, most)
    for source, hypothesis in zip(sources, greedy, strict=True):
        prefix = (BEGIN,)
        while len(prefix) <= most and prefix[-1] != END:
            row = model.row(source[0], prefix).clone()
            row[[PAD, BEGIN, UNKNOWN]] = -torch.inf
            prefix = (*prefix, int(row.argmax()))
        assert hypothesis.tokens == [token for token in prefix[1:] if token != END]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_beam_finds_better_than_everything(alpha):
    for seed in range(5):
        model = Tables(3, seed=seed)
        (everything,) = beam_search(model, *batch([4]), EVERYTHING, alpha, MOST)
        for beam_size in range(1, 20):
            (found,) = beam_search(model, *batch([4]), beam_size, alpha, MOST)
            assert found.score <= everything.score or not found.finished


class Scripted(Tables):
    """Follows the sentence: its first subword gives the number of words before END."""

    def row(self, table, prefix):
        row = torch.full((self.size,), math.log(0.01 / (self.size - 1)), dtype=torch.float64)
        row[END if len(prefix) > table - 4 else END + 1] = math.log(0.99)
        return row


@pytest.mark.parametrize("beam_size", [1, 5])
def test_results_come_in_the_order_of_the_sentences(beam_size):
    sources = [[4 + n % 7] * (1 + n % 3) for n in range(40)]
    for batch_tokens in (1, 50, 4000):
        found = translate(
            Scripted(2), sources, beam_size=beam_size, batch_tokens=batch_tokens, length_penalty=0.0
        )
        assert [len(hypothesis.tokens) for hypothesis in found] == [n % 7 for n in range(40)]
    assert translate(Scripted(2), [], beam_size=beam_size) == []


def test_batches_hold_sentences_of_like_length_up_to_their_limit():
    sizes = []

    class Watching(Scripted):
        def encode(self, source, lengths):
            sizes.append(tuple(source.shape))
            return super().encode(source, lengths)

    translate(Watching(1), [[5] * n for n in (1, 3, 60, 25, 2, 18, 3, 1, 24)], batch_tokens=50)
    assert sizes == [(60, 1), (25, 2), (18, 2), (3, 3), (1, 1)]


@pytest.mark.parametrize("beam_size", [1, 5])
def test_sentences_that_are_done_leave_the_batch(beam_size):
    model = Scripted(2)
    sources = [[4], [4], [6], [9]]  # done after 1, 1, 3 and 6 steps
    found = translate(model, sources, beam_size=beam_size, length_penalty=0.0)
    assert [len(hypothesis.tokens) for hypothesis in found] == [0, 0, 2, 5]
    assert model.rows_per_step == [4, 2, 2, 1, 1, 1]


def test_a_live_hypothesis_that_can_still_win_is_followed():
    """END is likely at once, but the long translation has the better mean."""
    steps = [{END: 0.6, 4: 0.4}, {4: 0.99, END: 0.01}, {4: 0.99, END: 0.01}, {END: 1.0}]

    class Late(Tables):
        def row(self, table, prefix):
            row = torch.full((self.size,), -torch.inf, dtype=torch.float64)
            for token, probability in steps[len(prefix) - 1].items():
                row[token] = math.log(probability)
            return row

    for alpha, length in ((0.0, 0), (1.0, 3)):
        (found,) = beam_search(Late(1), *batch([4]), 2, alpha, MOST)
        assert len(found.tokens) == length


@pytest.mark.parametrize("beam_size", [1, 3])
def test_translations_that_do_not_end_are_cut(beam_size):
    model = Tables(5, end=-50.0)
    for most in (1, 5):
        (found,) = translate(model, [[4, 5]], beam_size=beam_size, max_length=most)
        assert (len(found.tokens), found.finished) == (most, False)
        assert found.score == pytest.approx(found.log_probability / most)
    (found,) = translate(model, [[4, 5, 6]], beam_size=beam_size)
    assert len(found.tokens) == 2 * 3 + 10


def test_what_ended_goes_before_what_was_cut_with_a_better_score():
    model = Scripted(1)
    found = nbest_search(model, *batch([9]), 5, 5, 1.0, max_length=3)[0]
    assert [h.finished for h in found] == [True, True, True, False]
    assert found[-1].score > found[0].score


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_specials_are_not_generated(beam_size):
    class Special(Tables):
        def row(self, table, prefix):
            scores = torch.zeros(self.size).double()
            scores[[PAD, BEGIN]] = 9.0
            scores[UNKNOWN] = 5.0
            scores[END] = len(prefix) - 2.0
            return torch.log_softmax(scores, 0)

    (found,) = translate(Special(1), [[4]], beam_size=beam_size)
    assert set(found.tokens) <= {4}
    (found,) = translate(Special(1), [[4]], beam_size=beam_size, allow_unknown=True)
    assert set(found.tokens) == {UNKNOWN}


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_ties_are_broken_the_same_way_every_time(beam_size):
    class Flat(Tables):
        def row(self, table, prefix):
            return torch.full((self.size,), -2.0, dtype=torch.float64)

    sources = [[4 + n % 5] for n in range(6)]
    found = translate(Flat(3), sources, beam_size=beam_size)
    assert found == translate(Flat(3), sources, beam_size=beam_size)
    assert len({tuple(hypothesis.tokens) for hypothesis in found}) == 1
    assert greedy_search(Flat(3), *batch([4])) == beam_search(Flat(3), *batch([4]), 1)
    everything = nbest_search(Flat(3), *batch([4]), EVERYTHING, EVERYTHING, 1.0, MOST)[0]
    lengths = [len(hypothesis.tokens) for hypothesis in everything if hypothesis.finished]
    assert lengths == sorted(lengths)  # ended first


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_restored(training):
    model = Scripted(1).train(training)
    for beam_size in (1, 5):
        translate(model, [[5]], beam_size=beam_size)
        assert model.training is training
    model.step = None
    with pytest.raises(TypeError):
        translate(model, [[5]])
    assert model.training is training


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"beam_size": 0}, "beam_size must be at least 1, got 0"),
        ({"length_penalty": -0.5}, "length_penalty must be a finite number >= 0, got -0.5"),
        ({"length_penalty": math.nan}, "length_penalty must be a finite number >= 0, got nan"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"batch_tokens": 0}, "batch_tokens must be at least 1, got 0"),
        ({"sources": [[4], []]}, "sentence 1 of 2 is empty"),
    ],
)
def test_wrong_arguments_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        translate(Scripted(1), **{"sources": [[4]], **arguments})


def test_wrong_arguments_of_the_searches_are_errors():
    with pytest.raises(ValueError, match="nbest must be at least 1, got 0"):
        nbest_search(Scripted(1), *batch([4]), nbest=0)
    for search in (greedy_search, beam_search):
        with pytest.raises(ValueError, match=r"at least 1 subword, got lengths \[2, 0\]"):
            search(Scripted(1), torch.tensor([[4, 0], [4, 0]]), torch.tensor([2, 0]))


@pytest.mark.parametrize("beam_size", [1, 3])
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_model_without_probabilities_is_an_error(beam_size, value):
    class Broken(Scripted):
        def row(self, table, prefix):
            return super().row(table, prefix) if table < 9 else torch.full((self.size,), value)

    with pytest.raises(ValueError, match="no translation of sentence 1 of the batch"):
        translate(Broken(1), [[5], [9]], beam_size=beam_size)


@pytest.fixture(scope="module")
def model():
    """Untrained but far from uniform."""
    torch.manual_seed(0)
    model = TranslationModel(20, 30, 8, 12)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    with torch.no_grad():
        model.output_bias[END] -= 1  # some translations end, some are cut
    return model


SOURCES = [[4 + (3 * n + i) % 16 for i in range(1 + n % 5)] + [END] for n in range(12)]


def teacher_forced(model, source, steps):
    """Sum of the log-probabilities of ``steps`` in one pass over all of them."""
    model.eval()
    with torch.no_grad():
        inputs = torch.tensor([[BEGIN], *([token] for token in steps[:-1])])
        output = model(torch.tensor(source)[:, None], torch.tensor([len(source)]), inputs)
        rows = model.log_probabilities(output.hidden[:, 0])
    return float(rows[range(len(steps)), steps].double().sum())


@pytest.mark.parametrize("beam_size", [1, 5])
def test_log_probability_is_that_of_teacher_forcing(model, beam_size):
    found = translate(model, SOURCES, beam_size=beam_size, max_length=9, batch_tokens=50)
    assert {hypothesis.finished for hypothesis in found} == {True, False}
    for source, hypothesis in zip(SOURCES, found, strict=True):
        steps = hypothesis.tokens + [END] * hypothesis.finished
        expected = teacher_forced(model, source, steps)
        assert hypothesis.log_probability == pytest.approx(expected, abs=1e-4)


def test_a_model_can_be_trained_after_it_translated(model):
    translate(model, SOURCES)
    model.train()
    source, lengths = batch(*SOURCES)
    output = model(source, lengths, torch.full((1, len(SOURCES)), BEGIN))
    model.log_probabilities(output.hidden).sum().backward()
    assert all(parameter.grad is not None for parameter in model.decoder.parameters())
