"""The models in models/ are those of the published runs, and do what their cards say."""

import json
import re
import shutil

import pytest

from cards import card_metrics
from g2lstm.batches import encode_pairs
from g2lstm.checkpoint import CheckpointError
from g2lstm.command_line import main
from g2lstm.corpora import load_corpus
from g2lstm.evaluation import evaluate_translation
from g2lstm.identity import read_record
from g2lstm.manifest import differences, write_manifest
from g2lstm.parallel_corpora import load_parallel
from g2lstm.saved_models import ModelError, open_model
from g2lstm.verification import verify
from sources import ROOT

LANGUAGE_MODELS = ("language-model-gumbel", "language-model-sigmoid")
TRANSLATIONS = ("translation-gumbel", "translation-sigmoid")
MODELS = (*LANGUAGE_MODELS, *TRANSLATIONS)


def test_the_released_models_are_listed_small_and_whole():
    assert sorted(path.name for path in (ROOT / "models").iterdir()) == ["README.md", *MODELS]
    index = (ROOT / "models/README.md").read_text(encoding="utf-8")
    for name in MODELS:
        assert f"[{name}]({name}/README.md)" in index
        assert differences(ROOT / "models" / name) == []
        config = json.loads((ROOT / "models" / name / "config.json").read_text())
        assert config["corpus"] == "grammar"
        assert (config["preset"], config["seed"]) == ("quick", 1)
    sizes = [path.stat().st_size for path in (ROOT / "models").rglob("*") if path.is_file()]
    assert sum(sizes) < 10e6


@pytest.mark.parametrize("name", MODELS)
def test_a_released_model_is_the_published_run(name):
    """Its records are those in results/, so that the card's numbers are in the tables."""
    model = ROOT / "models" / name
    config = json.loads((model / "config.json").read_text())
    published = {
        json.loads(path.read_text())["fingerprint"]: path.parent
        for path in (ROOT / "results/quick/runs").glob(f"{config['task']}/*/*/*/*/config.json")
    }
    for record in ("summary.json", "provenance.json"):
        theirs = json.loads((published[config["fingerprint"]] / record).read_text())
        assert read_record(model / record) == theirs


@pytest.mark.parametrize("name", MODELS)
def test_a_released_model_is_not_used_with_files_of_another(name, tmp_path):
    task, _, gate = name.rpartition("-")
    other = f"{task}-{'sigmoid' if gate == 'gumbel' else 'gumbel'}"
    files = ["model.safetensors", "config.json"]
    files += ["vocabulary.json"] if task == "language-model" else ["source_subwords.json"]
    for file in files:
        model = shutil.copytree(ROOT / "models" / name, tmp_path / file)
        shutil.copy(ROOT / "models" / other / file, model / file)
        write_manifest(model)  # as if it were meant
        with pytest.raises((ModelError, CheckpointError), match="it belongs to the run"):
            open_model(model, device="cpu")
        assert any(check.failures for check in verify(model))


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_a_released_language_model_has_the_perplexity_of_its_card(name, capsys):
    text = f"{load_corpus('grammar').source}/test.txt"
    assert main(["perplexity", str(ROOT / "models" / name), text]) == 0
    (found,) = re.findall(r"perplexity ([\d.]+) ", capsys.readouterr().out)
    card = (ROOT / "models" / name / "README.md").read_text(encoding="utf-8")
    assert found == card_metrics(card)["test perplexity"]


@pytest.mark.parametrize("name", TRANSLATIONS)
def test_a_released_translation_model_has_the_perplexity_of_its_card(name):
    saved = open_model(ROOT / "models" / name, device="cpu")
    pairs = encode_pairs(*saved.subwords, load_parallel("grammar", "de", "en").test)
    found = evaluate_translation(saved.model, pairs).perplexity
    card = (ROOT / "models" / name / "README.md").read_text(encoding="utf-8")
    assert f"{found:.3f}" == card_metrics(card)["test perplexity of the references"]
