"""What was found, in at most 200 words, for a reader in a hurry: made of the numbers alone."""

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from g2lstm.claims import Evidence, cost_of_compression, worse
from g2lstm.paper import CLAIMS, TABLES_OF
from g2lstm.plots import GATE_LABELS
from g2lstm.results import mean_and_spread
from g2lstm.verdicts import FAILS, HOLDS, OPEN, Statistic, verdict_rows

METRICS = {"language-model": "test perplexity", "translation": "test BLEU"}


def in_plain_words(evidence: Sequence[Evidence], statistics: Iterable[Statistic]) -> str:
    """A Markdown list: a point a corpus, one for the verdicts, one for what this cannot tell.

    Args:
        evidence: one a corpus.
        statistics: of all of them, as `claims.judge` returns them.
    """
    statistics = list(statistics)
    points = [_of_corpus(one, statistics) for one in evidence]
    points += [_verdicts(statistics), _limits(evidence)]
    return "\n".join(f"- {point}" for point in points)


def _of_corpus(evidence: Evidence, statistics: Iterable[Statistic]) -> str:
    task, seeds = evidence.task, evidence.seeds("sigmoid", "gumbel")
    if not seeds:
        return f"**{evidence.corpus}**: there are no runs of LSTM and G2-LSTM to compare."

    def results(gate: str, seeds: Sequence[int]) -> list[float]:
        return [evidence.compression[gate, seed]["result"]["value"] for seed in seeds]

    def near(gate: str) -> str:
        runs = [evidence.runs[gate, seed].summary["gates"]["evaluation"] for seed in seeds]
        return f"{fmean(part['saturation'] for gates in runs for part in gates.values()):.0%}"

    count = "1 seed, which decides nothing" if len(seeds) == 1 else f"{len(seeds)} seeds"
    text = (
        f"**{evidence.corpus}** ({count}): the LSTM's {_metric(evidence)} is "
        f"{mean_and_spread(results('sigmoid', seeds))}, G2-LSTM's {_against(evidence, statistics)}"
    )
    if of_three := evidence.seeds(*GATE_LABELS):
        pairs = zip(results("sharpened", of_three), results("sigmoid", of_three), strict=True)
        sharpened = [worse(task, value, than) for value, than in pairs]
        text += f", the sharpened sigmoid's {_relative(task, fmean(sharpened))}"
        if len(of_three) > 1:
            ends = (_change(task, end) for end in (min(sharpened), max(sharpened)))
            text += f" (seeds: {' to '.join(ends)})"
    rows = {
        gate: [evidence.compression[gate, seed] for seed in seeds if (gate, seed) in evidence.runs]
        for gate in GATE_LABELS
    }
    costs = [
        f"{_change(task, fmean(cost_of_compression(task, row) for row in found))} "
        f"({GATE_LABELS[gate]})"
        for gate, found in rows.items()
        if found
    ]
    return (
        f"{text}. Compression, mean of the four columns, changes it by {', '.join(costs)}. "
        f"Gate values near 0 or 1: {near('gumbel')} in G2-LSTM, {near('sigmoid')} in the LSTM."
    )


def _metric(evidence: Evidence) -> str:
    with_cache = any("test_perplexity_with_cache" in r.summary for r in evidence.runs.values())
    return METRICS[evidence.task] + " with cache pointer" * with_cache


def _against(evidence: Evidence, statistics: Iterable[Statistic]) -> str:
    """How G2-LSTM's result stands to the LSTM's, with interval and the paper's."""
    task = evidence.task
    mine = [s for s in statistics if (s.task, s.corpus) == (task, evidence.corpus)]
    first = next(s for s in mine if s.claim == 1)
    found = f"paper, {TABLES_OF[task][0]}: {_relative(task, first.paper)}"
    if first.interval is not None:
        low, high = sorted(first.interval, key=lambda end: _number(task, end))
        found = f"95% interval: {_relative(task, low)} to {_relative(task, high)}; {found}"
    return f"{_relative(task, first.mean)} ({found})"


def _number(task: str, worse_by: float) -> float:
    """Per cent of perplexity, or points of BLEU, that a result changes by."""
    return 100 * math.expm1(worse_by) if task == "language-model" else -worse_by


def _digits(task: str) -> int:
    """Decimals, as in the tables."""
    return 1 if task == "language-model" else 2


def _unit(task: str) -> str:
    return "%" if task == "language-model" else ""


def _change(task: str, worse_by: float) -> str:
    return f"{_number(task, worse_by):+.{_digits(task)}f}{_unit(task)}"


def _relative(task: str, worse_by: float) -> str:
    number = _number(task, worse_by)
    return f"{abs(number):.{_digits(task)}f}{_unit(task)} {'higher' if number >= 0 else 'lower'}"


def _verdicts(statistics: Iterable[Statistic]) -> str:
    """Which of the numbered claims hold, by corpus."""
    found: dict[str, dict[str, list[str]]] = {}
    for row in verdict_rows(statistics):
        of_corpus = found.setdefault(row["corpus"], {})
        of_corpus.setdefault(row["verdict"], []).append(str(row["claim"]))
    parts = [
        f"on {corpus} "
        + ", ".join(
            f"{verdict} ({', '.join(verdicts[verdict])})"
            for verdict in (HOLDS, FAILS, OPEN)
            if verdict in verdicts
        )
        for corpus, verdicts in found.items()
    ]
    return f"Claims 1 to {len(CLAIMS)}: {'; '.join(parts)}."


def _limits(evidence: Sequence[Evidence]) -> str:
    runs = [run for one in evidence for run in one.runs.values()]
    text = f"{'; '.join(map(_size, evidence))}."
    if all(run.config["preset"] == "paper" for run in runs):
        return text
    return (
        f"{text} The paper's models train longer, most are larger; its corpora are Penn Treebank, "
        "IWSLT'14, WMT'14."
    )


def _size(evidence: Evidence) -> str:
    sizes = sorted({run.summary["parameters"] for run in evidence.runs.values()})
    epochs = sorted({run.summary["epochs"] for run in evidence.runs.values()})
    return (
        f"{evidence.corpus}: {' or '.join(f'{size / 1e6:.1f}' for size in sizes)} million "
        f"parameters, {' or '.join(map(str, epochs))} epochs"
    )
