"""Do gate values line up with language? Contrasts between groups of tokens, and single units.

A contrast compares the mean gate value (over units) of two groups of tokens. Its effect size is
Cohen's d, its confidence interval comes from a bootstrap over sentences, whose tokens are not
independent of each other.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

# English function words: determiners, pronouns, prepositions, conjunctions, auxiliaries, particles;
# as they stand in tokenised, lower-cased text.
FUNCTION_WORDS = frozenset(
    """
    a an the this that these those each every some any no all both either neither another such
    many much more most few several
    my your his her its our their whose
    i you he she it we they me him us them who whom which what myself itself themselves himself
    herself yourself ourselves somebody someone something anybody anyone anything nobody none
    nothing everybody everyone everything
    of in to for on with at by from as into about than over under after before between through
    during against without within among across behind near up down out off toward towards until
    since per via upon along despite amid like above below beside inside outside onto
    and or but nor so yet if because although though while when whenever where
    whether unless once why how
    be is are was were been being am do does did done have has had having will would can could may
    cannot might must shall should ought
    not n't 't 's 're 've 'll 'd 'm ' there then too also
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Contrast:
    """Gate values of two groups of tokens, A and B, compared.

    Attributes:
        tokens_a, tokens_b: sizes of the groups.
        mean_a, mean_b: mean gate values.
        difference: mean_a - mean_b, with its 95 % confidence interval ``difference_low``,
            ``difference_high``.
        effect: Cohen's d, the difference in pooled standard deviations, with its interval
            ``effect_low``, ``effect_high``.
    """

    tokens_a: int
    tokens_b: int
    mean_a: float
    mean_b: float
    difference: float
    difference_low: float
    difference_high: float
    effect: float
    effect_low: float
    effect_high: float

    def as_dict(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return asdict(self)


def contrast(
    values: np.ndarray,
    in_a: np.ndarray,
    in_b: np.ndarray,
    sentences: np.ndarray,
    samples: int = 1000,
    seed: int = 0,
) -> Contrast | None:
    """Compare two groups of tokens.

    Args:
        values: [N] mean gate value of each token.
        in_a, in_b: [N] bool, which tokens belong to a group; no token to both.
        sentences: [N] integers, the sentence of each token: what the bootstrap draws.
        samples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The contrast; None where a group has fewer than two tokens.

    Raises:
        ValueError: arrays of different lengths, or a token in both groups.
    """
    values = np.asarray(values, dtype=float)
    in_a, in_b = np.asarray(in_a, dtype=bool), np.asarray(in_b, dtype=bool)
    if len({len(values), len(in_a), len(in_b), len(sentences)}) > 1:
        raise ValueError("values, groups and sentences differ in length")
    if (in_a & in_b).any():
        raise ValueError("a token is in both groups")
    if min(in_a.sum(), in_b.sum()) < 2:
        return None
    _, index = np.unique(sentences, return_inverse=True)
    number = index.max() + 1
    # Of each sentence and group: tokens, sum, sum of squares. Resampled sentences are counts.
    parts = np.stack(
        [
            np.bincount(index[group], weights=power[group], minlength=number)
            for group in (in_a, in_b)
            for power in (np.ones_like(values), values, values**2)
        ]
    )  # [6, sentences]
    draws = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), samples)
    difference, effect, means = _effects(parts.sum(1)[None])
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn_differences, drawn_effects, _ = _effects(draws @ parts.T)
    low, high = np.nanpercentile(drawn_differences, [2.5, 97.5])
    effect_low, effect_high = np.nanpercentile(drawn_effects, [2.5, 97.5])
    return Contrast(
        tokens_a=int(in_a.sum()),
        tokens_b=int(in_b.sum()),
        mean_a=float(means[0, 0]),
        mean_b=float(means[1, 0]),
        difference=float(difference[0]),
        difference_low=float(low),
        difference_high=float(high),
        effect=float(effect[0]),
        effect_low=float(effect_low),
        effect_high=float(effect_high),
    )


def _effects(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Differences, Cohen's d and means [2, K] of K rows of (n, sum, sum of squares) of A and B."""
    n_a, sum_a, squares_a, n_b, sum_b, squares_b = parts.T
    mean_a, mean_b = sum_a / n_a, sum_b / n_b
    within = (squares_a - n_a * mean_a**2) + (squares_b - n_b * mean_b**2)
    deviation = np.sqrt(np.maximum(within, 0) / (n_a + n_b - 2))
    difference = mean_a - mean_b
    effect = np.divide(
        difference, deviation, out=np.full_like(difference, np.nan), where=deviation > 0
    )
    return difference, effect, np.stack([mean_a, mean_b])


def unit_auc(values: np.ndarray, in_a: np.ndarray, in_b: np.ndarray) -> np.ndarray:
    """How well each unit tells group A from group B: area under the ROC curve.

    Args:
        values: [N, H] gate values.
        in_a, in_b: [N] bool.

    Returns:
        [H] probability that a token of A has a higher value than one of B (ties count half): 1/2
        for a unit that knows nothing, 0 for one that is always lower on A.

    Raises:
        ValueError: a group is empty.
    """
    n_a, n_b = int(np.sum(in_a)), int(np.sum(in_b))
    if not n_a or not n_b:
        raise ValueError(f"groups have {n_a} and {n_b} tokens, both must have one at least")
    ranks = rankdata(np.concatenate([values[in_a], values[in_b]]), axis=0)
    return (ranks[:n_a].sum(0) - n_a * (n_a + 1) / 2) / (n_a * n_b)
