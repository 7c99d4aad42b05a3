"""What is published verifies, and every kind of tampering is found and named."""

import json
import shutil

import pandas as pd
import pytest

from g2lstm import verification
from g2lstm.checkpoint import CheckpointError
from g2lstm.corpus_sources import CorpusError
from g2lstm.manifest import write_manifest
from g2lstm.plots import save_table
from g2lstm.records import read_run
from g2lstm.results import summary_frame
from g2lstm.verification import Published, expected_notebooks, verify
from sources import ROOT

SIGMOID = "runs/language-model/ptb/small/sigmoid/seed-1"
TABLE = "tables/language_model_ptb.csv"
FIGURE = "figures/language_model_ptb_saturation"
FILES, RUNS, MEASUREMENTS, TABLES, FIGURES, NOTEBOOKS, REPORT = (
    "files are as the manifest lists them",
    "records of runs agree with each other",
    "measurements belong to their runs",
    "tables follow from the records",
    "figures have their provenance",
    "notebooks ran without errors",
    "report and claims follow from the records",
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The published results of the preset `small`, sealed."""
    folder = tmp_path_factory.mktemp("verification") / "small"
    shutil.copytree(ROOT / "results/small", folder)
    write_manifest(folder)
    return folder


@pytest.fixture
def change(copy):
    """Change a file of the copy (None: remove it) until the test is over."""
    before = {}

    def write(name, change):
        path = copy / name
        before[path] = path.read_bytes() if path.exists() else None
        if change is None:
            path.unlink()
        else:
            path.write_bytes(change(before[path]))

    yield write
    for path, content in before.items():
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
    write_manifest(copy)


def failures(folder):
    """Kind -> (file below the folder, problem) of all failures."""
    return {
        check.kind: [(f.file.removeprefix(f"{folder}/"), f.problem) for f in check.failures]
        for check in verify(folder)
        if check.failures
    }


def edited(**values):
    """A change of entries of a JSON object."""
    return lambda content: json.dumps(json.loads(content) | values).encode()


def test_all_kinds_are_counted(copy):
    checks = verify(copy)
    assert not any(check.failures for check in checks)
    counts = {check.kind: check.count for check in checks}
    assert list(counts) == [FILES, RUNS, MEASUREMENTS, TABLES, FIGURES, NOTEBOOKS, REPORT]
    files = [path for path in copy.rglob("*") if path.is_file()]
    assert counts[FILES] == len(files) - 1
    assert counts[RUNS] == len([path for path in files if path.name == "metrics.jsonl"])
    assert counts[TABLES] == len([path for path in files if path.suffix == ".csv"])
    assert counts[FIGURES] == len([path for path in files if path.suffix == ".png"])


def test_a_changed_byte_in_a_figure(copy, change):
    change(f"{FIGURE}.png", lambda content: content[:-20] + b"x" + content[-19:])
    (failure,) = (failure for check in verify(copy) for failure in check.failures)
    assert failure.file == str(copy / f"{FIGURE}.png")
    assert failure.problem == "was changed: its sha256 is not the one in the manifest"
    assert "git checkout" in failure.remedy
    assert f"g2lstm seal {copy}" in failure.remedy


def test_an_edited_number_in_a_table_even_if_sealed(copy, change):
    cell = pd.read_csv(copy / TABLE).loc[0, "test"]
    edited_cell = f"1{cell}"
    change(TABLE, lambda content: content.replace(cell.encode(), edited_cell.encode(), 1))
    write_manifest(copy)
    ((kind, found),) = failures(copy).items()
    assert kind == TABLES
    problem = f"line 2, 'test': '{edited_cell}', the records give '{cell}'"
    assert found == [(TABLE, f"language_model_ptb.csv: {problem}")]


def test_an_edited_summary_even_if_sealed(copy, change):
    change(f"{SIGMOID}/summary.json", edited(valid_perplexity=80.0, best_epoch=2))
    found = failures(copy)
    assert found[FILES][0][0] == f"{SIGMOID}/summary.json"
    assert found[RUNS] == [(SIGMOID, "summary.json: best_epoch 2 is not the best of metrics.jsonl")]
    assert {file for file, _ in found[TABLES]} == {
        "tables/language_model_ptb.csv",
        "tables/language_model_ptb_runs.csv",
    }


def test_epochs_out_of_order(copy, change):
    change(
        f"{SIGMOID}/metrics.jsonl", lambda content: content.replace(b'"epoch": 2,', b'"epoch": 3,')
    )
    problem = "metrics.jsonl does not number its epochs from 1 to 10"
    assert failures(copy)[RUNS] == [(SIGMOID, problem)]


def test_a_missing_and_an_extra_file(copy, change):
    change(f"{FIGURE}.svg", None)
    change("tables/extra.csv", lambda content: b"1,2\n")
    found = failures(copy)
    assert found[FILES] == [
        (f"{FIGURE}.svg", "is missing"),
        ("tables/extra.csv", "is not listed in the manifest"),
    ]
    assert found[FIGURES] == [(FIGURE, "language_model_ptb_saturation.svg is missing")]
    assert found[TABLES] == [
        ("tables/extra.csv", "nothing here makes a table of this name from the records")
    ]


def test_records_that_contradict_each_other(copy, change):
    change(f"{SIGMOID}/provenance.json", edited(seed=7, commit="unknown"))
    change(f"{SIGMOID}/measurements/switches.json", edited(fingerprint="0" * 64))
    change("notebooks/02_language_model_results_ptb.ipynb", _failed)
    change("claims.json", _verdict_changed)
    found = failures(copy)
    problems = [problem for _, problem in found[RUNS]]
    assert "provenance.json has another seed than config.json" in problems
    assert "provenance.json has no usable commit: 'unknown'" in problems
    assert found[MEASUREMENTS] == [
        (f"{SIGMOID}/measurements/switches.json", "is of another fingerprint than the run")
    ]
    assert [problem for _, problem in found[NOTEBOOKS]] == ["cell 3 ended with ValueError"]
    assert any("the records give 'opposite'" in problem for _, problem in found[REPORT])
    assert any("is of another run than" in problem for _, problem in found[FIGURES])


def test_a_run_of_another_preset_even_if_sealed(copy, change):
    config = json.loads((copy / SIGMOID / "config.json").read_text())
    training = config["training"] | {"learning_rate": 0.5}
    change(f"{SIGMOID}/config.json", edited(training=training))
    write_manifest(copy)
    (problem,) = [problem for _, problem in failures(copy)[RUNS]]
    assert "was made with another preset: learning_rate 0.5, now 0.006" in problem


def test_a_summary_without_content_even_if_sealed(copy, change):
    change(f"{SIGMOID}/summary.json", lambda content: b"{}")
    write_manifest(copy)
    assert failures(copy)[RUNS]


def test_a_report_that_leaves_out_a_run_in_other_settings(tmp_path):
    """Where a published run is in no report."""
    folder = tmp_path / "quick"
    shutil.copytree(ROOT / "results/quick", folder)
    variant = "runs/language-model/grammar/quick/gumbel_tau-0.9_p-0.5/seed-1"
    claims = json.loads((folder / "claims.json").read_text())
    runs = [run for run in claims["provenance"]["runs"] if f"runs/{run['run']}" != variant]
    assert len(runs) == len(claims["provenance"]["runs"]) - 1
    claims["provenance"]["runs"] = runs
    (folder / "claims.json").write_text(json.dumps(claims))
    write_manifest(folder)
    assert any("leaves out" in problem for _, problem in failures(folder)[REPORT])


def _verdict_changed(content):
    old = b'"verdict": "opposite"'
    assert old in content
    return content.replace(old, b'"verdict": "as in the paper"', 1)


def _failed(content):
    notebook = json.loads(content)
    place = next(i for i, c in enumerate(notebook["cells"]) if c["cell_type"] == "code")
    notebook["cells"][place]["outputs"] = [{"output_type": "error", "ename": "ValueError"}]
    return json.dumps(notebook).encode()


def test_a_damaged_record_is_named_and_the_rest_is_checked(copy, change):
    change(f"{SIGMOID}/summary.json", lambda content: b"{")
    change("manifest.json", None)
    found = failures(copy)
    assert found[FILES] == [("manifest.json", "is missing")]
    ((file, problem),) = found[RUNS]
    assert file == SIGMOID
    assert "holds no finished run" in problem
    assert any(f"names {SIGMOID[5:]}, which is not there" in p for _, p in found[FIGURES])


def test_a_table_of_chosen_runs_even_if_it_follows_from_them(copy, change):
    name, chosen = (
        "tables/language_model_ptb_runs",
        "language-model/ptb/small/sharpened_tau-0.2/seed-1",
    )
    record = json.loads((copy / f"{name}.provenance.json").read_text())
    record["runs"] = [source for source in record["runs"] if source["run"] != chosen]
    for suffix in ("csv", "md", "provenance.json"):
        change(f"{name}.{suffix}", lambda content: content)
    rest = [read_run(copy / "runs" / source["run"]) for source in record["runs"]]
    save_table(summary_frame(rest), copy / name, record)
    change("claims.json", lambda content: _without(content, chosen))
    write_manifest(copy)
    found = failures(copy)
    assert found[TABLES] == [(f"{name}.csv", f"its provenance leaves out {chosen}")]
    assert ("claims.json", f"its provenance leaves out {chosen}") in found[REPORT]


def _without(content, run):
    claims = json.loads(content)
    sources = claims["provenance"]["runs"]
    claims["provenance"]["runs"] = [source for source in sources if source["run"] != run]
    return json.dumps(claims).encode()


@pytest.mark.parametrize("preset", ["quick", "small", "paper-brief"])
def test_the_notebooks_of_published_runs_are_those_of_the_grid(preset):
    runs, notebooks = ROOT / "results" / preset / "runs", ROOT / "results" / preset / "notebooks"
    places = [path.parent.relative_to(runs).as_posix() for path in runs.rglob("summary.json")]
    there = {path.name for path in notebooks.iterdir()}
    expected = expected_notebooks(places, measured=preset != "paper-brief")
    assert expected == there - {"00_gumbel_gates.ipynb"}  # it is about no run
    assert expected_notebooks(["odd/corpus/quick/sigmoid/seed-1"]) == {"09_report.ipynb"}


def test_other_settings_than_the_grids_have_no_notebook_of_their_own():
    place = "language-model/ptb/{}/seed-1"
    of_grid = expected_notebooks([place.format("small/sigmoid")])
    assert "01_language_model_ptb_sigmoid_seed-1.ipynb" in of_grid
    for other in ("small/sigmoid_epochs-2", "own/sigmoid"):
        assert expected_notebooks([place.format(other)]) == of_grid - {
            "01_language_model_ptb_sigmoid_seed-1.ipynb"
        }


def test_runs_on_which_nothing_was_measured_need_no_report(tmp_path):
    folder = tmp_path / "paper-brief"
    shutil.copytree(ROOT / "results/paper-brief", folder)
    assert failures(folder) == {}
    (folder / "report.md").write_text("# Left over\n", encoding="utf-8")
    write_manifest(folder)
    assert failures(folder).keys() == {REPORT}
    (folder / "report.md").unlink()
    run = next(folder.glob("runs/*/*/*/*/*"))
    other = next((ROOT / "results/small/runs/language-model").glob("*/*/*/*/measurements"))
    shutil.copytree(other, run / "measurements")
    write_manifest(folder)
    found = failures(folder)
    assert found.keys() == {MEASUREMENTS, TABLES, FIGURES, NOTEBOOKS, REPORT}
    assert ("notebooks/09_report.ipynb", "is missing") in found[NOTEBOOKS]


@pytest.mark.parametrize("preset", ["quick", "small"])
def test_of_results_that_were_measured_everything_is_asked_for(preset):
    assert Published(ROOT / "results" / preset).measured


def test_notebooks_that_are_missing_or_empty_even_if_sealed(copy, change):
    gone, empty = (
        "02_language_model_results_ptb.ipynb",
        "03_translation_multi30k-de-en_sigmoid_seed-1.ipynb",
    )
    change(f"notebooks/{gone}", None)
    change(f"notebooks/{empty}", edited(cells=[]))
    write_manifest(copy)
    assert failures(copy) == {
        NOTEBOOKS: [
            (f"notebooks/{gone}", "is missing"),
            (f"notebooks/{empty}", "no cell was executed"),
        ]
    }


NESTED = b"[" * 100_000


def test_numbers_out_of_range_and_nested_files_are_findings(copy, change):
    sharpened = SIGMOID.replace("sigmoid", "sharpened_tau-0.2")
    notebook, measurement = "notebooks/09_report.ipynb", f"{SIGMOID}/measurements/switches.json"
    change(f"{SIGMOID}/metrics.jsonl", _high_loss)
    change(f"{sharpened}/summary.json", edited(test_loss=1000))
    for name in (notebook, measurement):
        change(name, lambda content: NESTED)
    change(
        "claims.json",
        lambda content: content.replace(b'"number": 1', b'"number": 1' + b"0" * 400),
    )
    found = failures(copy)
    assert {file for file, problem in found[RUNS] if "OverflowError" in problem} == {
        SIGMOID,
        sharpened,
    }
    assert [file for file, _ in found[MEASUREMENTS]] == [measurement]
    assert [file for file, _ in found[NOTEBOOKS]] == [notebook]
    assert any("the records give" in problem for _, problem in found[REPORT])
    change("claims.json", lambda content: NESTED)
    ((file, problem),) = failures(copy)[REPORT]
    assert file == "claims.json"
    assert "is no JSON" in problem


def _high_loss(content):
    first, *others = content.decode().splitlines(keepends=True)
    return "".join([json.dumps(json.loads(first) | {"valid_loss": 1000}) + "\n", *others]).encode()


@pytest.fixture
def one_run(tmp_path):
    """A folder that holds the records of one run and nothing else."""
    shutil.copytree(ROOT / "results/small" / SIGMOID, tmp_path / "small" / SIGMOID)
    return tmp_path / "small"


@pytest.mark.parametrize("error", [CheckpointError, CorpusError])
def test_a_measurement_that_cannot_be_made_anew_is_a_finding(one_run, monkeypatch, error):
    def measured(run, kind):
        raise error("no luck")

    monkeypatch.setattr(verification, "run_problems", measured)
    problem = f"is damaged or does not fit ({error.__name__}: no luck)"
    assert failures(one_run)[RUNS] == [(SIGMOID, problem)]


def test_the_remedy_names_the_preset_of_the_folder_one_is_in(one_run, monkeypatch):
    monkeypatch.chdir(one_run)
    remedies = {failure.remedy for check in verify(".") for failure in check.failures}
    assert "make them again from the records: make reproduce PRESET=small" in remedies


@pytest.mark.parametrize("left", ["claims.json", "tables/x.csv", "notebooks/x.ipynb"])
def test_results_without_their_runs_are_no_model(tmp_path, left):
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    write_manifest(tmp_path)
    assert failures(tmp_path)[RUNS] == [("runs", "holds no runs")]


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        verify(tmp_path / "nowhere")
