"""Releases: only of our own text, with a card that says where the numbers come from."""

import json
import shutil

import pytest

from cards import card_metrics
from g2lstm.manifest import differences, listed_files
from g2lstm.release import METRICS, release
from g2lstm.saved_models import ModelError
from tiny_runs import finished, without_headers


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_the_card_says_what_the_run_records(corpora, tmp_path, task):
    run = finished(task, gate="sharpened")
    made = release(run.directory, tmp_path / "model")
    text = (tmp_path / "model/README.md").read_text(encoding="utf-8")
    assert card_metrics(text) == made["metrics"]
    for name, (key, digits) in METRICS[task].items():
        assert made["metrics"][name] == format(run.summary[key], digits)
    for heading in ("Training data", "Metrics", "Intended use", "Limits", "Licence", "Files"):
        assert f"\n## {heading}\n" in text
    assert text.startswith("---\nlicense: mit\n")
    about = [run.provenance["commit"], run.config["fingerprint"], "seed 1", "temperature 0.2"]
    about += [f"sha256 `{made['sha256']}`", *run.provenance["data"]["sha256"].values()]
    for part in about:
        assert part in text
    assert differences(tmp_path / "model") == []
    assert made["sha256"] == listed_files(run.directory)["model.safetensors"]["sha256"]


def test_models_of_other_texts_are_not_released(corpora, tmp_path):
    without_headers(shutil.copytree(finished(gate="sharpened").directory, tmp_path / "run"))
    config = json.loads((tmp_path / "run/config.json").read_text()) | {"corpus": "ptb"}
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="was trained on ptb, a text with a licence of its own"):
        release(tmp_path / "run", tmp_path / "model")
    assert not (tmp_path / "model").exists()
