"""Verification of published results: every file, record, number, figure and notebook."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from g2lstm.analysis import default_runs
from g2lstm.checkpoint import CheckpointError
from g2lstm.corpus_sources import CorpusError
from g2lstm.experiments import NOTEBOOKS, configure, gate_settings
from g2lstm.files import read_json
from g2lstm.gates import GATES
from g2lstm.identity import read_record
from g2lstm.manifest import MANIFEST, differences, listed_files
from g2lstm.model_folders import ModelError
from g2lstm.presets import PRESETS
from g2lstm.rebuilding import (
    MAKERS,
    TRIAL_MAKERS,
    made_again,
    report_differences,
    table_differences,
)
from g2lstm.record_checks import (
    figure_problems,
    left_out,
    measurement_problems,
    missing,
    notebook_problems,
    provenance_problems,
    run_problems,
)
from g2lstm.records import DAMAGED, MEASUREMENTS, WEIGHTS, Run, read_run
from g2lstm.report import FOREST
from g2lstm.results import FIGURES as RUN_FIGURES
from g2lstm.results import TABLES as RUN_TABLES
from g2lstm.saved_models import open_model
from g2lstm.studies import FIGURES as STUDY_FIGURES
from g2lstm.studies import SOMETIMES_TABLES
from g2lstm.studies import TABLES as STUDY_TABLES
from g2lstm.trials import TABLES as TRIAL_TABLES
from g2lstm.trials import read_trial

Items = Iterator[tuple[str, list[str]]]  # a file or directory, and what is wrong with it
RESULTS = ("runs", "tables", "notebooks", "claims.json")  # each tells results from a model
REPORT = ("claims.json", "report.md")
# A measurement that does not fit its run is made anew where there are weights.
UNFIT = (*DAMAGED, CheckpointError, CorpusError, ModelError)


@dataclass(frozen=True)
class Failure:
    """What is wrong with a file, and what to do about it."""

    file: str
    problem: str
    remedy: str


@dataclass(frozen=True)
class Published:
    """A folder of results, and its runs by their place: those that can be read, or why not.

    ``trials`` are those that were not tested, by kind.
    """

    folder: Path
    runs: dict[str, Run] = field(default_factory=dict)
    trials: dict[str, dict[str, Run]] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    @property
    def all_runs(self) -> dict[str, dict[str, Run]]:
        """Runs and trials by the folder they lie in."""
        return {"runs": self.runs, **self.trials}

    @property
    def defaults(self) -> dict[str, Run]:
        """The runs in default settings."""
        return {place: run for place, run in self.runs.items() if default_runs([run])}

    @property
    def measured(self) -> bool:
        """Whether anything was measured on the weights: what the studies and the report rest on."""
        return any(self.folder.glob(f"runs/*/*/*/*/*/{MEASUREMENTS}/*"))

    @property
    def places(self) -> list[str]:
        """Of all runs, below the folder ``runs``."""
        damaged = [place.split("/", 1) for place in self.damaged]
        return [*self.runs, *(place for kind, place in damaged if kind == "runs")]


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

    A model holds nothing of `RESULTS`; of it the checksums are looked at, and whether all of its
    files belong to the run that it is released as.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: name one of results or of a model")
    again = f"make them again from the records: make reproduce PRESET={folder.resolve().name}"
    kinds: list[tuple[str, Callable[[Published], Items], str]] = [
        (
            "files are as the manifest lists them", _files,
            f"git checkout brings the published one back; if the change is meant: g2lstm seal "
            f"{folder}",
        ),
    ]  # fmt: skip
    if any((folder / name).exists() for name in RESULTS):
        runs = f"bring the published records back, or make the run again, then {again}"
        kinds += [
            ("records of runs agree with each other", _runs, runs),
            ("measurements belong to their runs", _measurements, runs),
            ("tables follow from the records", _tables, again),
            ("figures have their provenance", _figures, again),
            ("notebooks ran without errors", _notebooks, again),
            ("report and claims follow from the records", _report, again),
        ]
    else:
        again = "put back a good copy of the model, or release it again with g2lstm release"
        kinds.append(("files are those of one run", _model, again))
    published = _read(folder)
    return [_check(kind, items, published, remedy) for kind, items, remedy in kinds]


def _read(folder: Path) -> "Published":
    published = Published(folder)
    published.trials.update((kind, {}) for kind in TRIAL_TABLES)
    for kind, found in published.all_runs.items():
        for directory in sorted(folder.glob(f"{kind}/*/*/*/*/*")):
            if directory.is_dir():
                place = directory.relative_to(folder / kind).as_posix()
                try:
                    directory = directory.resolve()
                    found[place] = (
                        read_run(directory) if kind == "runs" else read_trial(directory, kind)
                    )
                except DAMAGED as error:
                    published.damaged[f"{kind}/{place}"] = str(error)
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
    except UNFIT as error:
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
        yield place, [problem]
    for kind, found in published.all_runs.items():
        for place, run in found.items():
            yield (
                f"{kind}/{place}",
                _problems(lambda run=run, kind=kind: run_problems(run, kind)),
            )


def _measurements(published: Published) -> Items:
    for kind in published.all_runs:
        for path in sorted(published.folder.glob(f"{kind}/*/*/*/*/*/{MEASUREMENTS}/*")):
            name = path.relative_to(published.folder).as_posix()
            yield name, _problems(lambda path=path: measurement_problems(path))


def _model(published: Published) -> Items:
    def problems(path: Path) -> list[str]:
        if path.name == WEIGHTS:
            open_model(published.folder, device="cpu")
        elif path.suffix == ".json":
            read_record(path)
        return []

    for name in listed_files(published.folder):
        path = published.folder / name
        yield name, _problems(lambda path=path: problems(path))


def _labels(places: Iterable[str]) -> list[tuple[str, str, str]]:
    """Task, the same in names of files, and label of the corpus, of runs at these places."""
    pairs = {tuple(place.split("/")[:2]) for place in places}
    return sorted((task, task.replace("-", "_"), corpus) for task, corpus in pairs)


def _tables(published: Published) -> Items:
    known, there = {}, _stems(published.folder / "tables")
    for task, kind, corpus in _labels(published.places):
        studies = STUDY_TABLES if published.measured else {}
        names = [f"_{name}" for names in studies.values() for name in names]
        names += [f"_{name}" for name in SOMETIMES_TABLES if f"{kind}_{corpus}_{name}" in there]
        makers = (*RUN_TABLES.get(kind, ()), *names)
        known |= {f"{kind}_{corpus}{maker}": (maker, f"{task}/{corpus}/") for maker in makers}
    for trials, found in published.trials.items():
        for task, kind, corpus in _labels(found):
            known[f"{kind}_{corpus}_{trials}"] = (f"_{trials}", f"{task}/{corpus}/")
    for name in sorted(known.keys() | there):
        problems = _problems(
            lambda name=name: _table_problems(published, name, *known.get(name, ()))
        )
        yield f"tables/{name}.csv", problems


def _table_problems(
    published: Published, name: str, maker: str | None = None, about: str = ""
) -> list[str]:
    if maker not in MAKERS | TRIAL_MAKERS:
        return ["nothing here makes a table of this name from the records"]
    path = published.folder / "tables" / name
    problems = missing(path, ("csv", "md", "provenance.json"))
    if problems:
        return problems
    record = read_json(f"{path}.provenance.json")
    if maker in TRIAL_MAKERS:
        runs = wanted = published.trials[maker.removeprefix("_")]
    else:
        runs, wanted = published.runs, published.defaults
    problems = provenance_problems(record, runs) + left_out(record, wanted, about)
    problems = [f"its provenance {problem}" for problem in problems]
    return problems + table_differences(path, made_again(maker, runs, record["runs"]))


def _figures(published: Published) -> Items:
    studies = STUDY_FIGURES if published.measured else {}
    known = {
        f"{kind}_{corpus}_{name}"
        for _, kind, corpus in _labels(published.places)
        for names in (RUN_FIGURES.get(kind, ()), *studies.values())
        for name in names
    } | ({FOREST} if published.measured else set())
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
    there = {path.name: path for path in published.folder.glob("notebooks/*.ipynb")}
    for name in sorted(there.keys() | expected_notebooks(published.places, published.measured)):
        path = there.get(name)
        problems = _problems(lambda path=path: notebook_problems(path)) if path else ["is missing"]
        yield f"notebooks/{name}", problems


def expected_notebooks(places: Iterable[str], measured: bool = True) -> set[str]:
    """Names of the notebooks that the grid executes where there are runs at these places.

    Args:
        places: "<task>/<corpus>/<preset>/<settings>/seed-<n>" each.
        measured: whether those that measure, and the report, are among them.
    """
    names = {"09_report.ipynb"} if measured else set()
    places = [place for place in places if place.split("/")[0] in NOTEBOOKS]
    for task, kind, corpus in _labels(places):
        number = int(NOTEBOOKS[task].partition("_")[0])
        names.add(f"{number + 1:02d}_{kind}_results_{corpus}.ipynb")
        if measured:
            names |= {f"{study}_{kind}_{corpus}.ipynb" for study in STUDY_TABLES}
        of_them = [
            place.split("/")[2:] for place in places if place.startswith(f"{task}/{corpus}/")
        ]
        for preset, settings, seed in of_them:
            if run := _settings_of_grid(task, preset).get(settings):
                names.add(f"{number:02d}_{kind}_{corpus}_{run}_{seed}.ipynb")
    return names


@cache
def _settings_of_grid(task: str, preset: str) -> dict[str, str]:
    """Folder of the settings of each run of the grid -> how its notebook's name has them."""
    if preset not in PRESETS[task]:
        return {}
    about = {"task": task, "preset": preset}
    found = {gate_settings(configure(gate=gate, **about)): gate for gate in GATES}
    for settings in PRESETS[task][preset].ablations:
        name = gate_settings(configure(gate="gumbel", **settings, **about))
        found[name] = name
    return found


def _report(published: Published) -> Items:
    def problems() -> list[str]:
        record, runs = read_json(published.folder / "claims.json")["provenance"], published.runs
        found = provenance_problems(record, runs)
        for task, _, corpus in _labels(source["run"] for source in record["runs"]):
            found += left_out(record, runs, f"{task}/{corpus}/")
        found = [f"its provenance {problem}" for problem in found]
        return found + report_differences(published.folder, published.runs)

    if published.measured or any((published.folder / name).exists() for name in REPORT):
        yield "claims.json", _problems(problems)
