import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2lstm.batches import Pairs, at_most, collate, encode_pairs, pad, token_batches
from g2lstm.subwords import BEGIN, END, PAD, learn_subwords

SENTENCE = st.lists(st.integers(4, 9), max_size=12)


def make(pairs):
    return Pairs([[*source, END] for source, _ in pairs], [target for _, target in pairs])


@given(
    st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=40),
    st.integers(1, 60),
    st.none() | st.integers(0, 5),
)
def test_batches_hold_every_pair_once_within_the_limit(pairs, batch_tokens, seed):
    pairs = make(pairs)
    random = None if seed is None else np.random.default_rng(seed)
    batches = token_batches(pairs, batch_tokens, random)
    assert sorted(i for batch in batches for i in batch) == list(range(len(pairs)))
    for batch in batches:
        longest = max(max(len(pairs.sources[i]), len(pairs.targets[i]) + 1) for i in batch)
        assert len(batch) == 1 or len(batch) * longest <= batch_tokens
        whole = collate(pairs, batch)
        assert max(whole.source.numel(), whole.targets.numel()) <= max(batch_tokens, longest)


@given(
    st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=40),
    st.integers(1, 9),
    st.none() | st.integers(0, 5),
)
def test_batches_of_so_many_sentences(pairs, number, seed):
    pairs = make(pairs)
    random = None if seed is None else np.random.default_rng(seed)
    batches = token_batches(pairs, 1, random, batch_sentences=number)
    assert sorted(i for batch in batches for i in batch) == list(range(len(pairs)))
    whole, rest = divmod(len(pairs), number)
    assert sorted(map(len, batches)) == sorted([number] * whole + [rest] * (rest > 0))


@given(st.lists(st.tuples(SENTENCE, SENTENCE), min_size=1, max_size=20), st.integers(1, 12))
def test_pairs_with_a_longer_side_are_left_out(pairs, most):
    kept = [pair for pair in pairs if len(pair[0]) <= most and len(pair[1]) <= most]
    if kept:
        assert at_most(make(pairs), most) == make(kept)
    else:
        with pytest.raises(ValueError, match=f"no pair has at most {most} subwords"):
            at_most(make(pairs), most)


def test_batches_of_like_lengths_waste_little():
    lengths = np.random.default_rng(0).integers(1, 40, 2000)
    pairs = make([([4] * n, [5] * n) for n in lengths])
    batches = token_batches(pairs, 1000, np.random.default_rng(1))
    padded = sum(collate(pairs, batch).targets.numel() for batch in batches)
    assert padded < 1.05 * pairs.target_tokens
    assert len(batches) < 1.1 * pairs.target_tokens / 1000


def test_the_seed_decides_order_and_company():
    pairs = make([([4] * (i % 3 + 1), [5]) for i in range(60)])
    first, same, other = (
        token_batches(pairs, 20, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert first == same != other
    assert {frozenset(batch) for batch in first} != {frozenset(batch) for batch in other}
    in_order = token_batches(pairs, 20)
    longest = [max(len(pairs.sources[i]) for i in batch) for batch in in_order]
    assert longest == sorted(longest)


def test_a_batch_by_hand():
    pairs = make([([4, 5], [6]), ([7], [8, 9, 4])])
    batch = collate(pairs, [1, 0])
    assert batch.source.T.tolist() == [[7, END, PAD], [4, 5, END]]
    assert batch.inputs.T.tolist() == [[BEGIN, 8, 9, 4], [BEGIN, 6, PAD, PAD]]
    assert batch.targets.T.tolist() == [[8, 9, 4, END], [6, END, PAD, PAD]]
    assert batch.source_lengths.tolist() == [2, 3]
    assert batch.target_lengths.tolist() == [4, 2]
    assert pairs.target_tokens == 6
    assert pad([[], [4]]).dtype == torch.int64


def test_encoding_adds_the_end_to_the_source():
    sentences = ["ein Hund bellt", "der Hund"], ["a dog barks", "the dog"]
    source, target = learn_subwords(sentences, 10, joint=False)
    pairs = encode_pairs(source, target, sentences)
    assert all(row[-1] == END and END not in row[:-1] for row in pairs.sources)
    assert source.decode(pairs.sources) == sentences[0]
    assert target.decode(pairs.targets) == sentences[1]
    assert not any(END in row or BEGIN in row for row in pairs.targets)
