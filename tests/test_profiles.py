"""The profiles of `make reproduce`, what its jobs ask for, and the captions of their figures."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from g2lstm.presets import PRESETS
from sources import ROOT

PROFILES = {path.parent.name: path for path in ROOT.glob("profiles/*/config.v9+.yaml")}
# What holds wherever the grid runs.
COMMON = {
    "keep-going": True,
    "nolock": True,
    "rerun-incomplete": True,
    "show-failed-logs": True,
    "max-checksum-file-size": "1GB",
    "quiet": "host",
}
# Prints, by preset and rule, what its first and its second attempt ask for, and its figures with
# their captions.
RULES = """
import json, sys
from pathlib import Path
from snakemake.api import SnakemakeApi
from snakemake.io import get_flag_value, is_flagged
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings

def asked(rule, attempt):
    found = [(n, r) for n, r in rule.resources.items() if n in ("mem_mb", "runtime", "gpu")]
    return {name: resource.evaluate(None, attempt=attempt).value for name, resource in found}

def caption(file):
    if not is_flagged(file, "report"):
        return ""
    path = get_flag_value(file, "report").caption.get_path_or_uri(secret_free=True)
    return Path(path).read_text()

presets = {}
for preset in sys.argv[2:]:
    with SnakemakeApi(OutputSettings()) as api:
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config={"preset": preset, "seeds": "1"}),
            snakefile=Path(sys.argv[1]),
        )._workflow
        presets[preset] = {
            rule.name: {
                "attempts": [asked(rule, 1), asked(rule, 2)],
                "figures": {str(f): caption(f) for f in rule.output if str(f).endswith(".png")},
            }
            for rule in workflow.rules
            if rule.name != "all"
        }
print(json.dumps(presets))
"""


def profile(name: str) -> dict:
    return yaml.safe_load(PROFILES[name].read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def presets(tmp_path_factory) -> dict[str, dict[str, dict]]:
    """Preset and rule -> what the rule asks for, and its figures."""
    script = (sys.executable, "-c", RULES, str(ROOT / "Snakefile"), *PRESETS["language-model"])
    folder = tmp_path_factory.mktemp("empty")  # where nobody holds the Snakefile's lock
    done = subprocess.run(script, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(params=PRESETS["language-model"])
def rules(request, presets) -> dict[str, dict]:
    return presets[request.param]


def test_the_profiles_differ_only_in_where_jobs_run():
    assert PROFILES.keys() == {"local", "slurm", "gpu"}
    assert profile("local") == COMMON | {"jobs": 2}
    cluster = COMMON | {
        "executor": "slurm",
        "jobs": 100,
        "retries": 2,
        "latency-wait": 60,
        "slurm-status-command": "squeue",
        "slurm-init-seconds-before-status-checks": 10,
    }
    assert profile("slurm") == cluster
    assert profile("gpu") == cluster | {"default-resources": {"gpu": 1}}


def test_make_passes_profile_jobs_and_settings(tmp_path):
    (tmp_path / ".installed").touch()
    python = tmp_path / "bin/python"  # prints its arguments, one a line
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    venv = (f"VENV={tmp_path}", f"--old-file={tmp_path}/.installed")

    def passed(*arguments: str) -> list[str]:
        command = ("make", *venv, *arguments)
        environment = {"PATH": os.environ["PATH"]}
        made = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        return made.stdout.splitlines()

    made = passed("reproduce")
    assert made[made.index("--profile") + 1] == "profiles/local"
    assert "preset=quick" in made
    assert not [argument for argument in made if argument.startswith("--jobs")]
    made = passed("reproduce", "PROFILE=slurm", "JOBS=7", "PRESET=small", "SEEDS=1 2")
    assert made[made.index("--profile") + 1] == "profiles/slurm"
    assert {"--jobs=7", "preset=small", "seeds=1 2"} <= set(made)
    made = passed("report", "PRESET=small")
    assert made[made.index("--report") + 1] == "results/small/report.html"


def test_every_job_asks_for_memory_and_time(rules):
    for name, rule in rules.items():
        first, second = rule["attempts"]
        assert first["mem_mb"] >= 2_000, name
        assert 30 <= first["runtime"] <= 7 * 24 * 60, name
        assert second == first | {"mem_mb": 2 * first["mem_mb"]}, name


def test_what_never_uses_a_gpu_asks_for_none(rules):
    spared = {name for name, rule in rules.items() if rule["attempts"][0].get("gpu") == 0}
    results = {name for name in rules if name.endswith("_results")}
    assert spared == {"gumbel_gates", "final_report"} | results


def test_every_figure_has_a_caption(rules):
    captions = [text for rule in rules.values() for text in rule["figures"].values()]
    assert len(captions) > (30 if "translation_results" in rules else 20)
    for text in captions:
        assert len(text.split()) > 15


def test_every_caption_is_that_of_a_figure(presets):
    rules = [rule for rules in presets.values() for rule in rules.values()]
    figures = " ".join(path for rule in rules for path in rule["figures"])
    captions = {path.stem for path in ROOT.glob("report/*.rst")} - {"workflow"}
    unused = {name for name in captions if not re.search(rf"[_/]{name}\.png", figures)}
    assert unused == set()
