"""Verdicts: intervals as scipy's, and the rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from g2lstm.paper import CLAIMS
from g2lstm.verdicts import FAILS, HOLDS, OPEN, RULE, Statistic, verdict_of, verdict_rows


def statistic(values, side="below", threshold=0.0, claim=1, corpus="grammar"):
    return Statistic(
        claim, "language-model", corpus, "a difference", "nats", side, threshold,
        tuple(values), tuple(range(1, len(values) + 1)),
    )  # fmt: skip


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-5, 5))
def test_interval_is_students_and_decides(values, threshold):
    part = statistic(values, threshold=threshold)
    if np.std(values) < 1e-6:
        return
    low, high = stats.t.interval(
        0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values)
    )
    assert part.interval == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    expected = HOLDS if high < threshold else FAILS if low > threshold else OPEN
    assert part.verdict == expected
    mirrored = statistic([-v for v in values], "above", -threshold)
    assert mirrored.verdict == expected


def test_one_seed_is_never_enough():
    part = statistic([-100.0])
    assert part.interval is None
    assert part.verdict == OPEN


def test_a_claim_needs_all_its_statistics():
    holds, fails, open_ = statistic([-1.0, -1.1]), statistic([1.0, 1.1]), statistic([-1.0, 1.0])
    assert [p.verdict for p in (holds, fails, open_)] == [HOLDS, FAILS, OPEN]
    assert verdict_of([holds, holds]) == HOLDS
    assert verdict_of([holds, open_]) == OPEN
    assert verdict_of([holds, open_, fails]) == FAILS
    assert verdict_of([]) == OPEN


def test_rows_of_verdicts_name_claim_corpus_and_least_seeds():
    rows = verdict_rows([statistic([-1.0, -1.1]), statistic([-1.0], corpus="ptb", claim=2)])
    assert [(r["claim"], r["corpus"], r["seeds"], r["verdict"]) for r in rows] == [
        (1, "grammar", 2, HOLDS),
        (2, "ptb", 1, OPEN),
    ]
    assert rows[0]["text"] == CLAIMS[1]


def test_the_rule_names_its_thresholds():
    for text in ("95%", "0.01 nats", "0.5 BLEU", "0.05 nats", "1 BLEU", "within 0.1"):
        assert text in RULE.replace("\n", " "), text
