"""The compression benchmark runs, and what it compares is what it says."""

import importlib.util
import json
from pathlib import Path

import onnxruntime
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from g2lstm.compression import LowRank, RoundClip, compress
from g2lstm.evaluation import evaluate
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import factorise
from g2lstm.packing import save_packed
from g2lstm.saved_models import open_model
from tiny_runs import finished

PATH = Path(__file__).parents[1] / "benchmarks" / "compression.py"
BATCHES = ["batch 1", "batch 20"]


@pytest.fixture(scope="module")
def benchmark():
    specification = importlib.util.spec_from_file_location("compression_benchmark", PATH)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


def test_writes_its_table(benchmark, corpora, tmp_path, capsys):
    directory = finished("language-model").directory
    options = ["--quick", "--size=8,30", "--size=30,30", f"--model={directory}"]
    benchmark.main([*options, "--output", str(tmp_path / "out")])
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    text = (tmp_path / "out.md").read_text(encoding="utf-8")
    source = json.loads((tmp_path / "out.provenance.json").read_text(encoding="utf-8"))
    assert table.columns.tolist() == benchmark.COLUMNS
    methods = list(benchmark.METHODS)
    run = [name for name in methods if not name.startswith("round")]
    *layers, trained = table.subject.unique()
    assert layers == ["8, 30", "30, 30"]
    for subject in layers:
        rows = table[table.subject == subject].groupby("measure", sort=False)
        found = {measure: group.method.tolist() for measure, group in rows}
        assert found == {"size": methods, "batch 1": run, "batch 20": run}
    assert table[table.subject == trained].method.tolist() == methods
    assert (table[table.method == "nn.LSTM"].ratio == 1).all()
    assert (table.value > 0).all()
    assert (table.ratio_lower <= table.ratio).all()
    assert (table.ratio <= table.ratio_upper).all()
    assert capsys.readouterr().out.endswith(text + "\n")
    for part in (*methods, *BATCHES, f"{trained}: perplexity", "as nn.LSTM", "of 3 rounds"):
        assert part in text
    assert (source["rounds"], source["threads"], source["clock"]) == (3, 1, "elapsed")
    assert source["onnxruntime"] == onnxruntime.__version__


def test_the_perplexity_is_that_of_the_saved_model(benchmark, corpora):
    directory = finished("language-model").directory
    rows = benchmark.measure_model(directory, 1).set_index("method")
    saved = open_model(directory, device="cpu")
    test = benchmark.load_corpus(saved.configuration.corpus).test[: benchmark.TOKENS]
    expected = {
        "nn.LSTM": saved.model,
        "ONNX": saved.model,
        "low rank 1/4 of all gates, packed": factorise(
            saved.model, round(saved.model.layers[0].hidden_size / 4), gates="all"
        ),
        "round & clip, packed": compress(saved.model, RoundClip(0.2, 0.4)),
    }
    for name, model in expected.items():
        perplexity = evaluate(model, test, benchmark.STRANDS).perplexity
        assert rows.value[name] == pytest.approx(perplexity, rel=1e-5), name
        ratio = rows.value[name] / rows.value["nn.LSTM"]
        assert rows.ratio[name] == ratio == rows.ratio_upper[name]


def test_perplexity_by_onnx_carries_the_state(benchmark, tmp_path):
    torch.manual_seed(0)
    model = LanguageModel(20, 8, 12, 2).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)
    tokens = torch.randint(20, (500,))
    session = benchmark.stored(benchmark.METHODS["ONNX"], model, tmp_path / "model", 1)
    expected = evaluate(model, tokens, benchmark.STRANDS).perplexity
    for bptt in (70, 7, 1):
        assert benchmark.perplexity(session, tokens, bptt) == pytest.approx(expected, rel=1e-4)


def test_a_translation_model_is_refused(benchmark, corpora):
    with pytest.raises(SystemExit, match="is a translation model"):
        benchmark.measure_model(finished("translation").directory, 1)


def test_bytes_are_those_of_the_files(benchmark, tmp_path):
    torch.manual_seed(0)
    base = nn.LSTM(20, 40)
    for parameter in base.parameters():
        nn.init.normal_(parameter, std=0.2)
    save_file(base.state_dict(), tmp_path / "dense")
    save_packed(compress(base, RoundClip(0.2, 0.4)), tmp_path / "packed", "int8")
    table = benchmark.measure_layer((20, 40), 1, 1, iter(range(10**6)).__next__)
    sizes = table[table.measure == "size"].set_index("method")
    for method, name in {"nn.LSTM": "dense", "round & clip, packed int8": "packed"}.items():
        assert sizes.value[method] == (tmp_path / name).stat().st_size
    packed, dense = ((tmp_path / name).stat().st_size for name in ("packed", "dense"))
    assert sizes.ratio["round & clip, packed int8"] == pytest.approx(packed / dense)
    # With a clock that ticks once a call every measurement is one tick, of 1000 thousandths.
    times = table[table.measure.isin(BATCHES)]
    assert (times.value == 1000).all()


def test_quartiles_are_of_ratios_within_a_round(benchmark):
    values = pd.DataFrame({"nn.LSTM": [1.0, 2, 4, 8, 10], "ONNX": [1.0, 1, 1, 16, 40]})
    row = benchmark.table("layer", "size", "bytes", values).set_index("method").loc["ONNX"]
    found = row[["value", "ratio", "ratio_lower", "ratio_upper"]].tolist()
    assert found == [1, 1, 0.5, 2]


def test_what_is_compared_does_the_same_work(benchmark, tmp_path):
    torch.manual_seed(0)
    base = nn.LSTM(20, 32).eval()
    x, h, c = torch.randn(6, 3, 20), torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    joint = {"gates": "all"}
    rounded, input_alone = compress(base, RoundClip(0.2, 0.4)), joint | {"matrices": "input"}
    expected = {
        "nn.LSTM": base, "ONNX": base, "ONNX int8": base,
        "low rank 128/1150 of i, f, packed": compress(base, LowRank(4)),
        "low rank 64/1150 of i, f, packed": compress(base, LowRank(2)),
        "low rank 32/256 of i, f, packed": compress(base, LowRank(4)),
        "low rank 16/256 of i, f, packed": compress(base, LowRank(2)),
        "low rank 128/1150 of i, f, packed int8": compress(base, LowRank(4)),
        "low rank 128/1150 of i, f, multiplied out, ONNX int8": compress(base, LowRank(4)),
        "low rank 1/4 of all gates, packed": factorise(base, 8, **joint),
        "low rank 1/4 of all gates, packed int8": factorise(base, 8, **joint),
        "low rank 1/8 of all gates, packed int8": factorise(base, 4, **joint),
        "low rank 1/4 of all gates, of the input alone, ONNX int8":
            factorise(base, 8, **input_alone),
        "low rank 1/8 of all gates, of the input alone, ONNX int8":
            factorise(base, 4, **input_alone),
        "round & clip, packed": rounded, "round & clip, packed int8": rounded,
    }  # fmt: skip
    assert expected.keys() == benchmark.METHODS.keys()
    for name, method in benchmark.METHODS.items():
        layer = benchmark.stored(method, base, tmp_path / "layer", 1)
        found = torch.as_tensor(benchmark.infer(layer, x, h, c))
        with torch.no_grad():
            twin = expected[name](x, (h, c))[0]
        tolerance = 0.02 if "int8" in name else 1e-5
        torch.testing.assert_close(found, twin, rtol=0, atol=tolerance, msg=name)


def test_cells_say_what_the_rows_hold(benchmark):
    row = {"subject": "x", "method": "ONNX", "unit": "", "ratio_lower": 0.2, "ratio_upper": 0.4}
    rows = [
        row | {"measure": "perplexity", "value": 81.23, "ratio": 1.0154},
        row | {"measure": "size", "unit": "bytes", "value": 5.0, "ratio": 0.25},
        row | {"measure": "batch 1", "unit": "milliseconds", "value": 5.0, "ratio": 0.3},
        row | {"measure": "size", "method": "nn.LSTM", "unit": "bytes", "value": 2e6, "ratio": 1},
    ]
    cells = [benchmark.cell(found) for found in pd.DataFrame(rows).itertuples()]
    assert cells == ["81.2 (+1.5 %)", "0.250", "0.30 (0.20-0.40)", "2 MB"]
    assert benchmark.units(nn.Sequential(nn.LSTM(3, 9), nn.LSTM(9, 4))) == 9


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
