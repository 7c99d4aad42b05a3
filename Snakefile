"""The experiment grid: which notebook runs with which parameters, and what depends on what.

`make reproduce` runs it; by hand: `snakemake --cores 2 --config preset=small corpus=ptb`. A job is
one papermill process. It runs again when its parameters, its notebook, the package modules that the
notebooks use or the local files of its corpus changed. Of a run directory only summary.json belongs
to Snakemake, which deletes what it owns before it starts a job: weights and checkpoint stay, and a
run that was killed goes on from there.
"""

import fcntl
import json
import os
import sys
from pathlib import Path

# With all that they import: what the notebooks use.
import g2lstm.results
import g2lstm.runs
from g2lstm.experiments import PRESETS, configure, results_directory, run_directory
from g2lstm.corpora import NAMES
from g2lstm.gates import GATES
from g2lstm.results import FIGURES

MODULES = sorted(
    os.path.relpath(module.__file__)
    for name, module in sys.modules.items()
    if name.split(".")[0] == "g2lstm"
)


def option(name, default):
    """The value of `--config name=value` as text; the default where it is absent or empty."""
    value = config.get(name)
    return default if value in (None, "") else str(value)


PRESET = option("preset", "quick")
CORPUS = configure(preset=PRESET, corpus=option("corpus", None)).corpus
SEEDS = [int(seed) for seed in option("seeds", "").split()] or list(PRESETS[PRESET].seeds)
RESULTS = results_directory(PRESET)
LOGS = Path("logs") / PRESET
if CORPUS not in NAMES and not Path(CORPUS).is_dir():
    raise WorkflowError(f"unknown corpus {CORPUS!r}: give a folder or one of {', '.join(NAMES)}")
NAME = Path(CORPUS).name  # CORPUS may be a folder

# Snakemake's own lock outlives a kill and would then refuse to go on (hence `--nolock` in the
# Makefile); this one ends with its process.
Path(".snakemake").mkdir(exist_ok=True)
lock = open(f".snakemake/{PRESET}.lock", "w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    raise WorkflowError(f"preset {PRESET} is being reproduced in this folder by another process")

# The notebook of a job that failed or was killed stays beside its log, to be read. The lock, held as
# long as the job lives, makes it wait for a twin that outlived the kill of an earlier Snakemake.
EXECUTE = """
exec 9> {log:q}.lock
{sys.executable:q} -c "import fcntl; fcntl.flock(9, fcntl.LOCK_EX)"
{sys.executable:q} -m papermill --log-output --no-progress-bar --parameters_yaml {params.yaml:q} \
    {input.notebook:q} {log:q}.ipynb > {log:q} 2>&1
mv {log:q}.ipynb {output.notebook:q}
"""


def corpus_files():
    """The corpus's files where they are local, so that a change of the data counts as one."""
    folder = Path(CORPUS)
    if not folder.is_dir():
        folder = Path(os.environ.get("G2LSTM_DATA", ""), CORPUS)
    files = [folder / f"{split}.txt" for split in ("train", "valid", "test")]
    return [str(file) for file in files if file.is_file()]


summaries, executed = [], []


rule gumbel_gates:
    message:
        "00_gumbel_gates"
    input:
        MODULES,
        notebook="notebooks/00_gumbel_gates.ipynb",
    output:
        touch(LOGS / "00_gumbel_gates.done"),  # absent from a fresh clone, unlike the notebook
        notebook=RESULTS / "notebooks/00_gumbel_gates.ipynb",
    params:
        yaml=lambda _: json.dumps({"figures": str(RESULTS / "figures")}),
    log:
        LOGS / "00_gumbel_gates.log",
    shell:
        EXECUTE


for gate in GATES:
    seeds = run_directory(configure(preset=PRESET, corpus=CORPUS, gate=gate)).parent
    summary = seeds / "seed-{seed}/summary.json"
    name = f"01_language_model_{NAME}_{gate}_seed-{{seed}}"
    notebook = RESULTS / f"notebooks/{name}.ipynb"
    summaries += expand(summary, seed=SEEDS)
    executed += expand(notebook, seed=SEEDS)

    rule:
        name:
            f"language_model_run_{gate}"
        message:
            f"01_language_model: {PRESET}, {NAME}, {gate}, seed {{wildcards.seed}}"
        input:
            MODULES,
            corpus_files(),
            notebook="notebooks/01_language_model.ipynb",
        output:
            summary=summary,
            notebook=notebook,
        params:
            yaml=lambda wildcards, gate=gate: json.dumps(
                {"preset": PRESET, "corpus": CORPUS, "gate": gate, "seed": int(wildcards.seed)}
            ),
        log:
            LOGS / f"{name}.log",
        shell:
            EXECUTE


rule language_model_results:
    message:
        f"02_language_model_results: {PRESET}, {NAME}"
    input:
        MODULES,
        summaries,
        notebook="notebooks/02_language_model_results.ipynb",
    output:
        [RESULTS / f"tables/language_model_{NAME}.{suffix}" for suffix in ("csv", "md")],
        [
            RESULTS / f"figures/language_model_{NAME}_{figure}.{suffix}"
            for figure in FIGURES
            for suffix in ("png", "svg")
        ],
        notebook=RESULTS / f"notebooks/02_language_model_results_{NAME}.ipynb",
    params:
        yaml=lambda _: json.dumps({"preset": PRESET, "corpus": CORPUS, "seeds": SEEDS, "save": True}),
    log:
        LOGS / f"02_language_model_results_{NAME}.log",
    shell:
        EXECUTE


rule all:
    default_target: True
    input:
        summaries,
        executed,
        rules.gumbel_gates.output,
        rules.language_model_results.output,
