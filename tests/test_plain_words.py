"""The summary says what the numbers say, in few words."""

import math
from dataclasses import replace

import pytest

from g2lstm.claims import judge
from g2lstm.paper import TABLES
from g2lstm.plain_words import in_plain_words
from g2lstm.verdicts import FAILS, HOLDS, OPEN
from sources import ROOT
from test_claims import evidence

LONGEST = 200  # words


def words_of(*parts):
    return in_plain_words(parts, [statistic for part in parts for statistic in judge(part)])


def test_the_papers_own_numbers_in_words():
    words = words_of(evidence())
    assert "**grammar** (3 seeds): the LSTM's test perplexity is 52.80 ± " in words
    assert "G2-LSTM's 1.3% lower (95% interval: 1." in words
    assert "paper, Penn Treebank: 1.3% lower" in words
    assert "the sharpened sigmoid's 0.8% higher (seeds: +0." in words
    for gate, name in (("sigmoid", "LSTM"), ("gumbel", "G2-LSTM")):
        result, *compressed = TABLES["Penn Treebank"][gate].values()
        cost = 100 * (math.prod(compressed) ** (1 / 4) / result - 1)
        assert f" {cost:+.1f}% ({name})" in words
    assert "Gate values near 0 or 1: 70% in G2-LSTM, 20% in the LSTM" in words
    assert "Claims 1 to 5: on grammar holds (1, 2, 3, 4, 5)." in words
    assert "grammar: 1.5 million parameters, 2 epochs." in words


def test_bleu_is_in_points():
    words = words_of(evidence("translation", results={"gumbel": {"result": 29.0}}))
    assert "test BLEU is 31.00" in words
    assert "G2-LSTM's 2.00 lower (95% interval: 2.01 lower to " in words
    assert "paper, IWSLT'14 de-en: 0.95 higher" in words
    assert "does not hold (1, 5)" in words


def test_the_cache_pointer_is_named():
    part = evidence()
    for run in part.runs.values():
        run.summary["test_perplexity_with_cache"] = 1.0
    assert "the LSTM's test perplexity with cache pointer is" in words_of(part)


def test_one_seed_decides_nothing():
    words = words_of(evidence(seeds=(7,)))
    assert "(1 seed, which decides nothing)" in words
    assert "interval" not in words
    assert "±" not in words


def test_gates_that_are_missing_are_not_compared():
    part = evidence(seeds=(1, 2))
    for found in (part.runs, part.compression, part.alignment):
        del found["sharpened", 1], found["sharpened", 2]
    words = words_of(part)
    assert "(2 seeds)" in words
    assert "sharpened" not in words
    for found in (part.runs, part.compression, part.alignment):
        del found["sigmoid", 1], found["sigmoid", 2]
    assert "no runs of LSTM and G2-LSTM to compare" in words_of(part)


def test_two_corpora_at_their_widest_fit():
    """Every number with a spread, long names, all three verdicts on each corpus."""
    parts = [
        replace(evidence(task, results={"gumbel": {"result": 31.5}}), corpus=corpus)
        for task, corpus in (("language-model", "ptb"), ("translation", "multi30k-de-en"))
    ]
    for part in parts:
        for number, (key, row) in enumerate(sorted(part.compression.items())):
            row["result"]["value"] *= 1 + 0.03 * (number % 3)
            part.runs[key].summary["test_perplexity_with_cache"] = 1.0
    statistics = [statistic for part in parts for statistic in judge(part)]
    verdicts = [{s.verdict for s in statistics if s.corpus == part.corpus} for part in parts]
    assert set.union(*verdicts) == {HOLDS, FAILS, OPEN}
    assert len(in_plain_words(parts, statistics).split()) <= LONGEST


@pytest.mark.parametrize("report", sorted(ROOT.glob("results/*/report.md")), ids=str)
def test_published_summaries_are_short(report):
    text = report.read_text(encoding="utf-8")
    summary = text[text.index("## In plain words") : text.index("## Results")]
    assert len(summary.split()) <= LONGEST
