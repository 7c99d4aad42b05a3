"""The experiment grid: which notebook runs with which parameters, and what depends on what.

`make reproduce` runs it; by hand: `snakemake --profile profiles/local --config preset=small`, or
with another profile on a cluster. A job is one papermill process. It runs again when its
parameters, its notebook, the package modules that the notebooks use or the local files of its
corpus changed. Of a run directory only summary.json belongs to Snakemake, which deletes what it
owns before it starts a job: weights and checkpoint stay, and a run that was killed goes on from
there.
"""

import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from g2lstm.corpora import NAMES, SPLITS
from g2lstm.experiments import (
    NOTEBOOKS,
    TASKS,
    command,
    configure,
    corpus_label,
    gate_settings,
    results_directory,
    run_directory,
)
from g2lstm.files import locked
from g2lstm.gates import GATES
from g2lstm.manifest import write_manifest
from g2lstm.parallel_corpora import PARALLEL_NAMES, local_files
from g2lstm.presets import PRESETS
from g2lstm.report import FOREST
from g2lstm.records import SUMMARY, run_folders
from g2lstm.results import FIGURES, TABLES
from g2lstm.studies import FIGURES as STUDY_FIGURES
from g2lstm.studies import TABLES as STUDY_TABLES

# What the grid's notebooks use: all modules but those of the command line and of the exercises.
OTHER_MODULES = {
    "__main__", "command_line", "commands", "exercises", "feedback", "listing", "release", "tuning",
    "exit_codes", "model_folders", "saved_models", "verification", "record_checks", "rebuilding",
}  # fmt: skip
MODULES = sorted(str(p) for p in Path("g2lstm").glob("*.py") if p.stem not in OTHER_MODULES)
CORPORA = {"language-model": NAMES, "translation": PARALLEL_NAMES}


def option(name, default=None):
    """The value of `--config name=value` as text; the default where it is absent or empty."""
    value = config.get(name)
    return default if value in (None, "") else str(value)


def has_corpus(task):
    """Whether the corpus asked for is one for this task."""
    if CORPUS is None or CORPUS in CORPORA[task]:
        return True
    if task == "language-model":
        return Path(CORPUS).expanduser().joinpath("train.txt").is_file()
    source, _, target = (LANGUAGES or PRESETS[task][PRESET].languages).partition("-")
    return any(file.suffix == f".{source}" for file in local_files(CORPUS, source, target))


report: "report/workflow.rst"


PRESET = option("preset", "quick")
CORPUS = option("corpus")
LANGUAGES = option("languages")
RESULTS = results_directory(PRESET)
LOGS = Path("logs") / PRESET
if option("task") not in (None, *TASKS):
    raise WorkflowError(f"unknown task {option('task')!r}: give one of {', '.join(TASKS)}")
TASKS = [task for task in TASKS if PRESET in PRESETS[task]]
if not TASKS or option("task") not in (None, *TASKS):
    configure(preset=PRESET, task=option("task", "language-model"))  # names those there are
if CORPUS is not None and not any(map(has_corpus, TASKS)):
    known = ", ".join(dict.fromkeys(name for task in TASKS for name in CORPORA[task]))
    raise WorkflowError(f"unknown corpus {CORPUS!r}: give a folder or one of {known}")
if option("ablations", "yes") not in ("yes", "no"):
    raise WorkflowError(f"ablations must be yes or no, got {option('ablations')!r}")
ABLATIONS = {
    task: PRESETS[task][PRESET].ablations if option("ablations", "yes") == "yes" else ()
    for task in TASKS
}
asked_seeds = option("seeds", "").split() or None
if asked_seeds is not None:
    for seed in asked_seeds:
        if not (seed.isascii() and seed.isdigit()):
            raise WorkflowError(
                f"seeds are integers of at least 0 with blanks between them, such as '1 2 3', got "
                f"{option('seeds')!r}"
            )
    asked_seeds = [int(seed) for seed in asked_seeds]
# Task -> configuration of its runs, but for gate and seed.
EXAMPLES = {
    task: configure(
        task=task,
        preset=PRESET,
        corpus=CORPUS,
        languages=LANGUAGES if task == "translation" else None,
    )
    for task in TASKS
    if has_corpus(task) and option("task", task) == task
}
if not EXAMPLES:
    raise WorkflowError(f"corpus {CORPUS!r} is not one for the task {option('task')!r}")
if LANGUAGES is not None and "translation" not in EXAMPLES:
    raise WorkflowError(f"languages {LANGUAGES!r} have no effect without a translation")

# Snakemake's own lock outlives a kill and would then refuse to go on (hence `nolock` in the
# profiles); this one ends with its process. Jobs on a cluster read this file too, and take none.
if workflow.is_main_process:
    lock = locked(f".snakemake/{PRESET}.lock")  # held as long as this name is
    try:
        lock.__enter__()
    except Timeout:
        raise WorkflowError(
            f"preset {PRESET} is being reproduced in this folder by another process"
        )

# What a job asks for on a cluster: memory (MB) and time (minutes), of a run, of what measures
# trained models, of what reads records. Generous, for Snakemake itself runs in the job as well.
NEEDS = {
    "quick": {"run": (3_000, 30), "measure": (3_000, 60), "read": (3_000, 30)},
    "small": {"run": (5_000, 240), "measure": (5_000, 240), "read": (3_000, 30)},
    "paper-brief": {"run": (16_000, 60), "measure": (16_000, 60), "read": (3_000, 30)},
    "paper": {"run": (16_000, 2_880), "measure": (16_000, 1_440), "read": (3_000, 30)},
}


def needs(kind, processes=1):
    """The resources of a job of this kind, with more memory at each new attempt.

    GPUs are a matter of the profile, but for jobs that never use one, or train in several processes.
    """
    memory, minutes = NEEDS[PRESET][kind]
    resources = {
        "mem_mb": lambda wildcards, attempt: attempt * processes * memory,
        "runtime": minutes,
    }
    if processes > 1:
        resources |= {"gpu": processes, "nodes": 1}
    return resources | ({"gpu": 0} if kind == "read" else {})


# The notebook of a job that failed or was killed stays beside its log, to be read. The lock, held as
# long as the job lives, makes it wait for a twin that outlived the kill of an earlier Snakemake.
LOCK = """
exec 9> {log:q}.lock
{sys.executable:q} -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX)"
"""
NOTEBOOK = """
{sys.executable:q} -m papermill --log-output --no-progress-bar --parameters_yaml {params.yaml:q} \
    {input.notebook:q} {log:q}.ipynb > {log:q} 2>&1
mv {log:q}.ipynb {output.notebook:q}
"""
EXECUTE = LOCK + NOTEBOOK
# Several processes train first; the notebook then finds the run done.
# They meet in a folder, and not at torchrun's port, which is open to other machines.
TRAIN = """
export G2LSTM_RENDEZVOUS="$(mktemp -d)" TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
trap 'rm -rf "$G2LSTM_RENDEZVOUS"' EXIT
{sys.executable:q} -m torch.distributed.run --nnodes 1 --rdzv-backend c10d --rdzv-conf store_type=file \\
    --rdzv-endpoint "$G2LSTM_RENDEZVOUS/starters" {params.train:q} > {log:q} 2>&1
"""
TOGETHER = LOCK + TRAIN + NOTEBOOK


def corpus_files(example):
    """The corpus's files where they are local, so that a change of the data counts as one."""
    if example.languages is not None:
        return [str(file) for file in local_files(example.corpus, *example.languages.split("-"))]
    folder = Path(example.corpus)
    if not folder.is_dir():
        folder = Path(os.environ.get("G2LSTM_DATA", ""), example.corpus)
    files = [folder / f"{split}.txt" for split in SPLITS]
    return [str(file) for file in files if file.is_file()]


def corpus_of(example):
    """What names the corpus among a notebook's parameters."""
    known = {"corpus": example.corpus}
    return known if example.languages is None else known | {"languages": example.languages}


def parameters(example):
    """What the notebooks of a task have in common."""
    return {"preset": PRESET} | corpus_of(example)


def run_in_processes(run, seed):
    """Arguments of torchrun for a run that several processes train."""
    words = shlex.split(command(replace(run, seed=seed)))[1:]
    return [word for word in words if word != "--standalone"]


def run_parameters(example, settings, seed):
    """Of a text that is not ours an executed notebook shows a single sentence."""
    examples = {} if example.languages is None or example.corpus == "grammar" else {"examples": 1}
    return parameters(example) | settings | {"seed": seed} | examples


def tables_of(prefix, tables):
    suffixes = ("csv", "md")
    return [RESULTS / f"tables/{prefix}{name}.{suffix}" for name in tables for suffix in suffixes]


def figures_of(prefix, figures, category, subcategory=None):
    """A notebook's figures, of which the PNG goes into Snakemake's report."""
    for name in figures:
        path = RESULTS / f"figures/{prefix}{name}"
        yield f"{path}.svg"
        yield report(
            f"{path}.png",
            caption=f"report/{name}.rst",
            category=category,
            subcategory=subcategory,
            labels={"figure": name.replace("_", " ")},
        )


def sometimes(notebook, task):
    """The figures that an analysis saves only where there is something to show."""
    if notebook == "07_case_study" and task == "language-model":
        yield "case_study"
    swept = [list(settings) for settings in ABLATIONS[task]]
    if notebook == "06_gate_values":
        for name, figure in (
            ("noise_probability", "gates_by_p"),
            ("temperature", "gates_by_temperature"),
        ):
            if [name] in swept:
                yield figure


# Notebooks that look at runs in other settings too; those whose measurements the report reads.
LOOK_AT_ABLATIONS = ("06_gate_values", "08_sensitivity")
MEASURE = ("05_compression", "07_case_study")
everything = []
measured = []  # what the report is about: executed notebooks that measure, runs in other settings
GUMBEL_FIGURES = (
    "densities", "sample", "proposition", "mask", "modes", "robustness", "pushing",
)  # fmt: skip


rule gumbel_gates:
    message:
        "00_gumbel_gates"
    input:
        MODULES,
        notebook="notebooks/00_gumbel_gates.ipynb",
    output:
        touch(LOGS / "00_gumbel_gates.done"),  # absent from a fresh clone, unlike the notebook
        figures_of("gumbel_gates_", GUMBEL_FIGURES, "Gumbel gates"),
        notebook=RESULTS / "notebooks/00_gumbel_gates.ipynb",
    params:
        yaml=lambda _: json.dumps({"figures": str(RESULTS / "figures")}),
    resources:
        **needs("read"),
    log:
        LOGS / "00_gumbel_gates.log",
    shell:
        EXECUTE


for task, example in EXAMPLES.items():
    seeds = asked_seeds or list(PRESETS[task][PRESET].seeds)
    kind, label = task.replace("-", "_"), corpus_label(example)
    number, _, _ = NOTEBOOKS[task].partition("_")
    summaries = {"default": [], "ablation": []}
    grid = [("default", {"gate": gate}) for gate in GATES]
    grid += [("ablation", {"gate": "gumbel"} | other) for other in ABLATIONS[task]]

    for kind_of_run, settings in grid:
        run = configure(
            task=task,
            preset=PRESET,
            corpus=example.corpus,
            languages=example.languages,
            **settings,
        )
        summary = run_directory(run).parent / "seed-{seed}/summary.json"
        of_run = gate_settings(run) if kind_of_run == "ablation" else settings["gate"]
        name = f"{number}_{kind}_{label}_{of_run}_seed-{{seed}}"
        notebook = RESULTS / f"notebooks/{name}.ipynb"
        summaries[kind_of_run] += expand(summary, seed=seeds)
        # The summary too: a fresh clone has the notebooks, but not the runs.
        everything += expand([summary, notebook], seed=seeds)

        rule:
            name:
                f"{kind}_run_{of_run}"
            message:
                f"{NOTEBOOKS[task]}: {PRESET}, {label}, {of_run}, seed {{wildcards.seed}}"
            input:
                MODULES,
                corpus_files(example),
                notebook=f"notebooks/{NOTEBOOKS[task]}.ipynb",
            output:
                summary=summary,
                notebook=notebook,
            params:
                yaml=lambda wildcards, example=example, settings=settings: json.dumps(
                    run_parameters(example, settings, int(wildcards.seed))
                ),
                train=lambda wildcards, run=run: run_in_processes(run, int(wildcards.seed)),
            threads: run.processes
            resources:
                **needs("run", run.processes),
            log:
                LOGS / f"{name}.log",
            shell:
                TOGETHER if run.processes > 1 else EXECUTE

    measured += summaries["ablation"]
    number = f"{int(number) + 1:02d}"
    notebooks = {f"{number}_{kind}_results": (label, TABLES[kind], FIGURES[kind])}
    notebooks |= {
        name: (f"{kind}_{label}", [f"_{table}" for table in tables], STUDY_FIGURES[name])
        for name, tables in STUDY_TABLES.items()
    }
    for notebook, (suffix, tables, figures) in notebooks.items():
        executed = RESULTS / f"notebooks/{notebook}_{suffix}.ipynb"
        name = notebook[3:].removeprefix(f"{kind}_")
        tables = tables_of(f"{kind}_{label}", tables)
        figures = list(
            figures_of(
                f"{kind}_{label}_",
                (*figures, *sometimes(notebook, task)),
                category=f"{task.capitalize().replace('-', ' ')}, {label}",
                subcategory=name.replace("_", " "),
            )
        )
        everything += [executed, *tables, *map(str, figures)]
        study = notebook in STUDY_TABLES
        if notebook in MEASURE:
            measured.append(executed)

        rule:
            name:
                f"{kind}_{name}"
            message:
                f"{notebook}: {PRESET}, {label}"
            input:
                MODULES,
                summaries["default"],
                summaries["ablation"] if notebook in LOOK_AT_ABLATIONS else [],
                notebook=f"notebooks/{notebook}.ipynb",
            output:
                tables,
                figures,
                notebook=executed,
            params:
                yaml=lambda _, example=example, seeds=seeds, task=task, study=study: json.dumps(
                    parameters(example)
                    | ({"task": task} if study else {})
                    | {"seeds": seeds, "save": True}
                ),
            resources:
                **needs("measure" if study else "read"),
            log:
                LOGS / f"{notebook}_{suffix}.log",
            shell:
                EXECUTE


def has_runs(example):
    """Whether there is a finished run of each gate."""
    runs = (
        run_directory(configure(task=example.task, preset=PRESET, gate=gate)).parent
        for gate in GATES
    )
    wanted = asked_seeds or ["*"]
    return all(
        any((path / SUMMARY).exists() for path in run_folders(run, f"seed-{seed}"))
        for run in runs
        for seed in wanted
    )


# The report keeps what was reproduced before of the preset's other task.
others = {
    task: configure(task=task, preset=PRESET) for task in TASKS if task not in EXAMPLES
}
experiments = [
    {"task": task} | corpus_of(example)
    for task, example in (EXAMPLES | others).items()
    if task in EXAMPLES or has_runs(example)
]
reported = [RESULTS / "notebooks/09_report.ipynb", RESULTS / "report.md", RESULTS / "claims.json"]
forest = list(figures_of("", [FOREST], "Report"))
everything += [*reported, *map(str, forest)]


rule final_report:
    message:
        f"09_report: {PRESET}"
    input:
        MODULES,
        measured,
        notebook="notebooks/09_report.ipynb",
    output:
        reported[1:],
        forest,
        notebook=reported[0],
    params:
        yaml=lambda _: json.dumps(
            {"preset": PRESET, "experiments": experiments, "seeds": asked_seeds, "save": True}
        ),
    resources:
        **needs("read"),
    log:
        LOGS / "09_report.log",
    shell:
        EXECUTE


rule all:
    default_target: True
    input:
        everything,
        rules.gumbel_gates.output,


onsuccess:
    write_manifest(RESULTS)
