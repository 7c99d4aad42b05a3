"""Whether the records of one run, figure or notebook agree with each other: lists of problems."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from g2lstm.experiments import arguments_of, changed_settings, configure, run_directory
from g2lstm.files import read_bytes, read_json, read_text
from g2lstm.identity import read_record
from g2lstm.records import BLEU_STATISTICS, CONFIG, MEASUREMENTS, Run, read_bleu_statistics
from g2lstm.scoring import bleu_from_statistics
from g2lstm.trials import trial_place

CHECKSUM = re.compile("[0-9a-f]{64}")
COMMIT = re.compile("[0-9a-f]{40}")
PNG_TEXT = b"tEXtprovenance\0"  # how a PNG's chunk of text with this keyword begins


def provenance_problems(record: Any, runs: Mapping[str, Run] | None = None) -> list[str]:
    """What a provenance lacks of commit, seeds, versions, hardware, command and time.

    Args:
        record: as `provenance.provenance` makes it, with ``seed`` or ``runs``.
        runs: those there are, by their place; default: they are not looked at.
    """
    if not isinstance(record, dict):
        return ["is no JSON object"]
    checks = {
        "command": lambda value: isinstance(value, str) and value.strip(),
        "commit": lambda value: isinstance(value, str) and COMMIT.fullmatch(value),
        "modified": lambda value: isinstance(value, bool),
        "versions": lambda value: all(value[name] for name in ("python", "torch", "numpy")),
        "hardware": lambda value: value["processor"] and value["cores"] >= 1,
        "time": datetime.fromisoformat,
    }
    problems = []
    for name, check in checks.items():
        try:
            fits = bool(check(record[name]))
        except (LookupError, TypeError, ValueError):
            fits = False
        if not fits:
            problems.append(f"has no usable {name}: {str(record.get(name))[:60]!r}")
    sources = record.get("runs")
    if sources is None:
        return problems if isinstance(record.get("seed"), int) else [*problems, "names no seed"]
    if not sources:
        problems.append("names no runs")
    for source in sources if runs is not None else []:
        run = runs.get(source["run"])
        if run is None:
            problems.append(f"names {source['run']}, which is not there")
            continue
        expected = {
            "seed": run.config["seed"],
            "commit": run.provenance["commit"],
            "command": run.provenance["command"],
            "fingerprint": run.config["fingerprint"],
        }
        problems += [
            f"is of another run than {source['run']} is now: its {name} was {source[name]!r}"
            for name, value in expected.items()
            if name in source and source[name] != value
        ]
    return problems


def left_out(record: Mapping[str, Any], runs: Mapping[str, Run], about: str) -> list[str]:
    """A problem for each run that a provenance should name, but does not.

    Args:
        record: with ``runs``.
        runs: those that it should name, by their place, and others.
        about: how the places of those begin that it is about: "<task>/<corpus>/".
    """
    named = {source["run"] for source in record["runs"]}
    return [
        f"leaves out {place}" for place in runs if place.startswith(about) and place not in named
    ]


def run_problems(run: Run, kind: str = "runs") -> list[str]:
    """Where the records of a published run contradict each other or the place they lie in.

    Args:
        run: with its records.
        kind: "runs", or a kind of `trials`; those have no summary.
    """
    directory, tested = run.directory, kind == "runs"
    config, summary, record = run.config, run.summary, run.provenance
    problems = [f"provenance.json {problem}" for problem in provenance_problems(record)]
    place = (
        run_directory(configure(**arguments_of(config))) if tested else trial_place(config, kind)
    )
    place = place.parts[-5:]
    problems += _metrics_problems(run, tested)
    checks = {
        f"config.json belongs into {'/'.join(place)}": place == directory.parts[-5:],
        "config.json has no fingerprint": CHECKSUM.fullmatch(str(config.get("fingerprint"))),
        "provenance.json has another seed than config.json": record["seed"] == config["seed"],
        "provenance.json has no checksums of the data": all(
            CHECKSUM.fullmatch(checksum) for checksum in record["data"]["sha256"].values()
        ),
    }
    if tested:
        checks |= {
            f"config.json was made with another preset: {setting}": False
            for setting in changed_settings(config)
        }
        checks |= _summary_checks(summary)
    if "test_loss" in summary:
        checks["summary.json: test_perplexity is not exp(test_loss)"] = math.isclose(
            summary["test_perplexity"], math.exp(summary["test_loss"]), rel_tol=1e-9
        )
    if (directory / BLEU_STATISTICS).exists():
        bleu = bleu_from_statistics(read_bleu_statistics(run))
        checks[f"summary.json: test_bleu is not that of {BLEU_STATISTICS}, {bleu:.4f}"] = (
            math.isclose(summary["test_bleu"], bleu, rel_tol=1e-9)
        )
    elif tested and config.get("task") == "translation":
        problems.append(f"{BLEU_STATISTICS} is missing")
    return problems + [problem for problem, fits in checks.items() if not fits]


def _summary_checks(summary: Mapping[str, Any]) -> dict[str, bool]:
    return {
        "summary.json counts no parameters": summary["parameters"] > 0,
        "summary.json has shares of gate values that do not add up": all(
            math.isclose(sum(values["histogram"]), 1, abs_tol=1e-6)
            for mode in summary["gates"].values()
            for values in mode.values()
        ),
    }


def _metrics_problems(run: Run, tested: bool) -> list[str]:
    rows, summary = run.metrics, run.summary
    losses = [row["valid_loss"] for row in rows]
    training = run.config["training"]
    may_end_early = training.get("patience") or training["finetune_epochs"]
    asked = len(rows) if may_end_early else training["epochs"]
    epochs = summary["epochs"] if tested else asked
    checks = {
        f"metrics.jsonl does not number its epochs from 1 to {epochs}": (
            [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        ),
        "metrics.jsonl has more epochs than config.json asks for": (
            len(rows) <= training["epochs"] + training["finetune_epochs"]
        ),
        "metrics.jsonl: a perplexity is not exp(loss)": all(
            math.isclose(row[f"{split}_perplexity"], math.exp(row[f"{split}_loss"]), rel_tol=1e-9)
            for row in rows
            for split in ("train", "valid")
        ),
    }
    if tested:
        best, seconds = summary["best_epoch"], sum(row["seconds"] for row in rows)
        checks |= {
            f"summary.json: best_epoch {best} is not the best of metrics.jsonl": (
                rows and losses.index(min(losses)) + 1 == best
            ),
            "provenance.json: training_seconds is not the sum over metrics.jsonl": math.isclose(
                run.provenance["training_seconds"], seconds, rel_tol=1e-6
            ),
        }
    return [problem for problem, fits in checks.items() if not fits]


def measurement_problems(path: Path) -> list[str]:
    """Where a measurement does not belong to the run in whose folder it lies."""
    record, config = read_record(path), read_record(path.parents[1] / CONFIG)
    problems = [f"its provenance {p}" for p in provenance_problems(record["provenance"])]
    checks = {
        f"does not lie in {MEASUREMENTS}/": path.parent.name == MEASUREMENTS,
        "is of another fingerprint than the run": record["fingerprint"] == config["fingerprint"],
        "is of another seed than the run": record["provenance"]["seed"] == config["seed"],
        "has no checksum of the code": CHECKSUM.fullmatch(str(record["code"])),
        "holds no result": record["result"],
    }
    return problems + [problem for problem, fits in checks.items() if not fits]


def figure_problems(path: Path, runs: Mapping[str, Run]) -> list[str]:
    """What is wrong with a figure: one of its three files, or its provenance.

    Args:
        path: of the figure, without suffix.
        runs: those there are, by their place.
    """
    problems = missing(path, ("png", "svg", "provenance.json"))
    if problems:
        return problems
    record = read_json(f"{path}.provenance.json")
    problems = [f"its provenance {problem}" for problem in provenance_problems(record, runs)]
    content = read_bytes(f"{path}.png")
    start = content.find(PNG_TEXT)
    length = int.from_bytes(content[start - 4 : start], "big")
    text = content[start + len(PNG_TEXT) : start + 4 + length] if start > 0 else b"null"
    if json.loads(text) != record:
        problems.append("the PNG carries another provenance than its .provenance.json")
    if not read_text(f"{path}.svg").rstrip().endswith("</svg>"):
        problems.append("the SVG is cut off")
    return problems


def missing(path: Path, suffixes: Iterable[str]) -> list[str]:
    """A problem for each file ``path``.suffix that is not there, or empty."""
    files = [Path(f"{path}.{suffix}") for suffix in suffixes]
    return [
        f"{file.name} is missing" for file in files if not (file.is_file() and file.stat().st_size)
    ]


def notebook_problems(path: Path) -> list[str]:
    """What an executed notebook lacks: a cell that did not run, or ended with an error."""
    notebook = read_json(path)
    problems = []
    if not any(cell.get("execution_count") for cell in notebook["cells"]):
        problems.append("no cell was executed")
    if notebook["metadata"].get("papermill", {}).get("exception"):
        problems.append("papermill says that it ended with an error")
    for number, cell in enumerate(notebook["cells"], start=1):
        if cell["cell_type"] != "code" or not "".join(cell["source"]).strip():
            continue
        if cell["execution_count"] is None:
            problems.append(f"cell {number} was not executed")
        problems += [
            f"cell {number} ended with {output.get('ename')}"
            for output in cell["outputs"]
            if output["output_type"] == "error"
        ]
    return problems
