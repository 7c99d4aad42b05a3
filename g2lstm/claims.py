"""The paper's five claims as statistics over runs; `verdicts` judges them."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from g2lstm.paper import HISTOGRAMS, TABLES, TABLES_OF
from g2lstm.records import Run
from g2lstm.robustness import COLUMNS
from g2lstm.verdicts import AS_GOOD, COMPARABLE, UNITS, Statistic


@dataclass(frozen=True)
class Evidence:
    """Runs of one task in default settings, with what was measured on them.

    Attributes:
        task: "language-model" or "translation".
        corpus: label of the corpus.
        runs: by gate and seed.
        compression: by gate and seed, as `robustness.measure_compression` returns it.
        alignment: by gate and seed, as `case_study.measure_alignment` returns it.
    """

    task: str
    corpus: str
    runs: Mapping[tuple[str, int], Run]
    compression: Mapping[tuple[str, int], dict[str, Any]]
    alignment: Mapping[tuple[str, int], dict[str, Any]]

    def seeds(self, *gates: str) -> tuple[int, ...]:
        """Seeds for which there is a run of each of these gates, in order."""
        sets = [{seed for gate, seed in self.runs if gate == wanted} for wanted in gates]
        return tuple(sorted(set.intersection(*sets)))


def collect_evidence(
    task: str,
    corpus: str,
    runs: Iterable[Run],
    compression: Iterable[dict[str, Any]],
    alignment: Iterable[dict[str, Any]],
) -> Evidence:
    """`Evidence` from runs and, in their order, the measurements on them."""
    runs = list(runs)
    keys = [(run.config["gate"], run.config["seed"]) for run in runs]
    if len(set(keys)) < len(keys):
        raise ValueError("two runs have the same gate and seed; give those in default settings")
    parts = (dict(zip(keys, part, strict=True)) for part in (runs, compression, alignment))
    return Evidence(task, corpus, *parts)


def judge(evidence: Evidence) -> list[Statistic]:
    """All statistics of the five claims that this evidence allows, in order."""
    return [*_accuracy(evidence), *_compression(evidence), *_gates(evidence),
            *_language(evidence), *_estimator(evidence)]  # fmt: skip


def _over_seeds(
    evidence: Evidence,
    claim: int,
    name: str,
    value: Callable[..., float | None],
    gates: tuple[str, ...],
    side: str,
    threshold: float,
    unit: str | None = None,
    paper: float | None = None,
) -> list[Statistic]:
    """The statistic that ``value`` gives for the runs of ``gates``, by seed; none without seeds."""
    found = {seed: value(*((gate, seed) for gate in gates)) for seed in evidence.seeds(*gates)}
    found = {seed: number for seed, number in found.items() if number is not None}
    if not found:
        return []
    unit = UNITS[evidence.task] if unit is None else unit
    return [
        Statistic(
            claim, evidence.task, evidence.corpus, name, unit, side, threshold,
            tuple(found.values()), tuple(found), paper,
        )
    ]  # fmt: skip


def worse(task: str, value: float, than: float) -> float:
    """How much worse one result is than another: nats a token, or points of BLEU."""
    return math.log(value / than) if task == "language-model" else than - value


def _from_paper(task: str, value: Callable[[dict[str, dict[str, float]]], float]) -> float:
    return value(TABLES[TABLES_OF[task][0]])


def _result(evidence: Evidence, key: tuple[str, int]) -> float:
    return evidence.compression[key]["result"]["value"]


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    """Results by column, of our measurement or of the paper's row."""
    return {name: part["value"] if isinstance(part, dict) else part for name, part in row.items()}


def _mean_worse(task: str, row: Mapping[str, Any], than: float) -> float:
    """How much worse than a result the compressed models are: mean over the four columns."""
    values = _values(row)
    return fmean(worse(task, values[column], than) for column in COLUMNS[1:])


def cost_of_compression(task: str, row: Mapping[str, Any]) -> float:
    """What compression costs: mean over the paper's four columns, in nats a token or BLEU.

    Args:
        task: "language-model" or "translation".
        row: results by column, as `robustness.measure_compression` returns them, or the paper's.
    """
    return _mean_worse(task, row, _values(row)["result"])


def _costs_more(task: str, row: Mapping[str, Any], than: Mapping[str, Any]) -> float:
    return cost_of_compression(task, row) - cost_of_compression(task, than)


def _accuracy(evidence: Evidence) -> list[Statistic]:
    task = evidence.task

    def gap(key: tuple[str, int]) -> float:
        summary = evidence.runs[key].summary
        return math.log(summary["test_perplexity"] / summary["train_perplexity"])

    both = ("gumbel", "sigmoid")
    return [
        *_over_seeds(
            evidence, 1, "how much worse than the LSTM G2-LSTM is on the test text",
            lambda g, s: worse(task, _result(evidence, g), _result(evidence, s)), both,
            "below", AS_GOOD[task],
            paper=_from_paper(
                task, lambda p: worse(task, p["gumbel"]["result"], p["sigmoid"]["result"])
            ),
        ),
        *_over_seeds(
            evidence, 1, "generalisation gap, G2-LSTM minus LSTM",
            lambda g, s: gap(g) - gap(s), both, "below", 0.0, "nats a token",
        ),
    ]  # fmt: skip


def _compression(evidence: Evidence) -> list[Statistic]:
    task, rows = evidence.task, evidence.compression
    found = []
    for gate, name in (("sigmoid", "LSTM"), ("sharpened", "sharpened sigmoid")):
        found += _over_seeds(
            evidence, 2, f"cost of compression, G2-LSTM minus {name}",
            lambda g, s: _costs_more(task, rows[g], rows[s]), ("gumbel", gate),
            "below", 0.0,
            paper=_from_paper(
                task, lambda p, gate=gate: _costs_more(task, p["gumbel"], p[gate])
            ),
        )  # fmt: skip
    return found + _over_seeds(
        evidence, 2, "how much worse than the uncompressed LSTM compressed G2-LSTM is",
        lambda g, s: _mean_worse(task, rows[g], _result(evidence, s)), ("gumbel", "sigmoid"),
        "below", COMPARABLE[task],
        paper=_from_paper(
            task, lambda p: _mean_worse(task, p["gumbel"], p["sigmoid"]["result"])
        ),
    )  # fmt: skip


def _gates(evidence: Evidence) -> list[Statistic]:
    def near(key: tuple[str, int], *kinds: str) -> float:
        gates = evidence.runs[key].summary["gates"]["evaluation"]
        return fmean(gates[kind]["saturation"] for kind in kinds)

    def in_paper(gate: str, *kinds: str) -> float | None:
        """The paper's histograms are of its translation model."""
        if evidence.task != "translation":
            return None
        return fmean(HISTOGRAMS[gate][kind][0] + HISTOGRAMS[gate][kind][-1] for kind in kinds)

    found = []
    for kind in ("input", "forget"):
        ours, theirs = in_paper("gumbel", kind), in_paper("sigmoid", kind)
        found += _over_seeds(
            evidence, 3, f"share of {kind} gates near 0 or 1, G2-LSTM minus LSTM",
            lambda g, s, kind=kind: near(g, kind) - near(s, kind), ("gumbel", "sigmoid"),
            "above", 0.0, "share", None if ours is None else ours - theirs,
        )  # fmt: skip
    for gate, name, side in (("gumbel", "G2-LSTM", "above"), ("sigmoid", "LSTM", "below")):
        found += _over_seeds(
            evidence, 3, f"share of both gates near 0 or 1, {name}",
            lambda key: near(key, "input", "forget"), (gate,), side, 0.5, "share",
            in_paper(gate, "input", "forget"),
        )  # fmt: skip
    return found


def _language(evidence: Evidence) -> list[Statistic]:
    def effect(key: tuple[str, int], contrast: str, gate: str) -> float | None:
        for row in evidence.alignment[key]["contrasts"]:
            if (row["contrast"], row["gate"], row["layer"]) == (contrast, gate, "all"):
                return row["effect"]
        return None

    def mean(key: tuple[str, int], label: str, gate: str) -> float | None:
        rows = evidence.alignment[key]["means"]
        return next((r["mean"] for r in rows if (r["label"], r["gate"]) == (label, gate)), None)

    def stronger(g: tuple[str, int], s: tuple[str, int]) -> float | None:
        pair = [effect(key, boundary, "forget") for key in (g, s)]
        return None if None in pair else pair[0] - pair[1]

    boundary, function = "clause boundary - other words", "function - content words"
    one = ("gumbel",)
    return [
        *_over_seeds(
            evidence, 4, "forget gate at clause boundaries against other words, G2-LSTM",
            lambda g: effect(g, boundary, "forget"), one, "below", 0.0, "Cohen's d",
        ),
        *_over_seeds(
            evidence, 4, "the same effect, G2-LSTM minus LSTM",
            stronger, ("gumbel", "sigmoid"), "below", 0.0, "Cohen's d",
        ),
        *_over_seeds(
            evidence, 4, "forget gate at function words against content words, G2-LSTM",
            lambda g: effect(g, function, "forget"), one, "below", 0.0, "Cohen's d",
        ),
        *_over_seeds(
            evidence, 4, "mean input gate at content words, G2-LSTM",
            lambda g: mean(g, "content", "input"), one, "above", 0.5, "gate value",
        ),
    ]  # fmt: skip


def _estimator(evidence: Evidence) -> list[Statistic]:
    task, rows = evidence.task, evidence.compression
    both = ("sharpened", "gumbel")
    return [
        *_over_seeds(
            evidence, 5, "how much worse than G2-LSTM the sharpened sigmoid is on the test text",
            lambda s, g: worse(task, _result(evidence, s), _result(evidence, g)), both,
            "above", 0.0,
            paper=_from_paper(
                task, lambda p: worse(task, p["sharpened"]["result"], p["gumbel"]["result"])
            ),
        ),
        *_over_seeds(
            evidence, 5, "cost of compression, sharpened sigmoid minus G2-LSTM",
            lambda s, g: _costs_more(task, rows[s], rows[g]), both, "above", 0.0,
            paper=_from_paper(task, lambda p: _costs_more(task, p["sharpened"], p["gumbel"])),
        ),
    ]  # fmt: skip
