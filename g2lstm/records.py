"""Records of finished runs: reading them, finding them, copying them for publication."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from g2lstm.experiments import (
    ParameterError,
    changed_settings,
    command,
    configure,
    run_directory,
)
from g2lstm.files import ASIDE, name_aside, read_text, write_text
from g2lstm.gates import GATES
from g2lstm.identity import CONFIG, METRICS, SUMMARY, read_rows, run_of
from g2lstm.identity import read_record as read_value
from g2lstm.settings import cache_recipe, made_with

PROVENANCE = "provenance.json"
WEIGHTS = "model.safetensors"  # those that were best on the validation text
RECORDS = (CONFIG, METRICS, SUMMARY, PROVENANCE)
# Folder of what was measured on the weights afterwards, see `measurements`.
MEASUREMENTS = "measurements"
# Further records of a translation.
BLEU_STATISTICS, TRANSLATIONS = "bleu_statistics.json", "translations.json"
SOURCE_SUBWORDS, TARGET_SUBWORDS = "source_subwords.json", "target_subwords.json"
TRANSLATION_RECORDS = (BLEU_STATISTICS, TRANSLATIONS, SOURCE_SUBWORDS, TARGET_SUBWORDS)
LOCK = ".lock"  # in the folder of a run: held by the process that is at work on it


class RunError(RuntimeError):
    """A run is missing, damaged, or already under way."""


# What reading a damaged record, or working with what it holds, may raise.
DAMAGED = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError,
    RunError,
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A finished run as its directory records it."""

    directory: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    metrics: list[dict[str, Any]]
    provenance: dict[str, Any]


def read_run(directory: Path | str, tested: bool = True) -> Run:
    """Read the records of a finished run.

    Args:
        directory: of the run.
        tested: whether it was measured on the test text; else its ``summary`` is empty.

    Raises:
        RunError: the run is not finished, or a record is missing, damaged or another run's.
    """
    directory = Path(directory)
    config, record = (read_record(directory / name) for name in (CONFIG, PROVENANCE))
    summary = read_record(directory / SUMMARY) if tested else {}
    path = directory / METRICS
    metrics = _read(path, read_rows)
    if not all(isinstance(row, dict) for row in metrics):
        raise _damaged(path, "a line of it is no epoch")
    if len(metrics) != summary.get("epochs", len(metrics)):
        numbers = f"summary.json says {summary['epochs']} epochs, metrics.jsonl has {len(metrics)}"
        raise _damaged(path, numbers)
    for name in TRANSLATION_RECORDS if tested else ():
        if (directory / name).exists():  # those that are published come without translations
            _read(directory / name)
    return Run(directory, config, summary, metrics, record)


def read_record(path: Path) -> dict[str, Any]:
    """A record of a run that is one JSON object, such as ``summary.json``.

    Raises:
        RunError: it is missing, damaged or another run's; says what to do.
    """
    record = _read(path)
    if not isinstance(record, dict):
        raise _damaged(path, "it is no JSON object")
    return record


def _read(path: Path, read: Callable[[Path], Any] = read_value) -> Any:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise RunError(
            f"{path.parent} holds no finished run: {path.name} is missing; run the experiment again"
        ) from error
    except OSError as error:
        raise RunError(
            f"{path.parent} holds no finished run: {path.name} cannot be read "
            f"({error.strerror or error}); make it readable, or move it away and run the "
            "experiment again"
        ) from error
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, what: str) -> RunError:
    return RunError(
        f"{path.parent} holds no finished run: {path.name} is damaged or another run's ({what}); "
        "put back a good copy, or delete it and run the experiment again, which makes it anew"
    )


def find_runs(
    preset: str,
    corpus: str | None = None,
    seeds: Iterable[int] | None = None,
    task: str = "language-model",
    languages: str | None = None,
) -> list[Run]:
    """Finished runs of a preset and corpus, by gate (in the paper's order), settings and seed.

    Args:
        preset: see `configure`.
        corpus: default: the preset's.
        seeds: exactly the runs of the three gates, in their default settings, with these seeds;
            default: every run there is, those with other settings and overrides too.
        task, languages: see `configure`.

    Raises:
        RunError: there is none, or one asked for is missing (says how to make it), or one was made
            with other settings of the preset than today's, or they cannot be compared with each
            other: see `check_alike`.
        ParameterError: ``seeds`` is not a list of integers, or an unknown preset.
    """
    about = {"preset": preset, "corpus": corpus, "task": task, "languages": languages}
    example = configure(**about)
    folder = run_directory(example).parents[1]
    if seeds is None:
        found = run_folders(folder, "*/seed-*")
        runs = [_read_current(path) for path in found if (path / SUMMARY).exists()]
        if not runs:
            raise RunError(f"no finished run in {folder}; make one with: {command(example)}")
        runs.sort(
            key=lambda run: (
                GATES.index(run.config["gate"]),
                run.directory.parent.name,
                run.config["seed"],
            ),
        )
        check_alike(runs)
        return runs
    if not isinstance(seeds, list | tuple) or not seeds:
        raise ParameterError(f"seeds must be a list of integers, such as [1, 2], got {seeds!r}")
    runs = []
    for gate in GATES:
        for seed in seeds:
            wanted = configure(**about, gate=gate, seed=seed)
            if not (run_directory(wanted) / "summary.json").exists():
                raise RunError(
                    f"no finished run of gate {gate!r} with seed {seed} in {folder}; "
                    f"make it with: {command(wanted)}"
                )
            runs.append(_read_current(run_directory(wanted)))
    check_alike(runs)
    return runs


def check_alike(runs: Iterable[Run]) -> None:
    """See that runs of a preset can be compared: made with the same settings of it.

    Raises:
        RunError: some were published before the preset was corrected and others made after, or
            they have perplexities with different cache pointers.
    """
    presets: dict[str, Run] = {}
    caches: dict[str, Run] = {}
    for run in runs:
        then = ", ".join(f"{name}={value}" for name, value in made_with(run.config).items())
        presets.setdefault(then or "those of the preset today", run)
        cached = run.config.get("evaluation", {}).get("cache_pointer")
        if cached and "cache_recipe" not in run.config["overrides"]:
            caches.setdefault(f"cache_recipe={cache_recipe(run.config)}", run)
    for kinds in (presets, caches):
        if len(kinds) > 1:
            found = "; ".join(f"{settings} ({run.directory})" for settings, run in kinds.items())
            raise RunError(
                f"runs that cannot be compared, for they were made with different settings: "
                f"{found}. Make the older ones again, or keep them in another folder"
            )


def run_folders(folder: Path, pattern: str) -> list[Path]:
    """The run directories that match a pattern below a folder, in order of their paths.

    Those that were kept aside when their run started anew are left out.
    """
    found = sorted(folder.glob(pattern))
    return [path for path in found if path.is_dir() and ASIDE not in path.name]


def keep_aside(directory: Path) -> Path:
    """Move what a run directory holds, but for the lock, to a new folder beside it; return that."""
    directory = directory.resolve()  # it may be a link to another disk
    kept = name_aside(directory)
    kept.mkdir()
    # Those last that tell a run worth keeping: after a kill in between the rest is moved too.
    for path in sorted(directory.iterdir(), key=lambda path: path.name in (SUMMARY, WEIGHTS)):
        if path.name != LOCK:
            path.rename(kept / path.name)
    return kept


def check_place(directory: Path) -> None:
    """See that a run lies where its ``config.json`` says, below a folder of runs.

    Raises:
        RunError: it lies in the place of another run.
    """
    run, place = run_of(directory / CONFIG), "/".join(directory.absolute().parts[-5:])
    if run is not None and run["run"] != place:
        raise RunError(
            f"{directory} is the place of the run {place}, but {CONFIG} there belongs to the run "
            f"{run['run']}: move the folder to its own place, or away"
        )


def _read_current(directory: Path) -> Run:
    """Read a finished run; one of another preset than today's is not to be compared with others."""
    run = read_run(directory)
    check_place(directory)
    if changed := changed_settings(run.config):
        raise RunError(
            f"{directory} was made with another preset {run.config['preset']!r} "
            f"({'; '.join(changed)}): run it again, or move it away"
        )
    return run


def read_bleu_statistics(run: Run) -> np.ndarray:
    """What BLEU needs to know of each test sentence of a translation run, see `scoring`.

    Raises:
        RunError: the record is missing, damaged or another run's.
    """
    path = run.directory / BLEU_STATISTICS
    return _read(path, lambda path: np.array(read_value(path), dtype=np.int64))


def read_translations(run: Run) -> list[str]:
    """What a translation run made of each test sentence.

    Raises:
        RunError: the record is missing, damaged or another run's.
    """
    return _read(run.directory / TRANSLATIONS)


def copy_records(runs: Iterable[Run], results: Path) -> None:
    """Copy the records of ``runs`` to ``results``/runs, for publication.

    What was measured on their weights is copied too; neither weights nor translations are: the
    latter are too near to the corpus's text.

    Raises:
        RunError: a record is missing, damaged or another run's.
    """
    for run in runs:
        # Not resolve(): a folder of a run may be a link to a place of another name.
        target = results / "runs" / Path(*run.directory.absolute().parts[-5:])
        names = [BLEU_STATISTICS] if run.config["task"] == "translation" else []
        names += [f"{MEASUREMENTS}/{p.name}" for p in run.directory.glob(f"{MEASUREMENTS}/*.json")]
        for name in names:
            _read(run.directory / name)  # the others were read before
        for name in (*RECORDS, *names):
            write_text(target / name, read_text(run.directory / name))
