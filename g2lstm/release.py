"""Release of a trained model: a folder with weights, vocabulary, records and a model card."""

from pathlib import Path
from typing import Any

import pandas as pd

from g2lstm.experiments import command
from g2lstm.files import copy, write_text
from g2lstm.manifest import listed_files, write_manifest
from g2lstm.model_folders import ModelError, describing, new_folder
from g2lstm.plots import GATE_LABELS
from g2lstm.records import CONFIG, PROVENANCE, SUMMARY, WEIGHTS, Run, read_run
from g2lstm.saved_models import SavedModel, open_model, save_vocabulary

CARD = "README.md"
EMBEDDED = "grammar"  # the one corpus, of either task, that is our own
METRICS = {
    "language-model": {
        "test perplexity": ("test_perplexity", ".3f"),
        "validation perplexity": ("valid_perplexity", ".3f"),
        "perplexity of the grammar itself, on the test text": ("floor_perplexity", ".3f"),
    },
    "translation": {
        "test BLEU": ("test_bleu", ".2f"),
        "test BLEU, greedy search": ("test_bleu_greedy", ".2f"),
        "test chrF": ("test_chrf", ".2f"),
        "test perplexity of the references": ("test_perplexity", ".3f"),
        "validation BLEU": ("valid_bleu", ".2f"),
    },
}
DATA = {
    "language-model": (
        "English-like sentences that `g2lstm/grammar.py` generates from a seeded probabilistic "
        "grammar: a closed vocabulary, small letters, spaces around punctuation marks. No text "
        "written by people."
    ),
    "translation": (
        "Pairs of German-like and English-like sentences that `g2lstm/parallel_grammar.py` "
        "generates from a seeded probabilistic grammar. No text written by people."
    ),
}
USE = {
    "language-model": 'echo "the hungry fox chases a dog ." | g2lstm perplexity {name} -',
    "translation": 'echo "Der König kauft die neue Blume." | g2lstm translate {name}',
}
LIMITS = {
    "language-model": (
        "It knows the words of its grammar and no others, and gives probabilities, not text. Its "
        "perplexity cannot be compared with that of models of real English."
    ),
    "translation": (
        "It knows the words and constructions of its grammar. Any other sentence gets a "
        "translation too, which means nothing. Its BLEU cannot be compared with that on real text."
    ),
}


def release(directory: Path | str, out: Path | str, force: bool = False) -> dict[str, Any]:
    """Write a finished run as a released model to the folder ``out``, whole or not at all.

    Args:
        directory: of the run, with its weights.
        out: the new folder.
        force: replace a folder that holds a model already.

    Returns:
        ``metrics`` as the card states them, ``bytes`` of the weights and their ``sha256``.

    Raises:
        ModelError: the corpus is not the embedded one, or ``out`` is taken.
        RunError, CorpusError, CheckpointError: the run is not finished or damaged.
    """
    run = read_run(directory)
    if run.config.get("corpus") != EMBEDDED:
        raise ModelError(
            f"{directory} was trained on {run.config.get('corpus')}, a text with a licence of its "
            "own: only models of the embedded corpora are released"
        )
    saved = open_model(directory, device="cpu")
    with describing(Path(directory), "finished run"):
        metrics = stated(run)
    with new_folder(out, force) as folder:
        for name in (CONFIG, PROVENANCE, SUMMARY, WEIGHTS):
            copy(run.directory / name, folder / name)
        save_vocabulary(saved, folder)
        weights = listed_files(folder)[WEIGHTS]
        with describing(Path(directory), "finished run"):
            text = card(run, saved, str(out), weights)
        write_text(folder / CARD, text)
        write_manifest(folder)
    return {"metrics": metrics, **weights}


def stated(run: Run) -> dict[str, str]:
    """The metrics of a run's model card, as they stand there."""
    return {
        name: format(run.summary[key], digits)
        for name, (key, digits) in METRICS[run.config["task"]].items()
    }


def card(run: Run, saved: SavedModel, name: str, weights: dict[str, Any]) -> str:
    """The model card: what it is, training data, metrics with provenance, use, limits, licence.

    Args:
        run: the records.
        saved: the model itself.
        name: of its folder, as commands give it.
        weights: ``bytes`` and ``sha256`` of the file of weights.
    """
    config, record = run.config, run.provenance
    task = config["task"]
    label = GATE_LABELS[config["gate"]]
    kind = "Language model" if task == "language-model" else "Translation model, German to English,"
    settings = ", ".join(
        f"{key.replace('_', ' ')} {config[key]:g}"
        for key in ("temperature", "noise_probability")
        if config[key] is not None
    )
    sizes = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in config["model"].items())
    metrics = pd.DataFrame(stated(run).items(), columns=["metric", "value"])
    signature = run.summary.get("test_bleu_signature")
    state = " with changes" if record["modified"] else ""
    data = [
        f"- {split}: sha256 `{checksum}`" for split, checksum in record["data"]["sha256"].items()
    ]
    parts = [
        "---\n" + "\n".join(
            [
                "license: mit",
                "library_name: g2lstm",
                f"tags: [lstm, binary-gates, {task}]",
            ]
        ) + "\n---",
        f"# {kind} with {label}, preset `{config['preset']}`",
        f"A small model with {run.summary['parameters']:,} parameters of the companion to Li et "
        'al., "Towards Binary-Valued Gates for Robust LSTM Training" (ICML 2018), trained from '
        f"scratch with the gate `{config['gate']}`{f' ({settings})' if settings else ''}; {sizes}.",
        f"```console\n$ {USE[task].format(name=name)}\n```",
        "## Training data",
        DATA[task],
        "\n".join(data),
        "## Metrics",
        metrics.to_markdown(index=False, disable_numparse=True),
        f"Protocol: {run.summary['protocol']}{f'; {signature}' if signature else ''}. One run, "
        f"seed {config['seed']}: for the spread over seeds see `results/{config['preset']}/`.",
        f"Trained by `{command(saved.configuration)}` at commit {record['commit']}{state}, "
        f"{record['time']}, torch {record['versions']['torch']}, on "
        f"{record['hardware']['processor']}; best epoch {run.summary['best_epoch']} of "
        f"{run.summary['epochs']}. Fingerprint of settings, code and data: "
        f"`{config['fingerprint']}`.",
        "## Intended use",
        "Teaching and trials without training: perplexity, translation, compression and gate "
        "values of a model with this gate, beside its twins with other gates.",
        "## Limits",
        LIMITS[task],
        "## Licence",
        "MIT, as the package; the training text is generated by the package and under the same "
        "licence.",
        "## Files",
        f"`{WEIGHTS}`: {weights['bytes']:,} bytes, sha256 `{weights['sha256']}`; all files are "
        f"listed in `manifest.json`, and `g2lstm verify {name}` checks them.",
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"
