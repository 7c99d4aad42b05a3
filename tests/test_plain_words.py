"""The summary says what the numbers say, in few words."""

import math

import pytest

from g2lstm.claims import judge
from g2lstm.paper import TABLES
from g2lstm.plain_words import in_plain_words
from sources import ROOT
from test_claims import evidence

LONGEST = 200  # words


def words_of(*parts):
    return in_plain_words(parts, [statistic for part in parts for statistic in judge(part)])


def test_the_papers_own_numbers_in_words():
    words = words_of(evidence())
    assert "**grammar** (3 seeds): the LSTM's test perplexity is 52.80 ± " in words
    assert "G2-LSTM's 1.3 % lower (95 % interval 1." in words
    assert "in the paper, on Penn Treebank, 1.3 % lower" in words
    assert "the sharpened sigmoid's 0.8 % higher" in words
    for gate, whose in (("sigmoid", "the LSTM's"), ("gumbel", "G2-LSTM's")):
        result, *compressed = TABLES["Penn Treebank"][gate].values()
        cost = 100 * (math.prod(compressed) ** (1 / 4) / result - 1)
        assert f"{whose} by {cost:+.1f} %" in words
    assert "70 % of G2-LSTM's gate values are near 0 or 1, 20 % of the LSTM's" in words
    assert "Verdicts on claims 1 to 5: on grammar holds (1, 2, 3, 4, 5)." in words
    assert "Models of 1.5 million parameters, 2 epochs" in words


def test_bleu_is_in_points():
    words = words_of(evidence("translation", results={"gumbel": {"result": 29.0}}))
    assert "test BLEU is 31.00" in words
    assert "G2-LSTM's 2.0 lower (95 % interval 2.0 lower to 2.0 lower" in words
    assert "in the paper, on IWSLT'14 de-en, 0.9 higher" in words
    assert "does not hold (1, 5)" in words


def test_one_seed_has_no_interval():
    words = words_of(evidence(seeds=(7,)))
    assert "(1 seed)" in words
    assert "interval" not in words
    assert "±" not in words


def test_seeds_without_all_gates_are_not_compared():
    part = evidence(seeds=(1,))
    for gate in ("sharpened", "sigmoid"):
        for found in (part.runs, part.compression, part.alignment):
            del found[gate, 1]
    assert "nothing to compare" in words_of(part)


@pytest.mark.parametrize("report", sorted(ROOT.glob("results/*/report.md")), ids=str)
def test_published_summaries_are_short(report):
    text = report.read_text(encoding="utf-8")
    summary = text[text.index("## In plain words") : text.index("## Results")]
    assert len(summary.split()) <= LONGEST
