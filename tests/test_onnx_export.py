"""What ONNX Runtime computes from an exported file, against PyTorch."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from g2lstm import G2LSTM
from g2lstm.compression import ReparametrisedError
from g2lstm.files import WriteError
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import LowRankLSTM, factorise
from g2lstm.onnx_export import ExportError, export_onnx
from g2lstm.translation import TranslationModel

INPUT, HIDDEN = 7, 12
KINDS = {
    "nn.LSTM": (nn.LSTM, {}),
    "sigmoid": (G2LSTM, {"gate": "sigmoid"}),
    "sharpened": (G2LSTM, {"gate": "sharpened", "temperature": 0.3}),
    "gumbel": (G2LSTM, {"gate": "gumbel", "temperature": 0.3}),
    "three kept": (
        G2LSTM,
        {
            "temperature": 0.3,
            "noise_gates": "input-forget-output",
            "evaluation_gate": "temperature",
        },
    ),
}


def make(kind="nn.LSTM", **options):
    torch.manual_seed(0)
    layer, gate = KINDS[kind]
    made = layer(INPUT, HIDDEN, **options, **gate).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.4)
    return made


def language_model(**options):
    torch.manual_seed(0)
    model = LanguageModel(30, 8, 12, 2, **options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    return model


def run(path, inputs):
    """The results by name."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return {
        name: torch.from_numpy(value)
        for name, value in zip(names, session.run(None, arrays), strict=True)
    }


def layer_inputs(lstm, steps, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    layers = lstm.num_layers * (2 if lstm.bidirectional else 1)
    shape = (batch, steps) if lstm.batch_first else (steps, batch)
    return {
        "input": torch.randn(*shape, lstm.input_size, generator=generator),
        "h_0": torch.randn(layers, batch, lstm.hidden_size, generator=generator).tanh(),
        "c_0": torch.randn(layers, batch, lstm.hidden_size, generator=generator),
    }


@torch.no_grad()
def by_torch(model, inputs):
    if isinstance(model, nn.LSTM):
        output, (h, c) = model(inputs["input"], (inputs["h_0"], inputs["c_0"]))
        return {"output": output, "h_n": h, "c_n": c}
    state = [(inputs[f"h_0_l{k}"], inputs[f"c_0_l{k}"]) for k in range(len(model.layers))]
    output = model(inputs["tokens"], state)
    results = {"log_probabilities": model.log_probabilities(output.hidden)}
    for k, (h, c) in enumerate(output.state):
        results |= {f"h_n_l{k}": h, f"c_n_l{k}": c}
    return results


def assert_same(found, expected, tolerance=1e-5):
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=name)


def token_inputs(model, steps, batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    size = len(model.decoder_bias)
    inputs = {"tokens": torch.randint(size, (steps, batch), generator=generator)}
    for k, layer in enumerate(model.layers):
        for name in ("h", "c"):
            state = torch.randn(1, batch, layer.hidden_size, generator=generator)
            inputs[f"{name}_0_l{k}"] = state.tanh()
    return inputs


# --- layers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("layers", "bias"), [(1, True), (1, False), (3, True)])
def test_layer_computes_the_same(tmp_path, kind, bidirectional, batch_first, layers, bias):
    lstm = make(kind, num_layers=layers, bidirectional=bidirectional, batch_first=batch_first,
                bias=bias)  # fmt: skip
    export_onnx(lstm, tmp_path / "layer.onnx")
    for steps, batch in ((6, 3), (1, 1), (9, 2)):
        inputs = layer_inputs(lstm, steps, batch)
        assert_same(run(tmp_path / "layer.onnx", inputs), by_torch(lstm, inputs))


def test_a_layer_in_training_mode_is_exported_as_it_evaluates(tmp_path):
    lstm = make("gumbel", num_layers=2, dropout=0.5).train()
    export_onnx(lstm, tmp_path / "layer.onnx")
    assert lstm.training
    inputs = layer_inputs(lstm, 4, 2)
    assert_same(run(tmp_path / "layer.onnx", inputs), by_torch(lstm.eval(), inputs))


@pytest.mark.parametrize("gates", ["input-forget", "all"])
@pytest.mark.parametrize("matrices", [("input",), ("recurrent",), ("input", "recurrent")])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_factored_layer_computes_the_same(tmp_path, gates, matrices, bidirectional):
    lstm = make("sharpened", num_layers=2, bidirectional=bidirectional)
    compact = LowRankLSTM.from_lstm(lstm, 2, matrices, gates)
    export_onnx(compact, tmp_path / "layer.onnx")
    inputs = layer_inputs(lstm, 5, 3)
    assert_same(run(tmp_path / "layer.onnx", inputs), by_torch(compact, inputs))


def test_factors_of_the_input_make_the_file_smaller(tmp_path):
    lstm = nn.LSTM(64, 64)
    export_onnx(lstm, tmp_path / "whole.onnx")
    export_onnx(LowRankLSTM.from_lstm(lstm, 4, "input", "all"), tmp_path / "factors.onnx")
    sizes = {name: (tmp_path / f"{name}.onnx").stat().st_size for name in ("whole", "factors")}
    saved = 4 * (4 * 64 * 64 - 4 * (4 * 64 + 64))  # bytes: a matrix less, two factors more
    assert sizes["whole"] - sizes["factors"] == pytest.approx(saved, abs=300)


@pytest.fixture(scope="module", params=["float32", "int8"])
def exported(request, tmp_path_factory):
    """Sessions over one file each: a stacked layer and a language model."""
    folder = tmp_path_factory.mktemp("exported")
    torch.manual_seed(0)
    lstm = G2LSTM(INPUT, HIDDEN, 2, bidirectional=True).eval()  # PyTorch's initial weights
    model = LanguageModel(30, 8, 12, 2, cutoff=10).eval()
    for name, part in {"layer": lstm, "model": model}.items():
        export_onnx(part, folder / f"{name}.onnx", int8=request.param == "int8")
    # The bound of int8 is documented; of float32 it is rounding.
    return lstm, model, folder, 1e-5 if request.param == "float32" else 0.02


@settings(deadline=None, max_examples=25)
@given(steps=st.integers(1, 40), batch=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_any_steps_sequences_and_state(exported, steps, batch, seed):
    lstm, model, folder, tolerance = exported
    inputs = layer_inputs(lstm, steps, batch, seed)
    assert_same(run(folder / "layer.onnx", inputs), by_torch(lstm, inputs), tolerance)
    inputs = token_inputs(model, steps, batch, seed)
    assert_same(run(folder / "model.onnx", inputs), by_torch(model, inputs), tolerance)


@settings(deadline=None, max_examples=15)
@given(first=st.integers(1, 9), second=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_the_state_is_carried(exported, first, second, seed):
    """A text in two parts is the text as a whole; in int8 but for what rounding adds."""
    _, model, folder, tolerance = exported
    inputs = token_inputs(model, first + second, 2, seed)
    whole = run(folder / "model.onnx", inputs)
    head = run(folder / "model.onnx", inputs | {"tokens": inputs["tokens"][:first]})
    state = {name.replace("_n_", "_0_"): v for name, v in head.items() if "_n_" in name}
    tail = run(folder / "model.onnx", state | {"tokens": inputs["tokens"][first:]})
    joined = torch.cat([head["log_probabilities"], tail["log_probabilities"]])
    found = tail | {"log_probabilities": joined}
    assert_same({name: found[name] for name in whole}, whole, tolerance)


# --- the language model --------------------------------------------------------------------------


@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
@pytest.mark.parametrize("tie_weights", [True, False])
@pytest.mark.parametrize("cutoff", [0, 11])
def test_language_model_computes_the_same(tmp_path, gate, tie_weights, cutoff):
    model = language_model(gate=gate, temperature=0.4, tie_weights=tie_weights, cutoff=cutoff)
    export_onnx(model, tmp_path / "model.onnx")
    inputs = token_inputs(model, 6, 3)
    expected = by_torch(model, inputs)
    total = expected["log_probabilities"].exp().sum(-1)
    torch.testing.assert_close(total, torch.ones(6, 3))
    assert_same(run(tmp_path / "model.onnx", inputs), expected)


def test_factored_language_model_computes_the_same(tmp_path):
    model = factorise(language_model(), 3, gates="all")
    export_onnx(model, tmp_path / "model.onnx")
    inputs = token_inputs(model, 6, 3)
    assert_same(run(tmp_path / "model.onnx", inputs), by_torch(model, inputs))


def test_a_tied_matrix_is_stored_once_and_int8_takes_a_quarter(tmp_path):
    model = LanguageModel(2000, 64, 64, 1).eval()
    weights = sum(parameter.numel() for parameter in model.parameters())
    for int8, size in ((False, 4), (True, 1)):
        export_onnx(model, tmp_path / "model.onnx", int8)
        vectors = 4 * 2000 + 4 * 8 * 64  # biases stay float32
        expected = size * weights + (vectors if int8 else 0)
        assert (tmp_path / "model.onnx").stat().st_size == pytest.approx(expected, rel=0.03)


# --- what cannot be exported ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 3), "Linear cannot be exported to ONNX: export a torch.nn.LSTM, G2LSTM"),
        (TranslationModel(9, 9, 4, 4), "TranslationModel cannot be exported to ONNX"),
        (nn.LSTM(3, 4, proj_size=2), "proj_size=2 is not supported"),
        (nn.LSTM(3, 4).double(), "float64"),
        (nn.LSTM(3, 4).bfloat16(), "bfloat16"),
        (G2LSTM(3, 4, evaluation_gate="hard"), "hard gates"),
        (LowRankLSTM(3, 4, 2, hard="if"), "hard gates"),
    ],
)
def test_what_cannot_be_exported_is_named(tmp_path, model, message):
    (tmp_path / "model.onnx").write_text("was here")
    with pytest.raises(ExportError, match=message):
        export_onnx(model, tmp_path / "model.onnx")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["was here"]


def test_weights_that_are_computed_from_others_are_not_exported(tmp_path):
    lstm = nn.LSTM(3, 4)
    nn.utils.parametrizations.weight_norm(lstm, "weight_hh_l0")
    with pytest.raises(ReparametrisedError, match=r"weight_hh_l0 of .*remove_parametrizations"):
        export_onnx(lstm, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("int8", [False, True])
def test_without_the_extra_it_says_what_to_install(tmp_path, monkeypatch, int8):
    missing = "onnxruntime.quantization" if int8 else "onnx"
    monkeypatch.setitem(__import__("sys").modules, missing, None)
    with pytest.raises(ExportError, match=r"g2lstm\[onnx\]"):
        export_onnx(nn.LSTM(2, 3), tmp_path / "model.onnx", int8)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        export_onnx(nn.LSTM(2, 3), tmp_path / "file" / "model.onnx")


def test_the_file_is_valid_and_leaves_the_model_alone(tmp_path):
    lstm = make("sharpened")
    before = {name: value.clone() for name, value in lstm.state_dict().items()}
    export_onnx(lstm, tmp_path / "layer.onnx", int8=True)
    onnx.checker.check_model(onnx.load(tmp_path / "layer.onnx"))
    torch.testing.assert_close(dict(lstm.state_dict()), before, rtol=0, atol=0)
    kinds = {np.dtype(onnx.helper.tensor_dtype_to_np_dtype(t.data_type))
             for t in onnx.load(tmp_path / "layer.onnx").graph.initializer if len(t.dims) > 1
             and t.dims[-1] == 4 * HIDDEN}  # fmt: skip
    assert kinds == {np.dtype("int8")}
