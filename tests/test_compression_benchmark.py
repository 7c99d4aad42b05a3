"""The compression benchmark runs, and what it compares is what it says."""

import importlib.util
import json
import os
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from g2lstm.compression import LowRank, RoundClip, compress
from g2lstm.packing import save_packed

PATH = Path(__file__).parents[1] / "benchmarks" / "compression.py"
LAYERS = [
    "nn.LSTM", "G2LSTM", "LowRankLSTM, rank 3", "LowRankLSTM, rank 2", "round, packed",
    "round & clip, packed", "nn.LSTM, packed, int8", "round, packed, int8",
    "round & clip, packed, int8", "torch's dynamic int8",
]  # fmt: skip
SHAPES = ["70 steps, batch 1", "70 steps, batch 20", "1 step, batch 1"]


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("compression_benchmark", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def run(benchmark, folder, *sizes):
    """Table, text and provenance of a run over tiny layers."""
    given = ["--quick", *(f"--size={size}" for size in sizes), "--output", str(folder / "out")]
    benchmark.main(given)
    text = (folder / "out.md").read_text(encoding="utf-8")
    source = json.loads((folder / "out.provenance.json").read_text(encoding="utf-8"))
    return pd.read_csv(folder / "out.csv"), text, source


def test_writes_its_table(benchmark, tmp_path, capsys):
    table, text, source = run(benchmark, tmp_path, "8,30", "30,30")
    assert table.columns.tolist() == benchmark.COLUMNS
    assert table[["D", "H"]].drop_duplicates().to_numpy().tolist() == [[8, 30], [30, 30]]
    for _, group in table.groupby("D"):
        assert group.measure.unique().tolist() == ["size", "load", *SHAPES]
        for measure, rows in group.groupby("measure", sort=False):
            dense = [name for name in LAYERS if "packed" not in name]
            assert rows.layer.tolist() == (dense if "step" in measure else LAYERS)
    assert (table.threads == 1).all()
    assert (table[table.layer == "nn.LSTM"].ratio == 1).all()
    measured = table[table.layer != "torch's dynamic int8"]  # which may fail
    assert (measured.value > 0).all()
    assert (measured.ratio_least <= measured.ratio).all()
    assert (measured.ratio <= measured.ratio_most).all()
    assert capsys.readouterr().out.strip() == text.strip()
    for part in ("30, 30", *LAYERS, *SHAPES, "as nn.LSTM", "1 threads", "of 3 rounds"):
        assert part in text
    assert (source["rounds"], source["threads"], source["clock"]) == (3, 1, "elapsed")
    assert "--size=8,30" in source["command"]


def test_bytes_are_those_of_the_files(benchmark, tmp_path):
    layers, _ = benchmark.contenders(20, 40)
    base = layers["nn.LSTM"].layer
    save_file(base.state_dict(), tmp_path / "dense")
    save_packed(compress(base, RoundClip(0.2, 0.4)), tmp_path / "packed", "int8")
    table, _ = benchmark.measure((20, 40), 1, 1, iter(range(10**6)).__next__)
    sizes = table[table.measure == "size"].set_index("layer")
    for layer, name in {"nn.LSTM": "dense", "round & clip, packed, int8": "packed"}.items():
        assert sizes.value[layer] == (tmp_path / name).stat().st_size
    assert sizes.ratio["round & clip, packed, int8"] == pytest.approx(
        (tmp_path / "packed").stat().st_size / (tmp_path / "dense").stat().st_size
    )
    # With a clock that ticks once a call every measurement is one tick, of 1000 thousandths.
    load = table[table.measure == "load"]
    assert (load[load.layer != benchmark.PEER].value == 1000).all()
    single = table[(table.measure == SHAPES[2]) & (table.layer != benchmark.PEER)]
    assert single.value.tolist() == pytest.approx([1000 / 21] * len(single))


def test_what_is_compared_does_the_same_work(benchmark):
    layers, failure = benchmark.contenders(8, 30)
    assert ("torch's dynamic int8" in layers) == (failure is None)
    base = layers["nn.LSTM"].layer
    x = torch.randn(6, 3, 8)
    expected = {
        "nn.LSTM": (base, 0.0),
        "G2LSTM": (base, 1e-6),
        "LowRankLSTM, rank 3": (compress(base, LowRank(3)), 1e-5),
        "LowRankLSTM, rank 2": (compress(base, LowRank(2)), 1e-5),
        "torch's dynamic int8": (base, 0.1),
    }
    for name, contender in layers.items():
        if contender.layer is not None:
            assert not contender.layer.training
            twin, tolerance = expected[name]
            torch.testing.assert_close(contender.layer(x)[0], twin(x)[0], rtol=0, atol=tolerance)


def test_loading_reads_the_whole_file(benchmark, tmp_path):
    layers, _ = benchmark.contenders(8, 30)
    path = tmp_path / "file"
    for save, load, _ in layers.values():
        save(path)
        load(path)
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises((OSError, RuntimeError, SafetensorError)):
            load(path)


def test_the_peer_comes_back_as_it_was_saved(benchmark, tmp_path):
    saved, other = (benchmark.dynamic_int8(nn.LSTM(8, 30).eval()) for _ in range(2))
    x = torch.randn(6, 3, 8)
    assert not torch.allclose(saved.layer(x)[0], other.layer(x)[0])
    saved.save(tmp_path / "file")
    other.load(tmp_path / "file")
    assert torch.equal(saved.layer(x)[0], other.layer(x)[0])


def gone(*arguments, **keywords):
    raise AttributeError("module 'torch' has no attribute 'ao'")


@pytest.mark.parametrize(
    ("stand_in", "message"),
    [(gone, "has no attribute 'ao'"), (lambda model, kinds: model, "left torch.nn.LSTM as it was")],
)
def test_a_failing_peer_is_told_not_dropped(benchmark, monkeypatch, tmp_path, stand_in, message):
    monkeypatch.setattr(torch.ao.quantization, "quantize_dynamic", stand_in)
    table, text, source = run(benchmark, tmp_path, "4,5")
    assert message in source["peer_failure"]
    assert f"torch's dynamic int8 failed: {source['peer_failure']}." in text
    line = next(line for line in text.splitlines() if "| torch's dynamic int8" in line)
    assert line.count("failed") == 5
    rows = table[table.layer == "torch's dynamic int8"]
    assert rows.measure.tolist() == ["size", "load", *SHAPES]
    assert rows[["value", "ratio"]].isna().all(axis=None)
    assert isinstance(benchmark.contenders(4, 5)[0]["nn.LSTM"].layer, nn.LSTM)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threads", "0"], "at least 1"),
        (["--repeats", "0"], "at least 1"),
        (["--size", "1,2,3"], "two numbers"),
        (["--size", "0,2"], "two numbers"),
        (["--threads", "2", "--cpu-time"], "--threads 1"),
    ],
)
def test_wrong_arguments_are_errors(benchmark, capsys, arguments, message):
    with pytest.raises(SystemExit):
        benchmark.parse(arguments)
    assert message in capsys.readouterr().err
