"""Effect sizes and AUC against scipy and pair by pair; the bootstrap against plain resampling."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, ttest_ind

from g2lstm.alignment import FUNCTION_WORDS, contrast, unit_auc
from g2lstm.grammar import generate


def draw(sentences=30, tokens=8, seed=0):
    """Values with a share that is common to a sentence, groups of tokens, sentences of tokens."""
    random = np.random.default_rng(seed)
    number = np.repeat(np.arange(sentences), tokens)
    group = random.integers(3, size=len(number))  # a third of the tokens belongs to no group
    values = random.normal(size=sentences)[number] + random.normal(size=len(number))
    return values, group == 0, group == 1, number


def by_hand(values, in_a, in_b):
    """Difference of the means and Cohen's d with the variance pooled over both groups."""
    a, b = values[in_a], values[in_b]
    spread = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    difference = a.mean() - b.mean()
    return difference, difference / math.sqrt(spread / (len(a) + len(b) - 2))


def test_effect_size_by_hand_and_by_students_t():
    values, in_a, in_b, sentences = draw()
    found = contrast(values, in_a, in_b, sentences)
    difference, effect = by_hand(values, in_a, in_b)
    assert (found.tokens_a, found.tokens_b) == (in_a.sum(), in_b.sum())
    assert (found.mean_a, found.mean_b) == pytest.approx((values[in_a].mean(), values[in_b].mean()))
    assert found.difference == pytest.approx(difference)
    assert found.effect == pytest.approx(effect)
    t = ttest_ind(values[in_a], values[in_b]).statistic
    assert found.effect == pytest.approx(t * math.sqrt(1 / in_a.sum() + 1 / in_b.sum()))


GROUPED = st.lists(
    st.tuples(st.floats(0, 1, width=16), st.sampled_from("ab-"), st.integers(0, 5)), max_size=60
)


@pytest.mark.filterwarnings("ignore:All-NaN slice")
@given(GROUPED)
def test_swapped_groups_change_the_sign_and_nothing_else(tokens):
    values = np.array([value for value, _, _ in tokens])
    groups = np.array([group for _, group, _ in tokens], dtype=str)
    sentences = np.array([sentence for _, _, sentence in tokens], dtype=int)
    one = contrast(values, groups == "a", groups == "b", sentences, samples=50)
    other = contrast(values, groups == "b", groups == "a", sentences, samples=50)
    assert (one is None) == (other is None) == (min((groups == g).sum() for g in "ab") < 2)
    if one is None:
        return
    assert one.difference == pytest.approx(values[groups == "a"].mean() - one.mean_b)
    for name, opposite in (
        ("difference", "difference"),
        ("difference_low", "difference_high"),
        ("effect", "effect"),
        ("effect_low", "effect_high"),
    ):
        mine, its = getattr(one, name), getattr(other, opposite)
        assert mine == pytest.approx(-its, rel=1e-6, abs=1e-9, nan_ok=True), name


def test_the_bootstrap_draws_whole_sentences():
    """The same draws, with the tokens of each drawn sentence put together."""
    values, in_a, in_b, sentences = draw(sentences=12, tokens=5)
    samples, seed = 200, 7
    counts = np.random.default_rng(seed).multinomial(12, np.full(12, 1 / 12), samples)
    drawn = []
    for row in counts:
        tokens = np.concatenate(
            [np.tile(np.flatnonzero(sentences == s), n) for s, n in enumerate(row)]
        )
        drawn.append(by_hand(values[tokens], in_a[tokens], in_b[tokens]))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    found = contrast(values, in_a, in_b, sentences, samples, seed)
    assert (found.difference_low, found.effect_low) == pytest.approx(tuple(low))
    assert (found.difference_high, found.effect_high) == pytest.approx(tuple(high))
    assert contrast(values, in_a, in_b, sentences, samples, seed) == found
    assert contrast(values, in_a, in_b, sentences, samples, seed + 1) != found


def test_numbers_of_sentences_are_names_only():
    values, in_a, in_b, sentences = draw()
    found = contrast(values, in_a, in_b, sentences, 100)
    assert contrast(values, in_a, in_b, 7 * sentences + 3, 100) == found


@pytest.mark.parametrize("by_sentence", [False, True])
def test_the_interval_holds_the_truth_in_about_19_of_20_texts(by_sentence):
    """Groups within sentences, and groups of whole sentences: tokens are correlated in both."""
    truth, texts = 0.5, 150
    hits = np.zeros(2)
    for seed in range(texts):
        random = np.random.default_rng(seed)
        sentences = np.repeat(np.arange(50), 6)
        group = random.integers(2, size=50)[sentences] if by_sentence else np.arange(300) % 2
        values = random.normal(size=50)[sentences] + random.normal(size=300) + truth * (group == 0)
        found = contrast(values, group == 0, group == 1, sentences, samples=300, seed=seed)
        hits += (
            found.difference_low < truth < found.difference_high,
            found.effect_low < truth / math.sqrt(2) < found.effect_high,
        )
    assert (hits / texts >= 0.88).all(), hits
    assert (hits / texts <= 0.99).all(), hits


def test_tokens_of_a_sentence_that_are_alike_widen_the_interval():
    """With groups of whole sentences; where tokens are independent it stays as it is."""
    for share, low, high in ((1.0, 1.8, 2.8), (0.0, 0.8, 1.25)):
        ratios = []
        for seed in range(10):
            random = np.random.default_rng(seed)
            sentences = np.repeat(np.arange(60), 8)
            in_a = (np.arange(60) % 2 == 0)[sentences]
            values = share * random.normal(size=60)[sentences] + random.normal(size=480)
            whole, single = (
                contrast(values, in_a, ~in_a, clusters, samples=300)
                for clusters in (sentences, np.arange(480))
            )
            ratios.append(
                (whole.difference_high - whole.difference_low)
                / (single.difference_high - single.difference_low)
            )
        # By theory sqrt(1 + 7 * 1/2) = 2.1 for a correlation of 1/2, and 1.
        assert low < np.mean(ratios) < high


def test_a_sample_without_a_group_does_not_spoil_the_interval():
    """Only two sentences of many have tokens of A: some samples have none of them."""
    random = np.random.default_rng(0)
    sentences = np.repeat(np.arange(20), 4)
    in_a = sentences < 2
    values = random.normal(size=80) + in_a
    found = contrast(values, in_a, ~in_a, sentences)
    assert all(map(math.isfinite, found.as_dict().values()))
    assert found.difference_low < found.difference < found.difference_high


def test_a_group_of_one_token_has_no_contrast():
    values, in_a, in_b, sentences = draw()
    one = np.zeros_like(in_a)
    one[np.flatnonzero(in_a)[0]] = True
    assert contrast(values, one, in_b, sentences) is None
    assert contrast(values, in_a, np.zeros_like(in_a), sentences) is None
    two = one.copy()
    two[np.flatnonzero(in_a)[1]] = True
    assert contrast(values, two, in_b, sentences).tokens_a == 2


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_values_that_are_all_the_same_have_no_effect_size():
    values = np.full(8, 0.5)
    found = contrast(values, np.arange(8) < 4, np.arange(8) >= 4, np.arange(8))
    assert found.difference == found.difference_low == found.difference_high == 0
    assert math.isnan(found.effect)


def test_wrong_groups_are_errors():
    values, in_a, in_b, sentences = draw()
    with pytest.raises(ValueError, match="differ in length"):
        contrast(values, in_a, in_b, sentences[1:])
    with pytest.raises(ValueError, match="differ in length"):
        contrast(values, in_a[:-1], in_b, sentences)
    in_b[np.flatnonzero(in_a)[0]] = True
    with pytest.raises(ValueError, match="a token is in both groups"):
        contrast(values, in_a, in_b, sentences)


def test_a_contrast_is_json():
    values, in_a, in_b, sentences = draw()
    found = contrast(values, in_a, in_b, sentences).as_dict()
    assert json.loads(json.dumps(found)) == found


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_auc_pair_by_pair(a, b, random):
    """Two units: one whose values often tie, one whose values hardly do."""
    tokens = [(row, True) for row in a] + [(row, False) for row in b] + [((9, 9.0), None)] * 3
    random.shuffle(tokens)
    values = np.array([row for row, _ in tokens], dtype=float)
    group = np.array([member for _, member in tokens], dtype=object)
    in_a, in_b = np.equal(group, True), np.equal(group, False)
    found = unit_auc(values, in_a.astype(bool), in_b.astype(bool))
    for unit in (0, 1):
        wins = [(x[unit] > y[unit]) + (x[unit] == y[unit]) / 2 for x in a for y in b]
        assert found[unit] == pytest.approx(np.mean(wins))
        u = mannwhitneyu([x[unit] for x in a], [y[unit] for y in b]).statistic
        assert found[unit] == pytest.approx(u / len(a) / len(b))


def test_auc_of_units_that_know_all_and_nothing():
    in_a = np.arange(10) < 4
    values = np.stack([in_a, ~in_a, np.full(10, 0.3)], 1).astype(float)
    assert unit_auc(values, in_a, ~in_a).tolist() == [1.0, 0.0, 0.5]


def test_auc_without_tokens_is_an_error():
    with pytest.raises(ValueError, match="groups have 3 and 0 tokens"):
        unit_auc(np.zeros((3, 2)), np.ones(3, dtype=bool), np.zeros(3, dtype=bool))


def test_the_list_of_function_words_agrees_with_the_grammar():
    """But for numerals and the adverb "then", which can be seen either way."""
    content = {"noun", "verb", "adjective", "adverb", "punctuation"}
    odd = {
        word
        for sentence in generate(3000)
        for word, kind in zip(sentence.tokens, sentence.word_classes, strict=True)
        if kind != "punctuation" and (word in FUNCTION_WORDS) == (kind in content)
    }
    assert odd <= {"two", "three", "then"}
    assert all(word == word.lower() for word in FUNCTION_WORDS)
