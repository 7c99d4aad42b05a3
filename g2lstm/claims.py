"""The statistics of the paper's claims, from runs and what was measured on them."""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from g2lstm.gate_profile import paper_place
from g2lstm.paper import SATURATION, TABLE_1, TABLES, TABLES_OF
from g2lstm.plots import GATE_LABELS
from g2lstm.records import Run
from g2lstm.results import run_key
from g2lstm.verdict_rule import COLLAPSE, UNITS
from g2lstm.verdicts import Statistic

# G2-LSTM by the probability of its noise -> its name in `results.run_key`.
MODELS = {0.2: "gumbel", 1.0: f"{GATE_LABELS['gumbel']} (p=1)"}
NAMES = {
    1: "accuracy, G2-LSTM minus LSTM",
    2: "loss by compression, saved against the LSTM",
    3: "accuracy compressed, G2-LSTM minus LSTM",
    4: "gates near 0 or 1, G2-LSTM minus LSTM",
    5: "accuracy, G2-LSTM minus sharpened sigmoid",
}
CLAIM_OF = {1: 1, 2: 2, 3: 2, 4: 3, 5: 5}
SHARE = "share of gates"
ROUNDING, LOW_RANK = ("round", "round & clip"), ("SVD", "SVD+")
CONTRASTS = ("function - content words", "clause boundary - other words")


@dataclass(frozen=True)
class Observed:
    """A run and what was measured on it; None: not measured.

    Attributes:
        run: the run.
        compression: as `robustness.measure_compression` returns it.
        profile: as `gate_profile.measure_gate_profile` returns it.
        alignment: as `case_study.measure_alignment` returns it.
    """

    run: Run
    compression: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    alignment: dict[str, Any] | None = None


@dataclass(frozen=True)
class Evidence:
    """Observed runs of one task, preset and corpus.

    Attributes:
        task: "language-model" or "translation".
        corpus: label of the corpus.
        models: by `results.run_key` and seed; without collapsed runs.
        collapsed: places of the collapsed runs, such as "ptb/small/sigmoid/seed-1".
        tuning_seeds: on which the settings were chosen.
    """

    task: str
    corpus: str
    models: Mapping[str, Mapping[int, Observed]]
    collapsed: tuple[str, ...]
    tuning_seeds: Set[int]


def collect_evidence(
    task: str, corpus: str, observed: Iterable[Observed], tuning_seeds: Set[int] = frozenset()
) -> Evidence:
    """`Evidence` of observed runs, collapsed ones named apart, by the rule.

    Raises:
        ValueError: two runs have the same settings and seed.
    """
    observed = list(observed)
    best = max(_validation(one.run) for one in observed)
    models: dict[str, dict[int, Observed]] = {}
    collapsed = []
    for one in observed:
        if not _validation(one.run) >= best / COLLAPSE:
            collapsed.append("/".join(one.run.directory.parts[-4:]))
            continue
        of_model = models.setdefault(run_key(one.run), {})
        if one.run.config["seed"] in of_model:
            raise ValueError(f"two runs of {run_key(one.run)} have seed {one.run.config['seed']}")
        of_model[one.run.config["seed"]] = one
    return Evidence(task, corpus, models, tuple(collapsed), tuning_seeds)


def _validation(run: Run) -> float:
    """BLEU of the validation text, or one over its perplexity; 0 where that is not finite."""
    if run.config["task"] == "translation":
        return run.summary["valid_bleu"]
    perplexity = run.summary["valid_perplexity"]
    return 1 / perplexity if perplexity and math.isfinite(perplexity) else 0.0


def statistics_of(evidence: Evidence) -> list[Statistic]:
    """The five primary statistics for each p, then the secondary ones there are."""
    primary = [one for noise in MODELS for one in _primary(evidence, noise)]
    return primary + [one for one in _secondary(evidence) if one.ours and one.others]


def _values(
    evidence: Evidence, model: str, value: Callable[[Observed], float | None]
) -> dict[int, float]:
    found = {seed: value(one) for seed, one in evidence.models.get(model, {}).items()}
    return {seed: number for seed, number in sorted(found.items()) if number is not None}


def accuracy(run: Run) -> float:
    """Test BLEU, or minus the log of the test perplexity, with the cache pointer if it has one."""
    if run.config["task"] == "translation":
        return run.summary["test_bleu"]
    plain = run.summary["test_perplexity"]
    return -math.log(run.summary.get("test_perplexity_with_cache", plain))


def _scale(task: str, result: float) -> float:
    return -math.log(result) if task == "language-model" else result


def compressed_accuracy(task: str, row: Mapping[str, float], void: bool) -> float:
    """Accuracy after compression, rounding and low rank weighed equally.

    Args:
        task: "language-model" or "translation".
        row: results by column of the paper's table.
        void: whether round & clip is left out.
    """
    families = (ROUNDING[:1] if void else ROUNDING, LOW_RANK)
    return fmean(fmean(_scale(task, row[column]) for column in family) for family in families)


def _row(one: Observed) -> dict[str, float] | None:
    """Results by column; None where compression was not measured or one is not finite."""
    if one.compression is None:
        return None
    row = {column: part["value"] for column, part in one.compression.items()}
    return None if None in row.values() else row


def _primary(evidence: Evidence, noise: float) -> list[Statistic]:
    task, model = evidence.task, MODELS[noise]
    table = TABLES[TABLES_OF[task][0]]

    def statistic(number: int, value: Callable, other: str, paper: float, unit: str) -> Statistic:
        ours, others = (_values(evidence, name, value) for name in (model, other))
        return Statistic(
            number, CLAIM_OF[number], task, evidence.corpus, NAMES[number], unit, noise,
            ours, others, paper,
        )  # fmt: skip

    theirs = _papers_accuracy(evidence)
    saved, compressed = _compression_values(evidence, (model, "sigmoid"))
    kinds = ("input", "forget")
    near = {gate: fmean(SATURATION[gate][kind] for kind in kinds) for gate in SATURATION}
    unit = UNITS[task]
    return [
        statistic(1, lambda o: accuracy(o.run), "sigmoid", theirs["gumbel"] - theirs["sigmoid"],
                  unit),
        statistic(2, saved, "sigmoid", saved(table["gumbel"]) - saved(table["sigmoid"]), unit),
        statistic(3, compressed, "sigmoid",
                  compressed(table["gumbel"]) - compressed(table["sigmoid"]), unit),
        statistic(4, _saturation, "sigmoid", near["gumbel"] - near["sigmoid"], SHARE),
        statistic(5, lambda o: accuracy(o.run), "sharpened",
                  theirs["gumbel"] - theirs["sharpened"], unit),
    ]  # fmt: skip


def _papers_accuracy(evidence: Evidence) -> dict[str, float]:
    """The paper's accuracy by gate: of perplexity with the cache pointer where ours has it."""
    task = evidence.task
    if task == "translation":
        return {gate: row["result"] for gate, row in TABLES[TABLES_OF[task][0]].items()}
    runs = [one.run for of_model in evidence.models.values() for one in of_model.values()]
    cached = any("test_perplexity_with_cache" in run.summary for run in runs)
    column = "with cache pointer" if cached else "with fine-tuning"
    return {gate: _scale(task, row[column][1]) for gate, row in TABLE_1.items()}


def _compression_values(
    evidence: Evidence, models: Iterable[str], clip: bool = True
) -> tuple[Callable[[Any], float | None], Callable[[Any], float | None]]:
    """Functions of an observed run or a row of the paper: minus loss by compression; accuracy.

    Both leave out round & clip where it is void, or without ``clip``.
    """
    task = evidence.task
    rows = [_row(one) for name in models for one in evidence.models.get(name, {}).values()]
    measured = [row for row in rows if row is not None]
    same = bool(measured) and all(row[ROUNDING[0]] == row[ROUNDING[1]] for row in measured)
    void = same or not clip

    def compressed(of: Any) -> float | None:
        row = _row(of) if isinstance(of, Observed) else of
        return None if row is None else compressed_accuracy(task, row, void)

    def saved(of: Any) -> float | None:
        row = _row(of) if isinstance(of, Observed) else of
        return None if row is None else compressed(row) - _scale(task, row["result"])

    return saved, compressed


def _saturation(one: Observed) -> float | None:
    if one.profile is None:
        return None
    place = paper_place(one.run.config["task"], one.profile["evaluation"])
    return fmean(place[kind]["saturation"] for kind in ("input", "forget"))


def _secondary(evidence: Evidence) -> list[Statistic]:
    task, table = evidence.task, TABLES[TABLES_OF[evidence.task][0]]

    def statistic(
        claim: int, name: str, value: Callable, unit: str, model: str, other: str,
        paper: float | None = None,
    ) -> Statistic:  # fmt: skip
        ours, others = (_values(evidence, which, value) for which in (model, other))
        noise = next((noise for noise, known in MODELS.items() if known == model), None)
        return Statistic(None, claim, task, evidence.corpus, name, unit, noise, ours, others, paper)

    found = []
    for model in MODELS.values():
        saved, _ = _compression_values(evidence, (model, "sharpened"))
        unclipped, _ = _compression_values(evidence, (model, "sigmoid"), clip=False)
        found += [
            statistic(1, "generalisation gap, G2-LSTM minus LSTM", _gap, "nats a token", model,
                      "sigmoid"),
            statistic(2, "loss by compression but for clipping, saved against the LSTM",
                      unclipped, UNITS[task], model, "sigmoid",
                      unclipped(table["gumbel"]) - unclipped(table["sigmoid"])),
            statistic(2, "loss by compression, saved against the sharpened sigmoid", saved,
                      UNITS[task], model, "sharpened",
                      saved(table["gumbel"]) - saved(table["sharpened"])),
            statistic(3, "gates near 0 or 1, G2-LSTM minus sharpened sigmoid", _saturation, SHARE,
                      model, "sharpened"),
        ]  # fmt: skip
        for gate in ("forget", "input"):
            found += [
                statistic(4, f"{gate} gate, {contrast}: G2-LSTM minus LSTM",
                          _contrast(contrast, gate), "Cohen's d", model, "sigmoid")
                for contrast in CONTRASTS
            ]  # fmt: skip
    others = [name for name in evidence.models if name not in GATE_LABELS]
    return found + [
        statistic(1, f"accuracy, {name} minus G2-LSTM", lambda o: accuracy(o.run), UNITS[task],
                  name, "gumbel")
        for name in others
    ]  # fmt: skip


def _gap(one: Observed) -> float:
    summary = one.run.summary
    return math.log(summary["test_perplexity"] / summary["train_perplexity"])


def _contrast(contrast: str, gate: str) -> Callable[[Observed], float | None]:
    def effect(one: Observed) -> float | None:
        rows = [] if one.alignment is None else one.alignment["contrasts"]
        wanted = (contrast, gate, "all")
        found = (r["effect"] for r in rows if (r["contrast"], r["gate"], r["layer"]) == wanted)
        return next(found, None)

    return effect
