"""The grid as `make reproduce` runs it: what runs, and when again. The notebooks are stand-ins."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from g2lstm.command_line import parser
from g2lstm.experiments import configure, gate_settings
from g2lstm.gates import GATES
from g2lstm.manifest import differences
from g2lstm.presets import PRESETS
from g2lstm.results import FIGURES as RUN_FIGURES
from g2lstm.results import TABLES as RUN_TABLES
from g2lstm.studies import FIGURES as STUDY_FIGURES
from g2lstm.studies import SOMETIMES, TABLES
from sources import MODULES, NOTEBOOKS, copy_project, own_imports, text, users_environment

# Stands in for a training run: a job that is killed after its first epoch goes on from there.
TRAIN = """
import json, os, time
from g2lstm.experiments import configure, run_directory
about = {"task": task, "languages": globals().get("languages"), "overrides": overrides}
about |= {"temperature": temperature, "noise_probability": noise_probability}
about |= {"schedule": schedule, "temperature_end": temperature_end}
folder = run_directory(configure(preset=preset, corpus=corpus, gate=gate, seed=seed, **about))
assert gate != os.environ.get("FAIL"), "told to fail"
resumed = (folder / "state").is_dir()
(folder / "state").mkdir(parents=True, exist_ok=True)
if os.environ.get("HANG") and not resumed:
    time.sleep(600)
(folder / "summary.json").write_text(json.dumps({"resumed": resumed}))
"""
# Stands in for the tables and figures over the runs, whose names it is told.
RESULTS = """
from pathlib import Path
label = f"{corpus}-{languages}" if kind == "translation" else corpus
names = [f"tables/{kind}_{label}{t}.{s}" for t in tables for s in ("csv", "md")]
names += [f"figures/{kind}_{label}_{f}.{s}" for f in figures for s in ("png", "svg")]
for name in names:
    path = Path("results", preset, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("made")
print(preset, corpus, seeds)
"""
GUMBEL_GATES = """
from pathlib import Path
assert figures == "results/quick/figures"
Path(figures).mkdir(parents=True, exist_ok=True)
for name in ("densities", "sample", "proposition", "mask", "modes", "robustness", "pushing"):
    for suffix in ("png", "svg"):
        Path(figures, f"gumbel_gates_{name}.{suffix}").write_text("made")
"""
REPORT = """
from pathlib import Path
for name in ("report.md", "claims.json", "figures/forest.png", "figures/forest.svg"):
    Path("results", preset, name).write_text("made")
print(experiments, seeds)
"""
LANGUAGE_MODEL = """
preset = corpus = gate = seed = temperature = noise_probability = temperature_end = None
schedule = "constant"
overrides = {}
"""
TRANSLATION = f"languages = examples = None{LANGUAGE_MODEL}"


def results(kind: str) -> str:
    return f"kind, tables, figures = {kind!r}, {RUN_TABLES[kind]}, {RUN_FIGURES[kind]}" + RESULTS


STAND_INS = {
    "00_gumbel_gates": ("figures = None", GUMBEL_GATES),
    "01_language_model": (LANGUAGE_MODEL, "task = 'language-model'" + TRAIN),
    "02_language_model_results": (
        "preset = corpus = seeds = save = None",
        results("language_model"),
    ),
    "03_translation": (TRANSLATION, "task = 'translation'" + TRAIN),
    "04_translation_results": (
        "preset = corpus = languages = seeds = save = None",
        results("translation"),
    ),
    **{
        name: (
            "preset = task = corpus = languages = seeds = save = None",
            f"kind = task.replace('-', '_')\ntables = {[f'_{table}' for table in TABLES[name]]}\n"
            f"figures = {STUDY_FIGURES[name] + SOMETIMES}" + RESULTS,
        )
        for name in TABLES
    },
    "09_report": ("preset = experiments = seeds = save = None", REPORT),
}

# Stands in for papermill, found first as it lies in the folder: no kernel has to start.
PAPERMILL = """
import contextlib, io, sys, traceback
import nbformat, yaml
*_, parameters, source, target = sys.argv
notebook = nbformat.read(source, as_version=4)
first, last = notebook.cells
namespace, output, code = {}, io.StringIO(), 0
exec(first.source, namespace)
assert namespace.keys() >= yaml.safe_load(parameters).keys()
namespace |= yaml.safe_load(parameters)
try:
    with contextlib.redirect_stdout(output):
        exec(last.source, namespace)
except Exception:
    code = 1
    output.write(traceback.format_exc())
last.outputs = [nbformat.v4.new_output("stream", text=output.getvalue())]
nbformat.write(notebook, target)
sys.exit(output.getvalue() if code else 0)
"""


KINDS = ("language_model", "translation")
ALL_RULES = {
    "gumbel_gates",
    *(f"{kind}_run_{gate}" for kind in KINDS for gate in GATES),
    *(f"{kind}_{name}" for kind in KINDS for name in ("results", *(n[3:] for n in TABLES))),
    *(
        f"language_model_run_{gate_settings(configure(**settings))}"
        for settings in PRESETS["language-model"]["quick"].ablations
    ),
    "final_report",
}


TRANSLATION_ALONE = ("SEEDS=1", "TASK=translation")  # half the time of both tasks


class Project:
    """A copy of the project with stand-ins for its notebooks."""

    def __init__(self, folder: Path):
        self.folder = folder
        copy_project(folder, "Makefile", "Snakefile", "g2lstm", "profiles", "report")
        (folder / "papermill.py").write_text(PAPERMILL)
        (folder / "notebooks").mkdir()
        for name, (parameters, code) in STAND_INS.items():
            cells = [v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
            metadata = {"kernelspec": {"name": "python3", "display_name": "", "language": "python"}}
            notebook = v4.new_notebook(cells=[*cells, v4.new_code_cell(code)], metadata=metadata)
            nbformat.write(notebook, folder / f"notebooks/{name}.ipynb")
        self.environment = users_environment()

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env={**self.environment, **environment},
            start_new_session=True,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def make(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """Start `make reproduce` with the environment that runs the tests."""
        venv = (f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.installed")
        return self.start("make", "reproduce", *venv, *arguments, **environment)

    def planned(self, *pairs: str) -> list[str]:
        """Messages of the jobs that would run now."""
        snakemake = (sys.executable, "-m", "snakemake", "--nolock", "--dry-run", "--config", *pairs)
        output, _ = (process := self.start(*snakemake)).communicate()
        assert process.returncode == 0, output
        return sorted(re.findall(r"^Job \d+: (.*)$", output, re.MULTILINE))

    def summaries(self) -> dict[str, str]:
        """Task/gate/seed -> content of summary.json."""
        files = self.folder.glob("runs/*/grammar*/quick/*/seed-*/summary.json")
        return {
            f"{file.parts[-6]}/{file.parts[-3].split('_')[0]}/{file.parts[-2]}": file.read_text()
            for file in files
        }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A project whose `make reproduce` was killed with two jobs at work, and then went on."""
    project = Project(tmp_path_factory.mktemp("project"))
    process = project.make(*TRANSLATION_ALONE, HANG="yes")
    deadline = time.monotonic() + 300
    while len(list(project.folder.glob("runs/**/state"))) < 2:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "two jobs at once"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not project.summaries()
    output, _ = (process := project.make(*TRANSLATION_ALONE)).communicate()
    assert process.returncode == 0, output
    assert "Done: look at results/quick/tables" in output
    return project


def test_goes_on_after_a_kill(done):
    summaries = done.summaries()
    assert summaries.keys() == {f"translation/{gate}/seed-1" for gate in GATES}
    assert list(summaries.values()).count('{"resumed": true}') == 2
    assert {path.stem for path in done.folder.glob("results/quick/notebooks/*.ipynb")} == {
        "00_gumbel_gates",
        *(f"03_translation_grammar-de-en_{gate}_seed-1" for gate in GATES),
        "04_translation_results_grammar-de-en",
        *(f"{name}_translation_grammar-de-en" for name in TABLES),
        "09_report",
    }
    results = done.folder / "results/quick/notebooks/04_translation_results_grammar-de-en.ipynb"
    (output,) = nbformat.read(results, as_version=4).cells[-1].outputs
    assert output.text == "quick grammar [1]\n"
    assert differences(done.folder / "results/quick") == [], "sealed at the end"
    report = done.folder / "results/quick/notebooks/09_report.ipynb"
    (output,) = nbformat.read(report, as_version=4).cells[-1].outputs
    about = {"task": "translation", "corpus": "grammar", "languages": "de-en"}
    assert output.text == f"{[about]} [1]\n"


def test_skips_what_is_done_even_if_touched(done):
    (done.folder / "g2lstm/training.py").touch()
    (done.folder / "notebooks/03_translation.ipynb").touch()
    output, _ = done.make(*TRANSLATION_ALONE).communicate()
    assert "Nothing to be done" in output
    assert "Done: look at results/quick/tables" in output


def test_makes_a_lost_table_again(done):
    table = done.folder / "results/quick/tables/translation_grammar-de-en.md"
    table.unlink()
    plan = done.planned("seeds=1", "task=translation")
    assert plan == ["04_translation_results: quick, grammar-de-en"]
    table.write_text("made")


def test_runs_what_is_missing(done):
    summary = next(done.folder.glob("runs/**/sigmoid/seed-1/summary.json"))
    content = summary.read_text()
    summary.unlink()
    assert done.planned("seeds=1 5", "task=translation") == [
        "03_translation: quick, grammar-de-en, gumbel, seed 5",
        "03_translation: quick, grammar-de-en, sharpened, seed 5",
        "03_translation: quick, grammar-de-en, sigmoid, seed 1",
        "03_translation: quick, grammar-de-en, sigmoid, seed 5",
        "04_translation_results: quick, grammar-de-en",
        *(f"{name}: quick, grammar-de-en" for name in TABLES),
        "09_report: quick",
    ]
    summary.write_text(content)


def test_reruns_what_a_change_of_the_package_touches(done):
    module = done.folder / "g2lstm/training.py"
    before = module.read_text()
    module.write_text(before + "# changed\n")
    assert len(done.planned("seeds=1")) == len(ALL_RULES)
    module.write_text(before)


def test_runs_everything_in_a_clone_that_holds_results_alone(done, tmp_path):
    clone = Project(tmp_path)
    # Newer than notebooks and modules, as a clone writes them.
    shutil.copytree(done.folder / "results", tmp_path / "results", copy_function=shutil.copyfile)
    assert len(clone.planned("seeds=1")) == len(ALL_RULES)


def test_inputs_hold_all_that_the_notebooks_import(done):
    snakemake = (sys.executable, "-m", "snakemake", "--nolock", "--detailed-summary")
    # Of the jobs that have run: Snakemake knows the inputs of no others here.
    output, _ = done.start(*snakemake, "--config", "seeds=1", "task=translation").communicate()
    table = output[output.index("output_file") :].splitlines()
    rows = [row for row in csv.DictReader(table, delimiter="\t") if row["plan"]]
    assert {row["rule"] for row in rows} == {r for r in ALL_RULES if "language" not in r}
    in_grid = [path for path in NOTEBOOKS if path.stem in STAND_INS]
    assert {path.stem for path in NOTEBOOKS} - STAND_INS.keys() == {"10_exercises"}
    needed, unread = set(), {name for path in in_grid for name in own_imports(text(path))}
    assert unread, "the notebooks import the package"
    while unread:
        needed |= unread
        unread = {name for module in unread for name in own_imports(text(MODULES[module]))} - needed
    for row in rows:
        missing = {f"g2lstm/{name}.py" for name in needed} - set(row["input-file(s)"].split(","))
        assert not missing, f"{row['rule']} does not name {missing}"


def test_a_failed_job_stops_no_other_and_leaves_its_notebook(done):
    output, _ = (process := done.make("SEEDS=2", "TASK=translation", FAIL="gumbel")).communicate()
    assert process.returncode != 0
    assert "told to fail" in output
    assert "Not finished" in output
    finished = {f"translation/{gate}/seed-2" for gate in ("sigmoid", "sharpened")}
    assert finished <= done.summaries().keys()
    partial = done.folder / "logs/quick/03_translation_grammar-de-en_gumbel_seed-2.log.ipynb"
    assert "told to fail" in partial.read_text()
    assert not list(done.folder.glob("results/quick/notebooks/*gumbel_seed-2.ipynb"))


def test_a_corpus_chooses_its_tasks(done, tmp_path):
    texts, pairs = tmp_path / "texts", tmp_path / "pairs"
    for folder, suffixes in ((texts, ("txt",)), (pairs, ("de", "fr"))):
        folder.mkdir()
        for suffix in suffixes:
            (folder / f"train.{suffix}").write_text("a b c\n")
    plans = {
        "texts": done.planned(f"corpus={texts}", "seeds=1"),
        "pairs-fr-de": done.planned(f"corpus={pairs}", "languages=fr-de", "seeds=1"),
    }
    for label, plan in plans.items():
        kind = "03_translation" if "-" in label else "01_language_model"
        assert f"{kind}: quick, {label}, gumbel, seed 1" in plan
        runs = [line for line in plan if line.startswith(kind)]
        assert len(runs) == (3 if "-" in label else 10), "three gates, and other settings of one"
        assert len(plan) == len(runs) + 1 + len(TABLES) + 1, "comparison, analyses and report"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("TASK=translate", "unknown task 'translate': give one of language-model, translation"),
        ("TASK=translation CORPUS=ptb", "corpus 'ptb' is not one for the task 'translation'"),
        ("TASK=translation PRESET=paper-brief", "preset must be one of quick, small, paper, got"),
        ("PRESET=paper-brief CORPUS=wmt14", "corpus 'wmt14': give a folder or one of grammar, ptb"),
        ("SEEDS=1,2", "seeds are integers of at least 0 with blanks between them, such as '1 2 3'"),
        ("SEEDS=-1", "with blanks between them, such as '1 2 3', got '-1'"),
        ("SEEDS=1e1", "with blanks between them, such as '1 2 3', got"),
    ],
)
def test_a_wrong_task_or_language_is_refused(done, setting, message):
    output, _ = (process := done.make(*setting.split())).communicate()
    assert process.returncode != 0
    assert message in output


def test_an_unknown_corpus_is_refused_before_anything_runs(done):
    output, _ = (process := done.make("CORPUS=ptbb")).communicate()
    assert process.returncode != 0
    assert "unknown corpus 'ptbb'" in output


SETTINGS = ("CORPUS", "PRESET", "TASK", "LANGUAGES", "SEEDS", "ABLATIONS", "PROFILE", "JOBS", "LAB")


@pytest.mark.parametrize("code", ["$$({})", "$({})", "`{}`", "$(shell {})", '";{};"', "';{};'"])
@pytest.mark.parametrize("in_environment", [False, True])
def test_what_stands_in_a_setting_is_never_run(done, tmp_path, code, in_environment):
    said = {name: "x" + code.format(f"touch {tmp_path}/{name}") for name in SETTINGS}
    given = [] if in_environment else [f"{name}={value}" for name, value in said.items()]
    venv = (f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.installed")
    targets = ("reproduce", "report", "lab", "help")
    process = done.start(
        "make", "--just-print", *targets, *venv, *given, **(said if in_environment else {})
    )
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "$CORPUS" in output
    assert "touch" not in output
    assert not list(tmp_path.iterdir())


def test_a_corpus_of_a_hostile_name_is_unknown_by_that_name(done, tmp_path):
    value = f"x$$(touch {tmp_path}/run)`touch {tmp_path}/run`"
    output, _ = (process := done.make(f"CORPUS={value}", "SEEDS=1")).communicate()
    assert process.returncode != 0
    assert f"unknown corpus {value!r}" in output
    assert not (tmp_path / "run").exists()


def test_a_wrong_preset_is_refused(done):
    output, _ = (process := done.make("PRESET=quik")).communicate()
    assert process.returncode != 0
    assert "preset must be one of quick, small, paper-brief, paper, got 'quik'" in output


def test_several_processes_train_before_the_notebook_runs(done):
    snakemake = (sys.executable, "-m", "snakemake", "--nolock", "--dry-run", "--printshellcmds")
    pairs = ("preset=paper", "task=translation", "corpus=wmt14", "seeds=7")
    output, _ = done.start(*snakemake, "--config", *pairs).communicate()
    output = output.replace("\\\n", " ")
    lines = [line for line in output.splitlines() if "torch.distributed.run" in line]
    for gate in GATES:
        (line,) = (line for line in lines if f"--gate {gate}" in line)
        words = shlex.split(line)
        assert words[words.index("--nproc-per-node") + 1] == "4"
        train = words[words.index("g2lstm") + 1 : words.index(">")]
        options = parser().parse_args(train)
        assert (options.command, options.preset, options.seed) == ("train", "paper", 7)


def test_other_settings_can_be_left_out(done):
    plan = done.planned("task=language-model", "seeds=4", "ablations=no")
    assert len([line for line in plan if line.startswith("01")]) == len(GATES)
    output, _ = (process := done.make("ABLATIONS=none")).communicate()
    assert process.returncode != 0
    assert "ablations must be yes or no, got 'none'" in output
