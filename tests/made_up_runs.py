"""Runs and measurements that nothing was trained for, for tests of tables, figures and verdicts."""

import json
import math
from pathlib import Path

from g2lstm.experiments import arguments_of, configure, run_directory
from g2lstm.records import Run
from g2lstm.robustness import COLUMNS

SATURATION = {"sigmoid": 0.2, "sharpened": 0.8, "gumbel": 0.7}


def gates(saturation):
    """Both gates with this share of values in each of the outer bins together."""
    inner = (1 - saturation) / 8
    histogram = [saturation / 2, *[inner] * 8, saturation / 2]
    return {
        kind: {"histogram": histogram, "saturation": saturation, "mean": 0.6}
        for kind in ("input", "forget")
    }


def made_up_run(gate, seed, task="language-model", saturation=None, **settings):
    """A `Run` whose numbers follow from gate and seed."""
    configuration = configure(task=task, gate=gate, seed=seed, **settings)
    share = (SATURATION | (saturation or {}))[gate] + 0.001 * seed
    seen = {"sigmoid": 40.0, "sharpened": 45.0, "gumbel": 42.0}[gate] + 0.01 * math.sin(seed)
    summary = {
        "test_perplexity": 50.0 + 0.1 * seed,
        "train_perplexity": seen,
        "valid_perplexity": 51.0 + 0.1 * seed,
        "input_gate_saturation": share,
        "forget_gate_saturation": share,
        "parameters": 1_500_000,
        "epochs": 2,
        "gates": {"evaluation": gates(share), "training": gates(share)},
    }
    if task == "translation":
        summary |= {"valid_bleu": 30.0 + 0.1 * seed, "test_bleu": 31.0 + 0.1 * seed}
    metrics = [
        {
            "epoch": epoch, "input_gate_saturation": share * epoch / 2,
            "forget_gate_saturation": share * epoch / 2, "valid_loss": 4.0 / epoch,
            "valid_perplexity": 400.0 / epoch, "train_perplexity": 300.0 / epoch,
        }
        for epoch in (1, 2)
    ]  # fmt: skip
    config = arguments_of(vars(configuration)) | {"fingerprint": "made up"}
    provenance = {"commit": "0" * 40, "modified": False, "command": "none", "hardware": {}}
    provenance["training_seconds"] = 60.0
    directory = Path("runs", task, "grammar", "quick", gate, f"seed-{seed}")
    return Run(directory, config, summary, metrics, provenance)


def compression(values):
    """As `robustness.measure_compression`, from the results by column."""
    return {
        column: {
            "value": values[column],
            "plain": values[column],
            "method": f"method of {column}",
            "megabytes": 1.0 if column == "result" else 0.5,
            "flops_per_step": 1000,
        }
        for column in COLUMNS
    }


def alignment(boundary, content_input, function=-0.5):
    """As `case_study.measure_alignment`, with these effects on the forget gate."""
    rows = [
        {
            "contrast": name, "gate": gate, "layer": "all", "effect": effect,
            "effect_low": effect - 0.1, "effect_high": effect + 0.1,
        }
        for name, effect in (
            ("clause boundary - other words", boundary), ("function - content words", function)
        )
        for gate in ("input", "forget")
    ]  # fmt: skip
    means = [
        {"label": label, "gate": gate, "tokens": 10, "mean": content_input}
        for label in ("function", "content")
        for gate in ("input", "forget")
    ]
    units = [
        {
            "contrast": "function - content words", "gate": "forget", "layer": 0, "unit": 3,
            "auc_chosen_on": 0.1, "auc_held_out": 0.2,
        }
    ]  # fmt: skip
    return {"contrasts": rows, "means": means, "units": units}


def write_run(run):
    """Write its records to the run directory of its configuration; return that."""
    known = ("temperature", "noise_probability", "schedule", "temperature_end", "overrides")
    settings = {name: run.config[name] for name in known}
    about = {name: run.config[name] for name in ("task", "gate", "seed")}
    directory = run_directory(configure(**about, **settings))
    directory.mkdir(parents=True)
    for name, record in (
        ("config", run.config), ("summary", run.summary), ("provenance", run.provenance)
    ):  # fmt: skip
        (directory / f"{name}.json").write_text(json.dumps(record))
    lines = "".join(json.dumps(row) + "\n" for row in run.metrics)
    (directory / "metrics.jsonl").write_text(lines)
    return directory


def profile(share):
    """As `gate_profile.measure_gate_profile`: two layers, around this share of saturated gates."""
    together = {"module": None, "layer": None, "reverse": None} | gates(share)
    parts = [
        {"module": "layers.0", "layer": 0, "reverse": False} | gates(share - 0.1),
        {"module": "layers.1", "layer": 0, "reverse": False} | gates(share + 0.1),
    ]
    return {mode: [together, *parts] for mode in ("evaluation", "training", "sentence")}
