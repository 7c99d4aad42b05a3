"""Verdicts by the rule: scipy's tests as oracle, and every boundary case by hand."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from g2lstm.verdict_rule import (
    AS_PAPER,
    NO_PAPER,
    NONE,
    NOT_MEASURED,
    OPEN,
    OPPOSITE,
    WEAKER,
)
from g2lstm.verdicts import Effect, Statistic, decide, holm, judge, paired, seeds_needed, welch

VALUES = st.lists(st.floats(-10, 10, allow_subnormal=False), min_size=2, max_size=8)


def effect(low, high, freedom=1e9):
    """An effect with this 95 % interval; with many degrees of freedom it is the normal one."""
    return Effect((low + high) / 2, (high - low) / 2 / 1.959964, freedom)


@given(VALUES, VALUES)
def test_welch_is_scipys(ours, others):
    assume(min(np.std(ours), np.std(others)) > 1e-3)
    found, known = welch(ours, others), stats.ttest_ind(ours, others, equal_var=False)
    assert found.interval(0.95) == pytest.approx(tuple(known.confidence_interval(0.95)), rel=1e-6)
    above = stats.ttest_ind(ours, np.array(others) + 0.5, equal_var=False, alternative="greater")
    assert found.p_above(0.5) == pytest.approx(above.pvalue, rel=1e-6, abs=1e-12)


@given(st.dictionaries(st.integers(1, 9), st.floats(-10, 10), min_size=2), st.data())
def test_paired_is_scipys_over_the_seeds_that_both_have(ours, data):
    others = {seed: data.draw(st.floats(-10, 10)) for seed in ours} | {100: 3.0}
    differences = [ours[seed] - others[seed] for seed in ours]
    assume(np.std(differences) > 1e-3)
    found = paired(ours | {200: 1.0}, others).interval()
    known = stats.ttest_1samp(differences, 0).confidence_interval(0.95)
    assert found == pytest.approx(tuple(known), rel=1e-6)


def test_what_has_no_spread():
    assert welch([1.0], [1.0, 2.0]) is None
    assert paired({1: 1.0}, {1: 2.0, 2: 3.0}) is None
    same = welch([2.0, 2.0], [1.0, 1.0])
    assert same.interval() == (1.0, 1.0)
    assert (decide(same, 1.0), decide(same, 4.0), decide(same, -1.0)) == (
        AS_PAPER, WEAKER, OPPOSITE,
    )  # fmt: skip
    assert decide(same, 2.0) == WEAKER, "exactly on the margin is not beyond it"
    assert decide(welch([1.0, 1.0], [1.0, 1.0]), 0.1) == NONE, "exactly 0 is on neither side"


@pytest.mark.parametrize(
    ("ends", "verdict"),
    [
        ((0.6, 0.9), AS_PAPER),
        ((0.6, 3.0), AS_PAPER),
        ((0.1, 0.9), WEAKER),
        ((0.01, 0.02), WEAKER),  # within the margin too: this comes first
        ((0.1, 1.1), OPEN),  # more than nothing, but the paper's effect is not excluded
        ((-0.1, 0.4), NONE),
        ((-0.02, -0.01), NONE),  # proven, but within the margin
        ((-0.58, 0.2), OPEN),
        ((-0.9, -0.1), OPPOSITE),
        ((-0.1, 0.9), OPEN),
    ],
)
def test_the_verdict_on_an_interval(ends, verdict):
    assert decide(effect(*ends), 1.0) == verdict
    mirrored = effect(-ends[1], -ends[0])
    assert decide(mirrored, -1.0) == verdict, "the paper's effect may be negative"
    half = effect(*(0.5 * end for end in ends))
    assert decide(half, 0.5) == verdict, "only the ratio to the paper's effect matters"


def test_equivalence_is_by_the_interval_of_90_percent():
    ends = (-0.55, 0.55)
    assert effect(*ends).interval(0.9)[1] < 0.5
    assert decide(effect(*ends), 1.0) == NONE


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=6))
def test_holm_rejects_what_stepping_down_rejects(values):
    corrected = holm(values)
    rejected = set()
    for rank, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        if values[place] * (len(values) - rank) >= 0.05:
            break
        rejected.add(place)
    assert {place for place, value in enumerate(corrected) if value < 0.05} == rejected


def statistic(ours, others=(0.0, 0.001, -0.001), number=1, paper=1.0, noise=0.2, unit="BLEU"):
    ours, others = (dict(enumerate(values, start=1)) for values in (ours, others))
    return Statistic(
        number, 1, "translation", "corpus", f"number {number}", unit, noise, ours, others, paper
    )


def test_the_correction_is_over_the_statistics_of_one_p_alone():
    weak = [0.45, 0.25, 0.35]  # of p about 0.03: on its side of 0, if not corrected
    alone = judge([statistic(weak, paper=2.0)])[0]
    assert (alone["verdict"], alone["side"]) == (WEAKER, "the paper's")
    noise = [statistic([0.3, -0.3, 0.01], number=n) for n in (2, 3, 4, 5)]
    among = judge([statistic(weak, paper=0.55), *noise])[0]
    assert (among["verdict"], among["side"]) == (OPEN, None)
    assert among["interval"][0] > 0, "the interval printed is not corrected"
    others = judge([statistic(weak, paper=2.0), *(replaced(one, 1.0) for one in noise)])[0]
    assert others["verdict"] == WEAKER


def replaced(one, noise):
    return Statistic(**(vars(one) | {"noise": noise}))


def test_what_cannot_be_judged():
    rows = judge(
        [
            statistic([1.0]),
            statistic([]),
            statistic([1.0, 1.1], paper=None),
            statistic([1.0, 1.1], paper=0.0),
            statistic([1.0, 1.1], paper=0.01),
            statistic([1.0, 1.1], number=None),
        ]
    )
    verdicts = [row.get("verdict") for row in rows]
    assert verdicts == [OPEN, NOT_MEASURED, NO_PAPER, NO_PAPER, NO_PAPER, None]
    assert rows[0]["seeds_needed"] is None
    assert rows[0]["interval"] is None
    assert rows[0]["mean"] == pytest.approx(1.0)


def test_seeds_of_tuning_are_set_apart():
    (row,) = judge([statistic([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])], frozenset({1}))
    assert row["mean"] == pytest.approx(2.0)
    left = row["without_tuning_seeds"]
    assert left["seeds"] == [[2, 3], [2, 3]]
    assert left["mean"] == pytest.approx(2.5)
    assert judge([statistic([1.0, 2.0])], frozenset({7}))[0]["without_tuning_seeds"] is None


def test_the_number_of_seeds_decides_in_most_repetitions():
    rng = np.random.default_rng(0)
    ours, others = [0.5, -0.5, 0.1], [0.4, -0.5, -0.1]
    needed = seeds_needed(ours, others, 1.0)
    assert decide(welch(ours, others), 1.0) == OPEN

    def decided(seeds):
        draws = (
            [rng.normal(np.mean(part), np.std(part, ddof=1), seeds) for part in (ours, others)]
            for _ in range(400)
        )
        return np.mean([decide(welch(*draw), 1.0) != OPEN for draw in draws])

    assert decided(needed) > 0.75
    assert decided(needed // 2) < 0.75
    assert seeds_needed([0.25, 0.75], [0.0, 0.0], 1.0) is not None
    assert seeds_needed([9.0, -9.0], [9.0, -9.0], 0.1) is None
