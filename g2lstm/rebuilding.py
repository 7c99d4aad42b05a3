"""Tables and reports made again from the published records, and compared with the published ones.

A table's provenance names its runs; it is made of their records by the functions that the notebooks
call, so a number that does not follow from the records is found.
"""

import csv
import io
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from g2lstm.analysis import (
    ablation_table,
    compression_sizes,
    compression_table,
    default_runs,
    evaluation_table,
    gap_table,
)
from g2lstm.case_study import ALIGNMENT
from g2lstm.experiments import arguments_of, configure
from g2lstm.files import read_json, read_text
from g2lstm.gate_profile import GATE_PROFILE
from g2lstm.gate_tables import (
    contrasts_frame,
    gate_table,
    lowest_tenth_table,
    profile_frame,
    units_table,
)
from g2lstm.plots import save_table
from g2lstm.records import Run
from g2lstm.report import gather_evidence, make_report
from g2lstm.results import bootstrap_table, comparison_table, summary_frame
from g2lstm.robustness import COMPRESSION
from g2lstm.sensitivity import SWITCHES
from g2lstm.studies import Study
from g2lstm.trials import TABLES as TRIAL_TABLES

TOLERANCE = 1e-9  # relative, of numbers that another processor or library adds up otherwise
MOST_SHOWN = 3  # differences named of one file


def _switches(study: Study) -> list[tuple[Run, Any]]:
    return study.measure(SWITCHES, study.variants, limit=study.settings["limit"])


def _ablations(study: Study) -> pd.DataFrame:
    return ablation_table(
        _switches(study), profile_frame(study.measure(GATE_PROFILE, study.variants))
    )


# What comes after <task>_<corpus> in a table's name -> how it is made.
MAKERS: dict[str, Callable[[Study], pd.DataFrame]] = {
    "": lambda study: comparison_table(study.example.task, study.runs),
    "_runs": lambda study: summary_frame(study.runs),
    "_bootstrap": lambda study: bootstrap_table(study.runs),
    "_compression": lambda study: compression_table(study.measure(COMPRESSION)),
    "_compression_sizes": lambda study: compression_sizes(study.measure(COMPRESSION)),
    "_gates": lambda study: gate_table(profile_frame(study.measure(GATE_PROFILE))),
    "_alignment": lambda study: contrasts_frame(study.measure(ALIGNMENT)),
    "_lowest_tenth": lambda study: lowest_tenth_table(study.measure(ALIGNMENT)),
    "_alignment_units": lambda study: units_table(study.measure(ALIGNMENT)),
    "_gap": lambda study: gap_table(study.runs),
    "_ablations": _ablations,
    "_evaluation_gates": lambda study: evaluation_table(_switches(study)),
}


TRIAL_MAKERS = {f"_{kind}": maker for kind, maker in TRIAL_TABLES.items()}
Runs = Mapping[str, Run]  # by their place below the folder of runs


def study_of(runs: Runs, sources: Iterable[dict[str, Any]], notebook: str = "") -> Study:
    """The study of the runs that a provenance names.

    Raises:
        KeyError: one of them is not there.
        ParameterError: the first one's configuration is none.
    """
    chosen = [runs[source["run"]] for source in sources]
    about = ("task", "preset", "corpus", "languages")
    arguments = arguments_of(chosen[0].config)
    example = configure(**{name: arguments[name] for name in about if name in arguments})
    defaults = default_runs(chosen) or chosen
    return Study(notebook, example, defaults, chosen, None, save=False, progress_bar=False)


def made_again(maker: str, runs: Runs, sources: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """The table that the records of the runs that a provenance names give.

    Args:
        maker: a key of `MAKERS`, or of `TRIAL_MAKERS`.
        runs: those there are, or the trials.
        sources: ``runs`` of the table's provenance.

    Raises:
        OSError, ValueError, LookupError, RunError: a record is missing or damaged.
    """
    if maker in TRIAL_MAKERS:
        return TRIAL_MAKERS[maker]([runs[source["run"]] for source in sources])
    return MAKERS[maker](study_of(runs, sources))


def table_differences(path: Path, frame: pd.DataFrame) -> list[str]:
    """What differs between the files of a table and what the records give.

    Args:
        path: of the table, without suffix.
        frame: as the records give it.

    Raises:
        OSError, ValueError: a file is missing or damaged.
    """
    name = path.name
    with tempfile.TemporaryDirectory() as scratch:
        save_table(frame, Path(scratch) / "table", {})
        found = []
        for suffix, cells in ((".csv", _csv_cells), (".md", _markdown_cells)):
            stored = read_text(f"{path}{suffix}")
            made = (Path(scratch) / f"table{suffix}").read_text(encoding="utf-8")
            found += [f"{name}{suffix}: {d}" for d in cell_differences(cells(stored), cells(made))]
    return found


def report_differences(folder: Path, runs: Runs) -> list[str]:
    """What differs between ``claims.json`` and ``report.md`` and what the records give.

    Raises:
        OSError, ValueError, LookupError, RunError: a file or record is missing or damaged.
    """
    claims = read_json(folder / "claims.json")
    sources: dict[str, list[dict[str, Any]]] = {}
    for source in claims["provenance"]["runs"]:
        sources.setdefault(str(Path(source["run"]).parents[1]), []).append(source)
    studies = [study_of(runs, group, "09_report") for group in sources.values()]
    evidence = gather_evidence(studies, folder)
    made, text = make_report(
        studies[0].example.preset, studies, evidence, claims["provenance"], folder
    )
    found = _json_differences(claims, json.loads(json.dumps(made)), "claims.json")
    stored = read_text(folder / "report.md").splitlines()
    for number, (ours, theirs) in enumerate(zip(text.splitlines(), stored, strict=False), start=1):
        if ours != theirs and cell_differences([_cells(theirs)], [_cells(ours)]):
            found.append(f"report.md: line {number} reads {theirs!r}, the records give {ours!r}")
    if len(stored) != len(text.splitlines()):
        found.append(f"report.md: {len(stored)} lines, the records give {len(text.splitlines())}")
    return found[:MOST_SHOWN]


def cell_differences(stored: Sequence[list[str]], made: Sequence[list[str]]) -> list[str]:
    """The first cells that differ; numbers may by a relative `TOLERANCE`."""
    if [len(row) for row in stored] != [len(row) for row in made]:
        return [f"{len(stored)} lines, the records give {len(made)}, or of other lengths"]
    header = made[0] if made else []
    found = [
        f"line {line}, {header[column]!r}: {theirs!r}, the records give {ours!r}"
        for line, (old, new) in enumerate(zip(stored, made, strict=True), start=1)
        for column, (theirs, ours) in enumerate(zip(old, new, strict=True))
        if not _same(theirs, ours)
    ]
    return found[:MOST_SHOWN]


def _same(one: Any, other: Any) -> bool:
    if one == other:
        return True
    try:
        return math.isclose(float(one), float(other), rel_tol=TOLERANCE, abs_tol=1e-12)
    except (TypeError, ValueError, OverflowError):
        return False


def _csv_cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def _markdown_cells(text: str) -> list[list[str]]:
    return [_cells(line) for line in text.splitlines()]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]


def _json_differences(stored: Any, made: Any, place: str) -> list[str]:
    if isinstance(stored, dict) and isinstance(made, dict) and stored.keys() == made.keys():
        pairs = [(stored[key], made[key], f"{place}: {key}") for key in made]
    elif isinstance(stored, list) and isinstance(made, list) and len(stored) == len(made):
        pairs = [(a, b, f"{place} {i}") for i, (a, b) in enumerate(zip(stored, made, strict=True))]
    elif _same(stored, made):
        return []
    else:
        return [f"{place} is {str(stored)[:60]!r}, the records give {str(made)[:60]!r}"]
    return [difference for pair in pairs for difference in _json_differences(*pair)]
