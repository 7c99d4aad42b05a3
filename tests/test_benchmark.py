"""The layer benchmark runs, and what it compares does the same work."""

import importlib.util
import json
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from g2lstm import G2LSTM

PATH = Path(__file__).parents[1] / "benchmarks" / "layer.py"


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("layer_benchmark", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_writes_its_table(benchmark, tmp_path, capsys):
    arguments = ["--quick", "--threads", "1", "--size", "3,2,4,5", "--size", "2,2,3,4"]
    benchmark.main([*arguments, "--output", str(tmp_path / "layer")])
    table = pd.read_csv(tmp_path / "layer.csv")
    training = ["nn.LSTM", "G2LSTM", "G2LSTM, bfloat16", "authors' loop"]
    assert table.layer.tolist() == 2 * (training + 2 * ["nn.LSTM", "G2LSTM"])
    assert (table.milliseconds > 0).all()
    assert (table.ratio_lower <= table.ratio).all()
    assert (table.ratio <= table.ratio_upper).all()
    assert (table[table.layer == "nn.LSTM"].ratio == 1).all()
    text = (tmp_path / "layer.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.strip() == text.strip()
    for part in ("3, 2, 4, 5", "authors' loop", f"torch {torch.__version__.split('+')[0]}"):
        assert part in text
    source = json.loads((tmp_path / "layer.provenance.json").read_text(encoding="utf-8"))
    assert source["rounds"] == 3
    assert "--size 3,2,4,5" in source["command"]


def test_the_authors_loop_is_g2lstm_in_slow(benchmark):
    """Without noise both are the same function, forward and backward."""
    torch.manual_seed(0)
    loop, layer = benchmark.AuthorsLoop(3, 4), G2LSTM(3, 4, noise_probability=0.0)
    layer.load_state_dict(loop.state_dict())
    loop.probability = 0.0
    x = torch.randn(5, 2, 3, requires_grad=True)
    gradients = []
    for each in (loop, layer):
        output = each(x)[0]
        gradients.append(torch.autograd.grad(output.sum(), [x, *each.parameters()]))
    torch.testing.assert_close(loop(x)[0], layer(x)[0])
    torch.testing.assert_close(*gradients)
    loop.probability = 0.2
    assert not torch.equal(loop(x)[0], loop(x)[0])


def test_the_overview_has_a_column_a_processor(benchmark, monkeypatch, tmp_path):
    """Of all records in the folder; sizes that a record lacks are empty, GPUs have their own."""
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path)
    sizes = {"some": ["2,2,3,4"], "other": ["3,2,4,5", "2,2,3,4"], "cuda": ["2,2,3,4"]}
    for maker, own in sizes.items():
        machine = {"cores": 2, "processor": f"{maker.title()}(R) Processor"}
        machine["gpu"] = "A Card" if maker == "cuda" else None
        monkeypatch.setattr("g2lstm.provenance.hardware", partial(dict, machine))
        arguments = ["--quick", "--threads", "1", *(part for s in own for part in ("--size", s))]
        benchmark.main([*arguments, "--output", str(tmp_path / f"layer_{maker}")])
    text = (tmp_path / "layer.md").read_text(encoding="utf-8")
    heading, _, *lines = text.splitlines()
    assert [part.strip() for part in heading.split("|")[-3:]] == [
        "Other Processor",
        "Some Processor",
        "",
    ]
    assert "A Card" not in text
    cells = [[part.strip() for part in line.split("|")[3:-1]] for line in lines if "|" in line]
    assert {tuple(row[:1]) for row in cells if row[-1] == ""} == {("3, 2, 4, 5",)}
    assert all(row[-2] for row in cells)
    assert text.count("median (quartiles) of 3 rounds") == 2
    assert not (tmp_path / "layer_some.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "at least 1"),
        (["--repeats", "0"], "at least 1"),
        (["--size", "1,2,3"], "four numbers"),
        (["--threads", "2", "--cpu-time"], "--threads 1"),
    ],
)
def test_wrong_arguments_are_errors(benchmark, capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmark.parse(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("gpu", "arguments", "message"),
    [(False, [], "torch finds no GPU here"), (True, ["--cpu-time"], "leave it out with --device")],
)
def test_what_a_gpu_cannot_do_is_an_error(benchmark, monkeypatch, capsys, gpu, arguments, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    with pytest.raises(SystemExit):
        benchmark.parse(["--device", "cuda", *arguments])
    assert message in capsys.readouterr().err


def test_results_of_a_gpu_have_names_of_their_own(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert benchmark.parse(["--device", "cuda"]).output.name == "layer_cuda"
    own = ["--output", str(tmp_path / "own")]
    assert benchmark.parse(["--device", "cuda", *own]).output == tmp_path / "own"


def test_the_way_in_place_is_that_of_a_cpu(benchmark):
    """On a GPU it is measured beside the kernel; here it must do the same as ever."""
    torch.manual_seed(0)
    layer, x = G2LSTM(3, 4, noise_probability=0.0), torch.randn(5, 2, 3, requires_grad=True)
    gradients = []
    for run in (benchmark.training, benchmark.training_in_place):
        run(layer, x)
        gradients.append(x.grad)
    assert torch.equal(*gradients)
