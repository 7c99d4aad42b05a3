"""Verification of published results: every file, record, number, figure and notebook."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from g2lstm.manifest import MANIFEST, differences, listed_files
from g2lstm.rebuilding import MAKERS, report_differences, table_differences
from g2lstm.record_checks import (
    figure_problems,
    measurement_problems,
    missing,
    notebook_problems,
    provenance_problems,
    run_problems,
)
from g2lstm.records import MEASUREMENTS, Run, RunError, read_run
from g2lstm.results import FIGURES as RUN_FIGURES
from g2lstm.results import TABLES as RUN_TABLES
from g2lstm.studies import FIGURES as STUDY_FIGURES
from g2lstm.studies import TABLES as STUDY_TABLES

Items = Iterator[tuple[str, list[str]]]  # a file or directory, and what is wrong with it
DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RunError)


@dataclass(frozen=True)
class Failure:
    """What is wrong with a file, and what to do about it."""

    file: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Published:
    """A folder of results, and its runs by their place: those that can be read, or why not."""

    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass
class Check:
    """What became of one kind of checks.

    Attributes:
        kind: in words, such as "tables follow from the records".
        count: what was looked at.
        failures: what was found.
    """

    kind: str
    count: int = 0
    failures: list[Failure] = field(default_factory=list)


def verify(folder: Path | str) -> list[Check]:
    """Check a folder of a preset's results, or of a released model.

    Of a model, which holds no runs, only the checksums are looked at.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: name one of results or of a model")
    again = f"make them again from the records: make reproduce PRESET={folder.name}"
    kinds: list[tuple[str, Callable[[Published], Items], str]] = [
        (
            "files are as the manifest lists them", _files,
            f"git checkout brings the published one back; if the change is meant: g2lstm seal "
            f"{folder}",
        ),
    ]  # fmt: skip
    if (folder / "runs").exists():
        runs = f"bring the published records back, or make the run again, then {again}"
        kinds += [
            ("records of runs agree with each other", _runs, runs),
            ("measurements belong to their runs", _measurements, runs),
            ("tables follow from the records", _tables, again),
            ("figures have their provenance", _figures, again),
            ("notebooks ran without errors", _notebooks, again),
            ("report and claims follow from the records", _report, again),
        ]
    published = _read(folder)
    return [_check(kind, items, published, remedy) for kind, items, remedy in kinds]


def _read(folder: Path) -> "Published":
    published = Published(folder)
    for directory in sorted(folder.glob("runs/*/*/*/*/*")):
        if directory.is_dir():
            place = directory.relative_to(folder / "runs").as_posix()
            try:
                published.runs[place] = read_run(directory.resolve())
            except DAMAGED as error:
                published.damaged[place] = str(error)
    return published


def _check(
    kind: str, items: Callable[["Published"], Items], published: "Published", remedy: str
) -> Check:
    check = Check(kind)
    for file, problems in items(published):
        check.count += 1
        check.failures += [Failure(str(published.folder / file), p, remedy) for p in problems]
    return check


def _problems(find: Callable[[], list[str]]) -> list[str]:
    """What is found; where a record is too damaged to look at, that."""
    try:
        return find()
    except DAMAGED as error:
        return [f"is damaged or does not fit ({type(error).__name__}: {error})"]


def _files(published: Published) -> Items:
    folder = published.folder
    if not (folder / MANIFEST).exists():
        yield MANIFEST, ["is missing"]
        return
    try:
        found = dict.fromkeys(listed_files(folder), "") | dict(differences(folder))
    except ValueError as error:
        yield MANIFEST, [str(error)]
        return
    for name, problem in sorted(found.items()):
        yield name, [problem] if problem else []


def _runs(published: Published) -> Items:
    if not published.runs and not published.damaged:
        yield "runs", ["holds no runs"]
    for place, problem in published.damaged.items():
        yield f"runs/{place}", [problem]
    for place, run in published.runs.items():
        yield f"runs/{place}", _problems(lambda run=run: run_problems(run))


def _measurements(published: Published) -> Items:
    for path in sorted(published.folder.glob(f"runs/*/*/*/*/*/{MEASUREMENTS}/*")):
        name = path.relative_to(published.folder).as_posix()
        yield name, _problems(lambda path=path: measurement_problems(path))


def _labels(published: Published) -> list[tuple[str, str]]:
    """Kind of task and label of the corpus, of the runs there are."""
    pairs = {tuple(place.split("/")[:2]) for place in (*published.runs, *published.damaged)}
    return sorted((task.replace("-", "_"), corpus) for task, corpus in pairs)


def _tables(published: Published) -> Items:
    known = {}
    for kind, corpus in _labels(published):
        studies = [f"_{name}" for names in STUDY_TABLES.values() for name in names]
        makers = (*RUN_TABLES.get(kind, ()), *studies)
        known |= {f"{kind}_{corpus}{maker}": maker for maker in makers}
    for name in sorted(known.keys() | _stems(published.folder / "tables")):
        problems = _problems(lambda name=name: _table_problems(published, name, known.get(name)))
        yield f"tables/{name}.csv", problems


def _table_problems(published: Published, name: str, maker: str | None) -> list[str]:
    if maker not in MAKERS:
        return ["nothing here makes a table of this name from the records"]
    path = published.folder / "tables" / name
    problems = missing(path, ("csv", "md", "provenance.json"))
    if problems:
        return problems
    record = json.loads(Path(f"{path}.provenance.json").read_text(encoding="utf-8"))
    problems = [f"its provenance {p}" for p in provenance_problems(record, published.runs)]
    return problems + table_differences(published.folder, name, maker, published.runs)


def _figures(published: Published) -> Items:
    known = {
        f"{kind}_{corpus}_{name}"
        for kind, corpus in _labels(published)
        for names in (RUN_FIGURES.get(kind, ()), *STUDY_FIGURES.values())
        for name in names
    }
    for name in sorted(known | _stems(published.folder / "figures")):
        path = published.folder / "figures" / name
        problems = _problems(lambda path=path: figure_problems(path, published.runs))
        yield f"figures/{name}", problems


def _stems(folder: Path) -> set[str]:
    """Names without the suffixes that tables and figures have; dots in them are kept."""
    return {
        path.name.removesuffix(".provenance.json").removesuffix(path.suffix)
        for path in folder.glob("[!.]*")
    }


def _notebooks(published: Published) -> Items:
    paths = sorted(published.folder.glob("notebooks/*.ipynb"))
    if not paths:
        yield "notebooks", ["holds no executed notebooks"]
    for path in paths:
        yield f"notebooks/{path.name}", _problems(lambda path=path: notebook_problems(path))


def _report(published: Published) -> Items:
    def problems() -> list[str]:
        text = (published.folder / "claims.json").read_text(encoding="utf-8")
        record = json.loads(text)["provenance"]
        found = [f"its provenance {p}" for p in provenance_problems(record, published.runs)]
        return found + report_differences(published.folder, published.runs)

    yield "claims.json", _problems(problems)
