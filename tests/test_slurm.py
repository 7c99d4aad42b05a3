"""A job on a real Slurm, with the profile of that name, a real notebook and a small corpus."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import needs
from g2lstm.experiments import configure, run_directory
from g2lstm.identity import read_record, read_rows
from sources import copy_project, users_environment

LONG = 400  # seconds that either half may take at most
NOTEBOOK = "results/quick/notebooks/01_language_model_two texts_gumbel_seed-1.ipynb"


class Project:
    """A copy of the project, without its results."""

    def __init__(self, folder: Path, corpus: Path):
        self.folder = folder
        folder.mkdir()
        copy_project(folder, "Snakefile", "g2lstm", "notebooks", "profiles", "report")
        # A space in values reaches the jobs.
        self.config = ("task=language-model", f"corpus={corpus}", "seeds=1 2")
        self.run = folder / run_directory(configure(corpus=str(corpus))).relative_to(
            os.environ["G2LSTM_RUNS"]
        )
        self.environment = users_environment() | {
            "PYTHONPATH": str(folder),
            "G2LSTM_RUNS": str(folder),
        }

    def start(self, profile: str, *options: str) -> subprocess.Popen:
        command = (sys.executable, "-m", "snakemake", "--profile", f"profiles/{profile}")
        return subprocess.Popen(
            [*command, *options, "--config", *self.config, "--", NOTEBOOK],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def read(self, name: str) -> dict:
        return read_record(self.run / name)

    def measured(self) -> tuple[dict, list[dict], bytes]:
        """Summary, metrics without the time that they took, weights as bytes."""
        metrics = read_rows(self.run / "metrics.jsonl")
        for row in metrics:
            assert row.pop("seconds") > 0
            assert row.pop("tokens_per_second") > 0
        return self.read("summary.json"), metrics, (self.run / "model.safetensors").read_bytes()


def texts(folder: Path) -> Path:
    """A corpus whose epochs take long enough to be interrupted."""
    folder.mkdir()
    draw = random.Random(0)
    words = [f"w{i}" for i in range(200)]
    for split, sentences in (("train", 2_000), ("valid", 100), ("test", 100)):
        lines = (" ".join(draw.choices(words, k=10)) + "\n" for _ in range(sentences))
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def killed(project: Project, process: subprocess.Popen) -> str:
    """The id of the job of this project, which is killed after the first epoch of its run."""
    deadline = time.monotonic() + LONG
    while not (project.run / "metrics.jsonl").exists():  # written after the first epoch
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "the run has no finished epoch"
        time.sleep(0.1)
    queue = ("squeue", "--noheader", "--format=%i %k %Z")
    jobs = subprocess.run(queue, capture_output=True, text=True, check=True).stdout
    pattern = rf"^(\d+) rule_language_model_run_gumbel\S* {re.escape(str(project.folder))}$"
    (job,) = re.findall(pattern, jobs, re.MULTILINE)
    subprocess.run(["scancel", "--full", "--signal=KILL", job], check=True)
    epochs = len(read_rows(project.run / "metrics.jsonl"))
    assert epochs < configure().training.epochs, "the run was over before the kill"
    return job


def test_a_killed_job_goes_on_and_its_results_are_those_of_a_local_run(tmp_path):
    needs.slurm()
    corpus = texts(tmp_path / "two texts")
    cluster, local = Project(tmp_path / "cluster", corpus), Project(tmp_path / "local", corpus)
    on_cluster = cluster.start("slurm", "--slurm-init-seconds-before-status-checks=2")
    here = local.start("local")
    try:
        job = killed(cluster, on_cluster)
        outputs = {
            name: p.communicate(timeout=LONG)[0]
            for name, p in (("cluster", on_cluster), ("local", here))
        }
    finally:
        for process in (on_cluster, here):
            if process.poll() is None:  # on Ctrl-C Snakemake cancels what it has submitted
                process.send_signal(signal.SIGINT)
                process.wait(60)
    assert here.returncode == 0, outputs["local"]
    assert on_cluster.returncode == 0, outputs["cluster"]
    assert f"SLURM-job '{job}' failed" in outputs["cluster"]
    assert "Trying to restart job" in outputs["cluster"]
    assert cluster.read("provenance.json")["resumed"] is True
    assert local.read("provenance.json")["resumed"] is False
    assert cluster.measured() == local.measured()
