"""The training benchmark runs, and its peers are the project's models in plain PyTorch."""

import importlib
import json
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

from g2lstm.experiments import configure
from g2lstm.runs import prepare

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", ["training.py"])
    threads = torch.get_num_threads()
    module = importlib.import_module("training")
    yield module
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


def plain_and_own(benchmark, **arguments):
    """The task's losses of its first batch by the project's model and by the peer."""
    configuration = configure(gate="sigmoid", **arguments)
    task = prepare(configuration, "cpu").task
    peer = benchmark.PEERS[configuration.task](task.model, task.objective)
    return task, peer


def test_the_plain_language_model_is_the_projects(benchmark):
    sizes = {"embedding_size": 6, "num_layers": 2, "hidden_size": 6}
    task, peer = plain_and_own(
        benchmark, task="language-model", preset="quick", overrides={**sizes, "cutoff": 20}
    )
    state, layers = {}, task.model.layers
    state |= {"embedding.weight": task.model.embedding.weight, "bias": task.model.decoder_bias}
    state |= {"tail": task.model.tail_weight, "tail_bias": task.model.tail_bias}
    for index, layer in enumerate(layers):
        for name, value in layer.state_dict().items():
            state[f"lstm.{name.replace('_l0', f'_l{index}')}"] = value
    peer.load_state_dict(state)
    for batch in ((0, 5), (5, 9)):
        torch.testing.assert_close(
            peer.losses(batch)[0], task.objective.losses(task.model, batch)[1]
        )


def test_the_plain_translation_model_is_the_projects(benchmark):
    sizes = {"embedding_size": 6, "hidden_size": 6, "encoder_layers": 2, "decoder_layers": 2}
    task, peer = plain_and_own(
        benchmark, task="translation", preset="quick", overrides={**sizes, "merges": 10}
    )
    state = {}
    for name, value in task.model.state_dict().items():
        state[name.removeprefix("attention.").replace("output_bias", "bias")] = value
    peer.load_state_dict(state)
    batch = [3, 1, 2]
    torch.testing.assert_close(peer.losses(batch)[0], task.objective.losses(task.model, batch)[1])


def test_writes_its_table(benchmark, tmp_path, capsys):
    output = tmp_path / "training"
    arguments = ["--preset", "language-model/quick", "--seconds", "0.1", "--output", str(output)]
    benchmark.main(arguments)
    table = pd.read_csv(f"{output}.csv")
    assert set(table.model) == {"G2-LSTM", "LSTM", "LSTM, native", "plain PyTorch"}
    assert (table.tokens_per_second > 0).all()
    base = table[(table.model == "plain PyTorch") & (table.precision == "float32")]
    assert base.ratio.tolist() == [1.0]
    assert "plain PyTorch" in capsys.readouterr().out
    source = json.loads(Path(f"{output}.provenance.json").read_text(encoding="utf-8"))
    assert source["threads"] == 1


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--seconds", "0"]])
def test_wrong_arguments_are_errors(benchmark, capsys, arguments):
    with pytest.raises(SystemExit):
        benchmark.parse(arguments)
    assert "--threads must be at least 1" in capsys.readouterr().err
