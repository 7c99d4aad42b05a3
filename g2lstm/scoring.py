"""Scores of translations: sacreBLEU's BLEU and chrF, and the paired bootstrap.

BLEU and chrF are sacreBLEU's of detokenised text (mixed case, tokenizer 13a), whose signatures
belong to every number. Text that is Moses-tokenised is detokenised first, both sides; the score of
its tokens as they stand is what `multi-bleu.perl` computes, as in the paper. BLEU is computed in
lower case too, for the paper's German-English numbers are case-insensitive (`multi-bleu.perl -lc`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sacrebleu.metrics import BLEU, CHRF
from sacremoses import MosesDetokenizer

TOKENISED_BLEU = "tokenised BLEU (as multi-bleu.perl)"  # what tables call it
STATISTICS = 10
SMOOTHING = BLEU().smooth_method


@dataclass(frozen=True)
class Scores:
    """Of a test set: BLEU and chrF from 0 to 100, with what makes them comparable.

    Attributes:
        bleu_lc, tokenised_bleu_lc: the same of both sides in lower case: case-insensitive.
        exact: share of the translations that are equal to their reference, as given.
        tokenised_bleu: `TOKENISED_BLEU`, where the text is tokenised.
    """

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str
    exact: float
    bleu_lc: float
    bleu_lc_signature: str
    tokenised_bleu: float | None = None
    tokenised_bleu_signature: str | None = None
    tokenised_bleu_lc: float | None = None


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenised: str | None = None,
    language: str = "en",
) -> Scores:
    """Score translations against one reference each.

    Args:
        hypotheses, references: text in the form of the corpus, unknown words and all.
        tokenised: "moses" where both are Moses-tokenised with escapes such as `&apos;`, None
            where they are raw.
        language: that of the text; detokenising needs it.

    Raises:
        ValueError: the numbers of sentences differ, there are none, or `tokenised` is another.
    """
    plain, expected = _detokenised(hypotheses, references, tokenised, language)
    bleu, lower, chrf = BLEU(), BLEU(lowercase=True), CHRF()
    values = {
        "bleu": bleu.corpus_score(plain, [expected]).score,
        "bleu_lc": lower.corpus_score(plain, [expected]).score,
        "bleu_lc_signature": str(lower.get_signature()),
        "chrf": chrf.corpus_score(plain, [expected]).score,
        "bleu_signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
        "exact": float(np.mean([h == r for h, r in zip(hypotheses, references, strict=True)])),
    }
    if tokenised:
        # multi-bleu.perl does not smooth.
        multi_bleu = {"tokenize": "none", "smooth_method": "none", "force": True}
        as_is, as_is_lower = BLEU(**multi_bleu), BLEU(**multi_bleu, lowercase=True)
        values["tokenised_bleu"] = as_is.corpus_score(hypotheses, [references]).score
        values["tokenised_bleu_signature"] = str(as_is.get_signature())
        values["tokenised_bleu_lc"] = as_is_lower.corpus_score(hypotheses, [references]).score
    return Scores(**values)


def bleu_statistics(
    hypotheses: Sequence[str],
    references: Sequence[str],
    tokenised: str | None = None,
    language: str = "en",
) -> np.ndarray:
    """What corpus BLEU needs to know of each sentence; arguments and errors are those of `score`.

    Returns:
        [n, 10] int64: words of the hypothesis, words of the reference, matching n-grams of
        order 1 to 4, n-grams of the hypothesis of order 1 to 4. Sums of rows are the statistics of
        sets of sentences.
    """
    bleu = BLEU(force=True)
    rows = [
        bleu.corpus_score([hypothesis], [[reference]])
        for hypothesis, reference in zip(
            *_detokenised(hypotheses, references, tokenised, language), strict=True
        )
    ]
    return np.array([(r.sys_len, r.ref_len, *r.counts, *r.totals) for r in rows], dtype=np.int64)


def bleu_from_statistics(statistics: np.ndarray) -> float:
    """Corpus BLEU, equal to that of `score`, from [n, 10] statistics."""
    _check_statistics(statistics, "statistics")
    return _bleu(statistics.sum(axis=0))


def paired_bootstrap(
    statistics: Mapping[str, np.ndarray], baseline: str, samples: int = 1000, seed: int = 12345
) -> pd.DataFrame:
    """Paired bootstrap resampling of BLEU (Koehn, 2004), computed as sacreBLEU computes it.

    Every model is scored on the same `samples` test sets of n sentences, drawn with replacement.

    Args:
        statistics: of each model, [n, 10] as from `bleu_statistics`, for the same sentences.
        baseline: the model that the others are compared with.
        samples: number of drawn test sets.
        seed: of the draws; sacreBLEU's default.

    Returns:
        A row a model, in the order given: `model`, `bleu` of the test set, `mean`, `ci_low` and
        `ci_high` (95 %) over the samples, `difference` to the baseline in BLEU, and `p_value`:
        how often chance alone would give a difference as large. It is one-sided in effect, as
        Koehn's, and NaN for the baseline. Models with the same statistics have 1, where
        sacreBLEU, which counts no ties, gives 1 / (samples + 1).

    Raises:
        ValueError: the baseline is unknown, samples is below 1, or the statistics are of different
            sentences.
    """
    if baseline not in statistics:
        raise ValueError(f"unknown baseline {baseline!r}; models: {', '.join(statistics)}")
    if samples < 1:
        raise ValueError(f"samples is {samples!r}, should be at least 1")
    for model, rows in statistics.items():
        _check_statistics(rows, model)
        if not np.array_equal(rows[:, 1], statistics[baseline][:, 1]):
            raise ValueError(
                f"{model!r} ({len(rows)} sentences) and {baseline!r} "
                f"({len(statistics[baseline])}) were not scored on the same references"
            )
    count = len(statistics[baseline])
    draws = np.random.default_rng(seed).choice(count, size=(samples, count), replace=True)
    sampled = {
        model: np.array([_bleu(rows[draw].sum(axis=0)) for draw in draws])
        for model, rows in statistics.items()
    }
    whole = {model: bleu_from_statistics(rows) for model, rows in statistics.items()}
    table = []
    for model, values in sampled.items():
        difference = whole[model] - whole[baseline]
        distances = np.abs(values - sampled[baseline])
        extreme = np.sum(distances - distances.mean() >= abs(difference))
        ordered, tail = np.sort(values), samples // 40
        table.append(
            {
                "model": model,
                "bleu": whole[model],
                "mean": values.mean(),
                "ci_low": ordered[tail],
                "ci_high": ordered[-1 - tail],
                "difference": difference,
                "p_value": np.nan if model == baseline else (extreme + 1) / (samples + 1),
            }
        )
    return pd.DataFrame(table)


def _detokenised(
    hypotheses: Sequence[str], references: Sequence[str], tokenised: str | None, language: str
) -> tuple[Sequence[str], Sequence[str]]:
    if isinstance(hypotheses, str) or isinstance(references, str):
        raise TypeError("translations and references are lists of sentences, got a string")
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} translations for {len(references)} references")
    if not len(hypotheses):
        raise ValueError("no sentences to score")
    if tokenised is None:
        return hypotheses, references
    if tokenised != "moses":
        raise ValueError(f"tokenised is {tokenised!r}, should be 'moses' or None")
    moses = MosesDetokenizer(lang=language)
    return tuple([moses.detokenize(s.split()) for s in side] for side in (hypotheses, references))


def _check_statistics(statistics: np.ndarray, name: str) -> None:
    if statistics.ndim != 2 or statistics.shape[1] != STATISTICS or not len(statistics):
        raise ValueError(f"{name}: statistics are [n, {STATISTICS}], n > 0; got {statistics.shape}")


def _bleu(totals: np.ndarray) -> float:
    sys_len, ref_len, *ngrams = totals.tolist()
    return BLEU.compute_bleu(ngrams[:4], ngrams[4:], sys_len, ref_len, SMOOTHING).score
