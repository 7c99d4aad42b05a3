"""The decoding benchmark runs, and measures what it says."""

import copy
import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from g2lstm.experiments import configure
from g2lstm.runs import prepare, train_or_load
from g2lstm.training import load_best

PATH = Path(__file__).parents[1] / "benchmarks" / "decoding.py"
SMALL = {"embedding_size": 8, "hidden_size": 8, "merges": 10, "epochs": 1}


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("decoding_benchmark", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpora") / "letters"
    folder.mkdir()
    for split, count in {"train": 40, "valid": 5, "test": 6}.items():
        for language, letters in {"de": "abcdefg", "en": "hijklmn"}.items():
            lines = [" ".join(letters[n % 7 :] + letters[: n % 3]) for n in range(count)]
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def run(corpus):
    configuration = configure("small", corpus, task="translation", overrides=SMALL)
    return train_or_load(prepare(configuration, "cpu"), progress_bar=False).directory


def test_writes_its_table(benchmark, corpus, run, tmp_path, capsys):
    settings = ["--threads", "1", "--repeats", "3", "--sentences", "5"]
    given = ["--run", str(run), "--beam", "2", *settings, "--output", str(tmp_path / "decoding")]
    benchmark.main(given)
    table = pd.read_csv(tmp_path / "decoding.csv")
    assert table.sentences.tolist() == [15]
    assert table.beam.tolist() == [2]
    assert (table.peak_mib >= table.start_mib).all()
    for name in ("seconds", "sentences_per_second", "subwords_per_second", "start_mib"):
        assert (table[name] > 0).all()
    text = (tmp_path / "decoding.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    for part in ("peak, MiB", "Preset small, gate gumbel, trained", "sentences of letters"):
        assert part in text
    source = json.loads((tmp_path / "decoding.provenance.json").read_text(encoding="utf-8"))
    assert source["threads"] == 1
    assert "--repeats 3" in source["command"]


def test_measures_the_model_of_the_run(benchmark, corpus, run, monkeypatch):
    models = []

    def translate(model, sources, **settings):
        models.append(model)
        return original(model, sources, **settings)

    original = benchmark.translate
    monkeypatch.setattr(benchmark, "translate", translate)
    for given in (run, None):
        job = json.loads(json.dumps(benchmark.load(given, corpus, 3)))
        assert len(job["sources"]) == 3
        job |= {"threads": 1, "beam": 1, "repeats": 2, "batch_tokens": 9}
        assert benchmark.measure(job)["sentences"] == 6
    trained, untrained = models[0], models[-1]
    expected = copy.deepcopy(trained)
    for parameter in expected.parameters():
        nn.init.zeros_(parameter)
    load_best(run / "model.safetensors", expected)
    torch.testing.assert_close(trained.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert untrained.target_embedding.embedding_dim == 256  # of the preset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "at least 1"),
        (["--beam", "5", "0"], "at least 1"),
        (["--run", "here", "--corpus", "grammar"], "its own corpus"),
        (["--run", "nowhere"], "no model.safetensors"),
    ],
)
def test_wrong_arguments_are_errors(benchmark, capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmark.parse(arguments)
    assert message in capsys.readouterr().err
