"""Effects over seeds, and their verdicts by the rule of `verdict_rule`."""

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from scipy.special import ndtri, stdtr, stdtrit

from g2lstm.verdict_rule import (
    AS_PAPER,
    CONFIDENCE,
    EQUIVALENCE,
    MARGIN,
    MOST_SEEDS,
    NO_PAPER,
    NONE,
    NOT_MEASURED,
    OPEN,
    OPPOSITE,
    POWER,
    RESOLUTION,
    WEAKER,
)


@dataclass(frozen=True)
class Effect:
    """A mean, or a difference of two, with standard error and degrees of freedom."""

    mean: float
    error: float
    freedom: float

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Student's interval."""
        half = float(stdtrit(self.freedom, (1 + confidence) / 2)) * self.error
        return self.mean - half, self.mean + half

    def p_above(self, bound: float) -> float:
        """One-sided p value of the hypothesis that the mean is at most ``bound``."""
        if self.error == 0:
            return 0.0 if self.mean > bound else 1.0
        return float(stdtr(self.freedom, (bound - self.mean) / self.error))


def welch(ours: Sequence[float], others: Sequence[float]) -> Effect | None:
    """Difference of two means, each with its own variance; None with a single value of one."""
    if min(len(ours), len(others)) < 2:
        return None
    difference = fmean(ours) - fmean(others)
    return _welch(difference, (variance(ours), len(ours)), (variance(others), len(others)))


def _welch(difference: float, *samples: tuple[float, int]) -> Effect:
    """By Welch and Satterthwaite, of the variance and size of each sample."""
    parts = [spread / size for spread, size in samples]
    if not sum(parts):
        return Effect(difference, 0.0, 1.0)
    below = sum(part**2 / (size - 1) for part, (_, size) in zip(parts, samples, strict=True))
    return Effect(difference, math.sqrt(sum(parts)), sum(parts) ** 2 / below)


def paired(ours: Mapping[int, float], others: Mapping[int, float]) -> Effect | None:
    """Mean difference over the seeds that both have; None with fewer than two."""
    differences = [ours[seed] - others[seed] for seed in ours if seed in others]
    if len(differences) < 2:
        return None
    count = len(differences)
    return Effect(fmean(differences), math.sqrt(variance(differences) / count), count - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected by Holm's method, in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def p_values(effect: Effect, paper: float) -> tuple[float, float]:
    """Two-sided p values of the rule's two questions: beyond the margin? which side of 0?"""
    effect, paper = _towards_paper(effect, paper)
    beyond, above = effect.p_above(MARGIN * paper), effect.p_above(0.0)
    below = Effect(-effect.mean, effect.error, effect.freedom).p_above(0.0)
    return min(1.0, 2 * beyond), min(1.0, 2 * min(above, below))


def decide(effect: Effect, paper: float, factors: tuple[float, float] = (1.0, 1.0)) -> str:
    """The verdict on an effect.

    Args:
        effect: ours.
        paper: the paper's effect; not 0.
        factors: by which Holm's method raises the two `p_values`.
    """
    beyond, side = (p * f for p, f in zip(p_values(effect, paper), factors, strict=True))
    effect, paper = _towards_paper(effect, paper)
    alpha, margin = 1 - CONFIDENCE, MARGIN * paper
    low, high = effect.interval(EQUIVALENCE)
    if beyond < alpha:
        return AS_PAPER
    if side < alpha and effect.mean > 0 and effect.interval()[1] < paper:
        return WEAKER
    if -margin < low and high < margin:
        return NONE
    if side < alpha and effect.mean < 0:
        return OPPOSITE
    return OPEN


def _towards_paper(effect: Effect, paper: float) -> tuple[Effect, float]:
    """Both with the sign that makes the paper's positive."""
    sign = math.copysign(1.0, paper)
    return Effect(sign * effect.mean, effect.error, effect.freedom), abs(paper)


def seeds_needed(
    ours: Sequence[float],
    others: Sequence[float],
    paper: float,
    factors: tuple[float, float] = (1.0, 1.0),
) -> int | None:
    """Seeds for each model that would decide an open verdict, by the rule's estimate.

    Args:
        ours, others: the values seen, two or more of each.
        paper, factors: see `decide`.

    Returns:
        None: more than `MOST_SEEDS`.
    """
    mean, spreads = fmean(ours) - fmean(others), (variance(ours), variance(others))
    for count in range(max(len(ours), len(others)) + 1, MOST_SEEDS + 1):
        effect = _welch(mean, *((spread, count) for spread in spreads))
        shift = float(ndtri((1 + POWER) / 2)) * effect.error
        likely = (Effect(mean + by, effect.error, effect.freedom) for by in (-shift, shift))
        if all(decide(one, paper, factors) != OPEN for one in likely):
            return count
    return None


@dataclass(frozen=True)
class Statistic:
    """A difference between two models on one corpus, with a value of each run.

    Attributes:
        number: of the primary statistic, 1 to 5; None: secondary.
        claim: number of the claim that it is about.
        task: "language-model" or "translation".
        corpus: label of the corpus.
        name: what is measured, in words.
        unit: of the values.
        noise: probability p of G2-LSTM's noise.
        ours, others: values of the two models, by seed; empty: not measured.
        paper: the paper's effect; None where it gives none.
    """

    number: int | None
    claim: int
    task: str
    corpus: str
    name: str
    unit: str
    noise: float | None
    ours: Mapping[int, float]
    others: Mapping[int, float]
    paper: float | None = None

    @property
    def effect(self) -> Effect | None:
        return welch(tuple(self.ours.values()), tuple(self.others.values()))

    def without(self, seeds: Set[int]) -> dict[str, Any] | None:
        """Mean and interval without these seeds; None where none of them is among ours."""
        if not seeds & (self.ours.keys() | self.others.keys()):
            return None
        samples = (self.ours, self.others)
        left = [{s: v for s, v in values.items() if s not in seeds} for values in samples]
        return _estimate(*left) if all(left) else None


def _estimate(ours: Mapping[int, float], others: Mapping[int, float]) -> dict[str, Any]:
    samples = tuple(ours.values()), tuple(others.values())
    effect = welch(*samples)
    return {
        "seeds": [list(ours), list(others)],
        "mean": fmean(samples[0]) - fmean(samples[1]),
        "interval": None if effect is None else effect.interval(),
    }


def judge(statistics: Iterable[Statistic], tuning_seeds: Set[int] = frozenset()) -> list[dict]:
    """Each statistic with its numbers and verdict, as JSON values, in the order given.

    Args:
        statistics: of one corpus; the primary ones of the same ``noise`` are corrected together.
        tuning_seeds: on which the settings were chosen.

    Returns:
        A dict a statistic: its attributes; ``mean`` and ``interval`` by Welch, ``interval_90``,
        ``paired`` (interval), ``share`` (of the paper's effect), ``without_tuning_seeds``; of a
        primary one ``verdict``, where that is open ``seeds_needed``, and ``side``: "the paper's" or
        "the other" if it is proven, by Holm's correction, on which side of 0 the effect lies.
    """
    statistics = list(statistics)
    families: dict[float | None, list[Statistic]] = {}
    for one in statistics:
        if _comparable(one):
            families.setdefault(one.noise, []).append(one)
    factors = {id(one): pair for family in families.values() for one, pair in _factors(family)}
    return [_judged(one, factors.get(id(one)), tuning_seeds) for one in statistics]


def _comparable(one: Statistic) -> bool:
    known = one.paper is not None and abs(one.paper) > RESOLUTION[one.unit]
    return one.number is not None and known and one.effect is not None


def _factors(family: Sequence[Statistic]) -> Iterable[tuple[Statistic, tuple[float, float]]]:
    questions = list(zip(*(p_values(one.effect, one.paper) for one in family), strict=True))
    corrected = [holm(question) for question in questions]
    for place, one in enumerate(family):
        pairs = ((q[place], c[place]) for q, c in zip(questions, corrected, strict=True))
        yield one, tuple(after / before if before else 1.0 for before, after in pairs)


def _judged(
    one: Statistic, factors: tuple[float, float] | None, tuning_seeds: Set[int]
) -> dict[str, Any]:
    about = {
        name: getattr(one, name)
        for name in ("number", "claim", "task", "corpus", "name", "unit", "noise", "paper")
    }
    if not (one.ours and one.others):
        return about | {"verdict": NOT_MEASURED}
    effect, by_seed = one.effect, paired(one.ours, one.others)
    about |= _estimate(one.ours, one.others) | {
        "values": [list(one.ours.values()), list(one.others.values())],
        "interval_90": None if effect is None else effect.interval(EQUIVALENCE),
        "paired": None if by_seed is None else by_seed.interval(),
        "without_tuning_seeds": one.without(tuning_seeds),
    }
    about["share"] = about["mean"] / one.paper if one.paper else None
    if one.number is None:
        return about
    if factors is None:
        known = one.paper is not None and abs(one.paper) > RESOLUTION[one.unit]
        return about | {"verdict": OPEN if known else NO_PAPER, "seeds_needed": None, "side": None}
    verdict = decide(effect, one.paper, factors)
    proven = p_values(effect, one.paper)[1] * factors[1] < 1 - CONFIDENCE
    side = None
    if proven:
        side = "the paper's" if about["share"] > 0 else "the other"
    needed = None
    if verdict == OPEN:
        samples = tuple(one.ours.values()), tuple(one.others.values())
        needed = seeds_needed(*samples, one.paper, factors)
    return about | {"verdict": verdict, "seeds_needed": needed, "side": side}
