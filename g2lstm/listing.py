"""What is in a folder of runs: settings, state and main metrics of each."""

import math
from pathlib import Path
from typing import Any

from g2lstm.identity import METRICS, read_rows
from g2lstm.records import (
    CONFIG,
    DAMAGED,
    SUMMARY,
    WEIGHTS,
    check_place,
    read_record,
    read_run,
    run_folders,
)

SHOWN = {
    "valid_perplexity": "valid ppl",
    "test_perplexity": "test ppl",
    "test_perplexity_with_cache": "with cache",
    "valid_bleu": "valid BLEU",
    "test_bleu": "test BLEU",
}


def list_runs(folder: Path | str) -> list[dict[str, Any]]:
    """A dict a run directory below the folder, in the order of their paths.

    Runs that were kept aside when they started anew are left out.

    Each has ``run`` (its place below the folder), ``task``, ``corpus``, ``preset``, ``settings``
    (the gate and what departs from the preset), ``seed``, ``state`` ("finished", "begun" or
    "damaged"), ``epochs`` (finished ones), ``of_epochs`` (asked for; None: not known), ``problem``
    (of a damaged run), ``weights`` (whether they are there), and ``metrics`` (those of a finished
    run, by name).

    Args:
        folder: of runs, or of results that hold them in ``runs``.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder: name one that holds runs, such as runs or results/quick, "
            "or make runs with g2lstm train or make reproduce"
        )
    root = folder / "runs" if (folder / "runs").is_dir() else folder
    return [_entry(path, root) for path in run_folders(root, "*/*/*/*/seed-*")]


def in_words(entry: dict[str, Any]) -> str:
    """The state of a run for people to read."""
    if entry["state"] == "finished":
        return "finished"
    if entry["state"] == "damaged":
        return f"damaged: {entry['problem']}"
    if entry["epochs"] == 0:
        return "begun, no epoch finished"
    if entry["epochs"] == entry["of_epochs"]:
        return "trained, not tested"
    return f"begun, {entry['epochs']} of {entry['of_epochs']} epochs"


def _entry(directory: Path, root: Path) -> dict[str, Any]:
    task, corpus, preset, settings, seed = directory.relative_to(root).parts
    number = seed.removeprefix("seed-")
    entry = {
        "run": directory.relative_to(root).as_posix(),
        "task": task,
        "corpus": corpus,
        "preset": preset,
        "settings": settings,
        "seed": int(number) if number.isdecimal() else None,
        "state": "damaged",
        "epochs": 0,
        "of_epochs": None,
        "problem": None,
        "weights": (directory / WEIGHTS).is_file(),
        "metrics": {},
    }
    try:
        return entry | _state(directory)
    except DAMAGED as error:
        return entry | {"problem": f"{type(error).__name__}: {error}"}


def _state(directory: Path) -> dict[str, Any]:
    config = read_record(directory / CONFIG)
    check_place(directory)
    asked = config["training"]["epochs"] + config["training"]["finetune_epochs"]
    if not (directory / SUMMARY).exists():
        metrics = directory / METRICS
        epochs = len(read_rows(metrics)) if metrics.exists() else 0
        return {"state": "begun", "epochs": epochs, "of_epochs": asked}
    run = read_run(directory)
    about = {"epochs": len(run.metrics), "of_epochs": asked}
    metrics = {name: run.summary[name] for name in SHOWN if name in run.summary}
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad or not metrics:
        return about | {"problem": f"summary.json has no number for {', '.join(bad) or 'anything'}"}
    return about | {"state": "finished", "metrics": metrics}
