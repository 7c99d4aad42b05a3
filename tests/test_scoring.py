"""BLEU, chrF and the paired bootstrap, against naive versions and sacreBLEU's own test."""

import math
import random
from collections import Counter

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU
from sacrebleu.significance import PairedTest

from g2lstm.scoring import (
    bleu_from_statistics,
    bleu_statistics,
    paired_bootstrap,
    score,
)

REFERENCES = [
    "The miller's cat, they said, is asleep.",
    'She called it "a fine day" and left.',
    "I'm sure the bridge isn't open (yet).",
    "Tea & bread: that is all we need!",
]
HYPOTHESES = [
    "The miller's cat is asleep, they said.",
    'She called it "a fine day" and left.',
    "I'm sure that the bridge isn't open.",
    "Bread is all we need!",
]
TOKENISED = [
    "The miller &apos;s cat , they said , is asleep .",
    "She called it &quot; a fine day &quot; and left .",
    "I &apos;m sure the bridge isn &apos;t open ( yet ) .",
    "Tea &amp; bread : that is all we need !",
]
TOKENISED_HYPOTHESES = [
    "The miller &apos;s cat is asleep , they said .",
    "She called it &quot; a fine day &quot; and left .",
    "I &apos;m sure that the bridge isn &apos;t open .",
    "Bread is all we need !",
]
WORDS = st.lists(st.sampled_from(["tree", "river", "stone", "bird"]), min_size=1, max_size=9)
PAIRS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=6)


def ngrams(words, n):
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def naive_bleu(pairs, smooth):
    """Papineni et al. (2002); `smooth` halves the count of an order without matches, and again."""
    brevity = sum(len(r) for _, r in pairs) / sum(len(h) for h, _ in pairs)
    product, halving = 1.0, 1
    for n in range(1, 5):
        total = sum(ngrams(h, n).total() for h, _ in pairs)
        matches = sum((ngrams(h, n) & ngrams(r, n)).total() for h, r in pairs)
        if n == 1 and not matches:
            return 0.0
        if not matches and total and smooth:
            halving *= 2
            matches = 1 / halving
        product *= matches / total if total else 0.0
    return 100 * product**0.25 * min(1.0, math.exp(1 - brevity))


def noisy(sentences, rate, seed):
    """The sentences with some of their words replaced."""
    source = random.Random(seed)
    return [
        " ".join("noise" if source.random() < rate else word for word in sentence.split())
        for sentence in sentences
    ]


@pytest.fixture(scope="module")
def systems():
    source = random.Random(5)
    words = ["the", "old", "miller", ",", "his", "cat", "and", "a", "bridge", "is", "far", "."]
    references = [" ".join(source.choices(words, k=source.randint(3, 20))) for _ in range(150)]
    return references, {
        "good": noisy(references, 0.3, 1),
        "as good": noisy(references, 0.31, 2),
        "bad": noisy(references, 0.4, 3),
    }


# Scores


@given(PAIRS)
def test_bleu_and_tokenised_bleu_are_those_of_naive_versions(pairs):
    hypotheses, references = (
        [" ".join(words) for words in side] for side in zip(*pairs, strict=True)
    )
    scores = score(hypotheses, references, tokenised="moses")
    assert scores.bleu == pytest.approx(naive_bleu(pairs, smooth=True), abs=1e-9)
    assert scores.tokenised_bleu == pytest.approx(naive_bleu(pairs, smooth=False), abs=1e-9)
    assert scores.exact == sum(h == r for h, r in pairs) / len(pairs)


def test_perfect_and_hopeless_translations():
    perfect = score(REFERENCES, REFERENCES)
    assert perfect.bleu == pytest.approx(100)
    assert perfect.chrf == pytest.approx(100)
    assert perfect.exact == 1
    assert perfect.tokenised_bleu is None
    assert perfect.tokenised_bleu_signature is None
    hopeless = score([""] * 4, REFERENCES)
    assert (hopeless.bleu, hopeless.chrf, hopeless.exact) == (0, 0, 0)
    assert score(HYPOTHESES, REFERENCES).exact == 0.25


def test_chrf_by_hand():
    # Of orders 1 to 4: 3 of 4, 2 of 3, 1 of 2, 0 of 1; white space does not count.
    assert score(["ab cd"], ["abce"]).chrf == pytest.approx(100 * (3 / 4 + 2 / 3 + 1 / 2) / 4)


def test_case_counts():
    lower = [sentence.lower() for sentence in REFERENCES]
    assert score(lower, REFERENCES).bleu < 90
    assert score(lower, REFERENCES).chrf < 99


def test_signatures_say_how_it_was_scored():
    version = f"version:{sacrebleu.__version__}"
    scores = score(TOKENISED, TOKENISED, tokenised="moses")
    assert scores.bleu_signature == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    assert scores.chrf_signature == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|{version}"
    assert scores.tokenised_bleu_signature == (
        f"nrefs:1|case:mixed|eff:no|tok:none|smooth:none|{version}"
    )


def test_tokenised_text_is_scored_as_the_raw_text():
    raw = score(HYPOTHESES, REFERENCES)
    scores = score(TOKENISED_HYPOTHESES, TOKENISED, tokenised="moses", language="en")
    assert (scores.bleu, scores.chrf, scores.exact) == (raw.bleu, raw.chrf, raw.exact)
    pairs = [(h.split(), r.split()) for h, r in zip(TOKENISED_HYPOTHESES, TOKENISED, strict=True)]
    assert scores.tokenised_bleu == pytest.approx(naive_bleu(pairs, smooth=False))
    assert scores.tokenised_bleu != pytest.approx(scores.bleu, abs=0.1)


def test_detokenising_follows_the_language():
    english = score(TOKENISED_HYPOTHESES, TOKENISED, tokenised="moses", language="en")
    german = score(TOKENISED_HYPOTHESES, TOKENISED, tokenised="moses", language="de")
    assert english.bleu != german.bleu  # "I'm" is put together in English alone
    tokens = ["Er sagte : &quot; Das ist &apos;s ! &quot;"]
    assert score(['Er sagte: "Das ist \'s!"'], ['Er sagte: "Das ist \'s!"']).bleu == (
        score(tokens, tokens, tokenised="moses", language="de").bleu
    )


# Statistics


@pytest.mark.parametrize(
    ("hypotheses", "references", "tokenised"),
    [(HYPOTHESES, REFERENCES, None), (TOKENISED_HYPOTHESES, TOKENISED, "moses")],
)
def test_statistics_sum_to_the_corpus_score(hypotheses, references, tokenised):
    statistics = bleu_statistics(hypotheses, references, tokenised)
    assert statistics.shape == (4, 10)
    assert statistics.dtype == np.int64
    expected = BLEU().corpus_score(HYPOTHESES, [REFERENCES])
    assert statistics.sum(axis=0).tolist() == [
        *(expected.sys_len, expected.ref_len, *expected.counts, *expected.totals)
    ]
    scores = score(hypotheses, references, tokenised)
    assert bleu_from_statistics(statistics) == scores.bleu == expected.score
    part = score(hypotheses[1:3], references[1:3], tokenised)
    assert bleu_from_statistics(statistics[1:3]) == part.bleu


@given(PAIRS)
def test_bleu_from_statistics_is_that_of_score(pairs):
    hypotheses, references = (
        [" ".join(words) for words in side] for side in zip(*pairs, strict=True)
    )
    statistics = bleu_statistics(hypotheses, references)
    assert bleu_from_statistics(statistics) == score(hypotheses, references).bleu
    for row, (hypothesis, reference) in zip(statistics.tolist(), pairs, strict=True):
        orders = range(1, 5)
        assert row == [
            *(len(hypothesis), len(reference)),
            *((ngrams(hypothesis, n) & ngrams(reference, n)).total() for n in orders),
            *(ngrams(hypothesis, n).total() for n in orders),
        ]


# Bootstrap


def test_bootstrap_is_that_of_sacrebleu(systems, monkeypatch):
    references, hypotheses = systems
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    test = PairedTest(
        list(hypotheses.items()), {"BLEU": BLEU(force=True)}, [references], "bs", n_samples=200
    )
    expected = test()[1]["BLEU"]
    statistics = {name: bleu_statistics(text, references) for name, text in hypotheses.items()}
    table = paired_bootstrap(statistics, baseline="good", samples=200, seed=7)
    assert table["model"].tolist() == ["good", "as good", "bad"]
    for row, result in zip(table.itertuples(), expected, strict=True):
        assert row.bleu == pytest.approx(result.score)
        assert row.mean == pytest.approx(result.mean)
        assert (row.ci_high - row.ci_low) / 2 == pytest.approx(result.ci)
        assert row.difference == pytest.approx(row.bleu - expected[0].score)
    assert np.isnan(table["p_value"][0])
    assert table["p_value"][1:].tolist() == [expected[1].p_value, expected[2].p_value]
    assert table["p_value"][1] > 0.05 > 0.01 > table["p_value"][2]
    assert (table["ci_low"] < table["mean"]).all()
    assert (table["mean"] < table["ci_high"]).all()


def test_bootstrap_repeats_itself(systems):
    references, hypotheses = systems
    statistics = {name: bleu_statistics(text, references) for name, text in hypotheses.items()}
    first = paired_bootstrap(statistics, "bad", samples=50)
    assert first.equals(paired_bootstrap(statistics, "bad", samples=50))
    assert not first.equals(paired_bootstrap(statistics, "bad", samples=50, seed=1))
    assert first["difference"][0] > 0
    assert np.isnan(first["p_value"][2])


def test_equal_models_do_not_differ(systems):
    references, hypotheses = systems
    statistics = bleu_statistics(hypotheses["good"], references)
    table = paired_bootstrap({"a": statistics, "b": statistics.copy()}, "a", samples=50)
    assert table["difference"][1] == 0
    assert table["p_value"][1] == 1


# Errors


@pytest.mark.parametrize("function", [score, bleu_statistics])
def test_sentences_that_cannot_be_scored(function):
    with pytest.raises(ValueError, match="3 translations for 4 references"):
        function(HYPOTHESES[:3], REFERENCES)
    with pytest.raises(ValueError, match="no sentences"):
        function([], [])
    with pytest.raises(ValueError, match="tokenised is 'penn'"):
        function(HYPOTHESES, REFERENCES, tokenised="penn")
    with pytest.raises(TypeError, match="got a string"):
        function("a sentence", ["a sentence"])


def test_models_that_cannot_be_compared():
    statistics = bleu_statistics(HYPOTHESES, REFERENCES)
    other = bleu_statistics(HYPOTHESES[::-1], REFERENCES[::-1])
    with pytest.raises(ValueError, match="unknown baseline 'lstm'; models: a, b"):
        paired_bootstrap({"a": statistics, "b": statistics}, "lstm")
    with pytest.raises(ValueError, match=r"'b' \(4 sentences\) and 'a' \(4\) were not scored on"):
        paired_bootstrap({"a": statistics, "b": other}, "a")
    with pytest.raises(ValueError, match=r"'b' \(3 sentences\) and 'a' \(4\)"):
        paired_bootstrap({"a": statistics, "b": statistics[:3]}, "a")
    with pytest.raises(ValueError, match="samples is 0"):
        paired_bootstrap({"a": statistics}, "a", samples=0)


@pytest.mark.parametrize("shape", [(0, 10), (3, 9), (10,)])
def test_statistics_of_another_shape(shape):
    with pytest.raises(ValueError, match="statistics are"):
        bleu_from_statistics(np.zeros(shape, dtype=np.int64))


def test_case_insensitive_bleu_is_that_of_the_text_in_lower_case():
    upper = [
        " ".join(word if word.startswith("&") else word.upper() for word in text.split())
        for text in TOKENISED_HYPOTHESES
    ]
    found = score(upper, TOKENISED, "moses")
    lower = score([text.lower() for text in upper], [text.lower() for text in TOKENISED], "moses")
    assert found.bleu < found.bleu_lc == pytest.approx(lower.bleu)
    assert found.tokenised_bleu < found.tokenised_bleu_lc == pytest.approx(lower.tokenised_bleu)
    assert "case:lc" in found.bleu_lc_signature
    plain = score([text.upper() for text in HYPOTHESES], REFERENCES)
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], lowercase=True).score
    assert plain.bleu_lc == pytest.approx(expected)
    assert plain.tokenised_bleu_lc is None
