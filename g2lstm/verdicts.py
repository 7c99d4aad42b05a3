"""Verdicts over seeds, by a rule written down before the runs that it judges."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.stats import t as student

from g2lstm.paper import CLAIMS

HOLDS, FAILS, OPEN = "holds", "does not hold", "not enough evidence"
CONFIDENCE = 0.95
AS_GOOD = {"language-model": 0.01, "translation": 0.5}  # nats a token, BLEU
COMPARABLE = {"language-model": 0.05, "translation": 1.0}
UNITS = {"language-model": "nats a token", "translation": "BLEU"}

RULE = f"""\
A claim is taken apart into statistics, each with a side of a threshold on which the claim puts it.
A statistic has one value a seed; what compares two models takes the difference between runs of the
same seed. From these values come the mean and its {CONFIDENCE:.0%} confidence interval (Student's t
over the seeds). The statistic **holds** if the whole interval lies on the claim's side, **does not
hold** if all of it lies on the other side, and else, or with a single seed, there is **not enough
evidence**. A claim holds if all its statistics do, does not hold if one of them does not, and else
there is not enough evidence. Nothing is corrected for the number of statistics.

"As good" means: at most {AS_GOOD["language-model"]:g} nats a token (1 % of perplexity) or
{AS_GOOD["translation"]:g} BLEU worse; "comparable": {COMPARABLE["language-model"]:g} nats or
{COMPARABLE["translation"]:g} BLEU. What compression costs is the mean over the four columns of the
paper's table (round, round & clip, SVD, SVD+). Losses are logarithms of the test perplexity (with
the cache pointer where the preset has it); the generalisation gap is the log-perplexity on the test
text minus that on seen text, both without it. A gate value is near 0 or 1 if within 0.1. Effects
of words on gates are Cohen's d of the mean gate over all units.
"""


@dataclass(frozen=True)
class Statistic:
    """One part of a claim, for one task.

    Attributes:
        claim: number of the claim.
        task: "language-model" or "translation".
        corpus: label of the corpus.
        name: what is measured, in words.
        unit: of the values.
        side: "below" or "above" the threshold is where the claim puts it.
        threshold: see ``side``.
        values: one a seed, in the order of ``seeds``.
        seeds: of the values.
        paper: the value from the paper's own numbers; None where they give none.
    """

    claim: int
    task: str
    corpus: str
    name: str
    unit: str
    side: str
    threshold: float
    values: tuple[float, ...]
    seeds: tuple[int, ...]
    paper: float | None = None

    @property
    def mean(self) -> float:
        return fmean(self.values)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Confidence interval of the mean over seeds; None with a single seed."""
        n = len(self.values)
        if n < 2:
            return None
        half = student.ppf((1 + CONFIDENCE) / 2, n - 1) * stdev(self.values) / math.sqrt(n)
        return self.mean - half, self.mean + half

    @property
    def verdict(self) -> str:
        """By the rule: `HOLDS`, `FAILS` or `OPEN`."""
        if self.interval is None:
            return OPEN
        low, high = self.interval
        if self.side == "above":
            low, high, threshold = -high, -low, -self.threshold
        else:
            threshold = self.threshold
        return HOLDS if high < threshold else FAILS if low > threshold else OPEN

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        about = asdict(self)
        return about | {
            "mean": self.mean, "interval": self.interval, "verdict": self.verdict,
        }  # fmt: skip


def verdict_of(statistics: Iterable[Statistic]) -> str:
    """The verdict on a claim from those on its statistics, by the rule."""
    verdicts = [statistic.verdict for statistic in statistics]
    if FAILS in verdicts:
        return FAILS
    return HOLDS if verdicts and set(verdicts) == {HOLDS} else OPEN


def verdict_rows(statistics: Iterable[Statistic]) -> list[dict[str, Any]]:
    """A dict a claim and corpus: claim, text, task, corpus, seeds (fewest), statistics, how many
    of these hold, verdict.
    """
    groups: dict[tuple[int, str, str], list[Statistic]] = {}
    for statistic in statistics:
        groups.setdefault((statistic.claim, statistic.task, statistic.corpus), []).append(statistic)
    return [
        {
            "claim": claim,
            "text": CLAIMS[claim],
            "task": task,
            "corpus": corpus,
            "seeds": min(len(part.seeds) for part in parts),
            "statistics": len(parts),
            "holding": sum(part.verdict == HOLDS for part in parts),
            "verdict": verdict_of(parts),
        }
        for (claim, task, corpus), parts in sorted(groups.items())
    ]
