"""Attention score by score, sentence by sentence."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2lstm.attention import ATTENTIONS, Attention, Memory

QUERY, VALUE, SIZE = 4, 3, 5


def make(kind="bahdanau"):
    torch.manual_seed(1)
    return Attention(QUERY, VALUE, SIZE, kind).double()


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def memory_of(attention, lengths):
    """Values at will, at the padding too: they must never count."""
    values = draw(max(lengths), len(lengths), VALUE)
    mask = torch.arange(max(lengths))[:, None] < torch.tensor(lengths)
    summary = torch.stack([values[:n, b].mean(0) for b, n in enumerate(lengths)])
    return Memory(values, attention.key(values), mask, summary)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_by_hand(kind):
    attention = make(kind)
    lengths = [6, 4]
    memory = memory_of(attention, lengths)
    values = memory.values
    queries = draw(3, 4, QUERY, seed=1)  # two queries a sentence: rows 0, 2 and 1, 3
    contexts, weights = attention(queries, memory)
    assert contexts.shape == (3, 4, VALUE)
    assert weights.shape == (3, 6, 4)
    query_weight, key_weight = attention.query.weight, attention.key.weight
    for t, row in itertools.product(range(3), range(4)):
        sentence = row % 2
        query = query_weight @ queries[t, row] + attention.query.bias
        energies = []
        for s in range(lengths[sentence]):
            key = key_weight @ values[s, sentence]
            if kind == "luong":
                energies.append(query @ key)
            else:
                energies.append(attention.score.weight[0] @ torch.tanh(query + key))
        expected = torch.stack(energies).exp()
        expected /= expected.sum()
        torch.testing.assert_close(weights[t, : len(expected), row], expected)
        assert (weights[t, len(expected) :, row] == 0).all()
        context = sum(w * values[s, sentence] for s, w in enumerate(expected))
        torch.testing.assert_close(contexts[t, row], context)


@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(1, 3),
    st.sampled_from(ATTENTIONS),
)
def test_a_sentence_is_attended_to_as_if_alone(lengths, beams, kind):
    attention = make(kind)
    memory = memory_of(attention, lengths)
    queries = draw(2, beams * len(lengths), QUERY, seed=2)
    contexts, weights = attention(queries, memory)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, queries.shape[1]).double())
    for sentence, length in enumerate(lengths):
        parts = (memory.values, memory.keys, memory.mask)
        alone = Memory(
            *(part[:length, sentence : sentence + 1] for part in parts),
            memory.summary[sentence : sentence + 1],
        )
        mine = queries[:, sentence :: len(lengths)]
        expected, shares = attention(mine, alone)
        torch.testing.assert_close(contexts[:, sentence :: len(lengths)], expected)
        torch.testing.assert_close(weights[:, :length, sentence :: len(lengths)], shares)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_what_stands_in_the_padding_never_counts(kind):
    attention = make(kind)
    memory = memory_of(attention, [2, 5])
    values = memory.values.clone()
    values[2:, 0] = 1e6
    queries = draw(3, 2, QUERY, seed=3)
    noisy = Memory(values, attention.key(values), memory.mask, memory.summary)
    for found, expected in zip(attention(queries, noisy), attention(queries, memory), strict=True):
        assert torch.equal(found, expected)


def test_selected_sentences_are_those_of_the_memory():
    attention = make()
    memory = memory_of(attention, [3, 1, 4])
    some = memory.select(torch.tensor([2, 0, 2]))
    for column, sentence in enumerate((2, 0, 2)):
        assert torch.equal(some.values[:, column], memory.values[:, sentence])
        assert torch.equal(some.keys[:, column], memory.keys[:, sentence])
        assert torch.equal(some.mask[:, column], memory.mask[:, sentence])
        assert torch.equal(some.summary[column], memory.summary[sentence])
    queries = draw(1, 3, QUERY, seed=4)
    every, _ = attention(queries, memory)
    chosen, _ = attention(queries[:, [2, 0, 2]], some)
    torch.testing.assert_close(chosen, every[:, [2, 0, 2]])


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_gradients_are_those_of_finite_differences(kind):
    attention = make(kind)
    memory = memory_of(attention, [3, 2])

    def call(queries, values):
        contexts, weights = attention(
            queries, Memory(values, attention.key(values), memory.mask, memory.summary)
        )
        return contexts, weights

    inputs = (draw(2, 2, QUERY, seed=5).requires_grad_(), memory.values.clone().requires_grad_())
    assert torch.autograd.gradcheck(call, inputs)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_scores_in_half_precision_are_weighed_in_the_models_own(kind):
    attention = make(kind).float()
    memory = memory_of(make(kind), [3, 2])
    memory = Memory(memory.values.float(), memory.keys.float(), memory.mask, memory.summary)
    queries = draw(2, 2, QUERY, seed=6).float()
    expected, shares = attention(queries, memory)
    with torch.autocast("cpu", torch.bfloat16):
        found, weights = attention(queries, memory)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 2))
    torch.testing.assert_close(weights, shares, rtol=0, atol=0.02)
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.05)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="attention must be one of bahdanau, luong, got 'dot'"):
        Attention(QUERY, VALUE, SIZE, "dot")
