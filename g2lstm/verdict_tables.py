"""Verdicts in tables and in sentences."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from g2lstm.claims import Evidence
from g2lstm.verdict_rule import MOST_SEEDS, NOT_MEASURED, OPEN, WEAKER

SHORT = {
    1: "accuracy",
    2: "loss by compression saved",
    3: "accuracy compressed",
    4: "gates near 0 or 1",
    5: "accuracy against the sharpened sigmoid",
}
UNITS_NOTE = (
    "Positive is the paper's direction. Accuracy of a language model is in nats a token (0.01 is "
    "1 % of perplexity), of a translation in BLEU; gates are a share. In square brackets: 95 % "
    "interval; n: seeds of each model. Shares of the paper's effect stand after *weaker*."
)


def primary(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that have a verdict."""
    return [row for row in rows if row["number"] is not None]


def verdict_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row a primary statistic and p, one column a corpus: ours, interval, paper, verdict."""
    found: dict[tuple[float, int], dict[str, Any]] = {}
    for row in primary(rows):
        entry = {"statistic": row["name"], "p": f"{row['noise']:g}"}
        entry = found.setdefault((row["noise"], row["number"]), entry)
        entry[row["corpus"]] = _verdict_cell(row)
    return pd.DataFrame([found[key] for key in sorted(found)]).fillna(NOT_MEASURED)


def _verdict_cell(row: dict[str, Any]) -> str:
    if row["verdict"] == NOT_MEASURED:
        return NOT_MEASURED
    return (
        f"**{verdict_words(row)}**: {_number(row, row['mean'])} {_interval(row, row['interval'])}, "
        f"paper {_number(row, row['paper'])}, n = {_count(row)}"
    )


def verdict_words(row: dict[str, Any]) -> str:
    """The verdict on a primary statistic, with what belongs to it."""
    verdict = row["verdict"]
    if verdict == WEAKER:
        return f"{verdict} ({row['share']:.0%})"
    if verdict != OPEN:
        return verdict
    notes = [f"on {row['side']} side of 0"] if row["side"] else []
    if row["interval"] is not None:
        needed = row["seeds_needed"]
        notes.append(f"about {needed} seeds" if needed else f"over {MOST_SEEDS} seeds")
    return f"{verdict} ({', '.join(notes) or 'one run has no spread'})"


def statistics_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """One row a measured statistic: intervals by Welch and paired, and without tuning seeds."""
    return pd.DataFrame(
        {
            "claim": row["claim"],
            "corpus": row["corpus"],
            "statistic": f"{row['name']} ({row['unit']})",
            "p": "" if row["noise"] is None else f"{row['noise']:g}",
            "n": _count(row),
            "mean": _number(row, row["mean"]),
            "95 % interval": _interval(row, row["interval"]),
            "90 % interval": _interval(row, row["interval_90"]),
            "95 %, paired": _interval(row, row["paired"]),
            "without tuning seeds": _without(row),
            "paper": "" if row["paper"] is None else _number(row, row["paper"]),
            "verdict": "" if row["number"] is None else verdict_words(row),
        }
        for row in rows
        if row.get("verdict") != NOT_MEASURED
    )


def _number(row: dict[str, Any], value: float) -> str:
    return f"{value:+.{2 if row['unit'] == 'BLEU' else 3}f}"


def _interval(row: dict[str, Any], ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"[{', '.join(_number(row, end) for end in ends)}]"


def _count(row: dict[str, Any]) -> str:
    """Seeds of the two models; one number where they have the same."""
    return " and ".join(map(str, dict.fromkeys(len(seeds) for seeds in row["seeds"])))


def _without(row: dict[str, Any]) -> str:
    left = row["without_tuning_seeds"]
    if left is None:
        return ""
    return f"{_number(row, left['mean'])} {_interval(row, left['interval'])}".strip()


def corpus_sentence(evidence: Evidence, rows: Iterable[dict[str, Any]]) -> str:
    """What the rule says of one corpus, in a sentence, with what was left out."""
    mine = [row for row in primary(rows) if row["corpus"] == evidence.corpus]
    parts = []
    for noise in dict.fromkeys(row["noise"] for row in mine):
        found: dict[str, list[str]] = {}
        for row in mine:
            if row["noise"] == noise and row["verdict"] != NOT_MEASURED:
                share = f" ({row['share']:.0%})" if row["verdict"] == WEAKER else ""
                found.setdefault(row["verdict"], []).append(SHORT[row["number"]] + share)
        words = [f"*{verdict}* {', '.join(names)}" for verdict, names in found.items()]
        parts.append(f"With p = {noise:g}: {'; '.join(words)}." if words else "")
    text = f"**{evidence.corpus}**. {' '.join(filter(None, parts)) or 'No runs to compare.'}"
    seeds = {seed for row in mine for part in row.get("seeds", ()) for seed in part}
    if tuned := sorted(seeds & evidence.tuning_seeds):
        text += f" The settings were chosen on seed {', '.join(map(str, tuned))}, one of these."
    if evidence.collapsed:
        text += f" Collapsed and left out: {', '.join(f'`{p}`' for p in evidence.collapsed)}."
    return text
