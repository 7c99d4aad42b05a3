"""Packed storage loses nothing and costs what its bits say; counts against counts by hand."""

import copy
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from g2lstm import G2LSTM, checkpoint
from g2lstm.checkpoint import CheckpointError
from g2lstm.compression import Chain, Integers, LowRank, Round, RoundClip, compress
from g2lstm.language_model import LanguageModel
from g2lstm.low_rank_lstm import factorise
from g2lstm.packing import (
    compression_report,
    disk_bytes,
    flops_per_step,
    load_packed,
    pack_bits,
    save_packed,
    unpack_bits,
)
from g2lstm.translation import TranslationModel

METHODS = {
    "none": None,
    "round": Round(0.2),
    "round & clip": RoundClip(0.2, 0.4),
    "chain": Chain((LowRank(2), Round(0.1))),
}
GATES = ("input", "forget", "cell", "output")
HEADER = 8 + 1024  # bytes: names, shapes and places of some tensors


def language_model(**settings):
    torch.manual_seed(0)
    model = LanguageModel(12, 8, 10, 2, **settings)
    for layer in model.layers:
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.2)
    return model


def translation(**settings):
    torch.manual_seed(0)
    return TranslationModel(9, 9, embedding_size=8, hidden_size=8, **settings)


class Mixture(nn.Module):
    """Parameters and buffers of many kinds, and a weight that appears twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(6)  # with a number of batches, of no dimensions
        self.lstm = nn.LSTM(6, 5, 2, bidirectional=True, bias=False)
        self.first, self.second = nn.Linear(6, 7), nn.Linear(6, 7)
        self.second.weight = self.first.weight
        self.register_buffer("signs", torch.tensor([[0.0, -0.0, 1.0], [-0.0, 0.0, -1.0]]))
        self.register_buffer("odd", torch.tensor([float("nan"), float("inf"), 0.0, 0.0, 0.0]))
        self.register_buffer("values16", torch.randn(4, 4).bfloat16().round())
        self.register_buffer("values64", torch.randn(4, 4).double())
        self.register_buffer("mask", torch.tensor([True, False]))


MODELS = {
    "nn.LSTM": lambda: nn.LSTM(8, 9, 2, bidirectional=True),
    "G2LSTM": lambda: G2LSTM(8, 9, bias=False),
    "language model": language_model,
    "cutoff, untied": lambda: language_model(cutoff=5, tie_weights=False),
    "translation": lambda: translation(share_embeddings=True),
    "mixture": Mixture,
}


def blank(model):
    """A model of the same architecture with other values."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.fill_(1)
    return other


def bits_of(tensor):
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def assert_identical(one, other):
    """Bit for bit: signs of zeros and NaN too."""
    one, other = one.state_dict(), other.state_dict()
    assert list(one) == list(other)
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype, name
        assert torch.equal(bits_of(tensor), bits_of(other[name])), name


def blocks_of(path):
    """What the header says of each tensor's blocks."""
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["g2lstm_packed"])
    del header["sha256"]
    return {name: entry.get("blocks", entry) for name, entry in header.items()}


# --- bits ----------------------------------------------------------------------------------------


@given(st.integers(1, 8).flatmap(
    lambda bits: st.tuples(
        st.just(bits), arrays(np.uint8, st.integers(0, 70), elements=st.integers(0, 2**bits - 1))
    )
))  # fmt: skip
def test_packed_codes_come_back(case):
    bits, codes = case
    packed = pack_bits(codes, bits)
    assert packed.dtype == np.uint8
    assert len(packed) == -(-len(codes) * bits // 8)
    found = unpack_bits(packed, bits, len(codes))
    assert found.dtype == np.uint8
    assert np.array_equal(found, codes)
    # As one long binary number, the first code first.
    text = "".join(f"{code:0{bits}b}" for code in codes)
    assert "".join(f"{byte:08b}" for byte in packed)[: len(text)] == text


def test_codes_of_any_shape_are_packed_row_by_row():
    codes = np.arange(12).reshape(3, 4)
    assert np.array_equal(unpack_bits(pack_bits(codes, 4), 4, 12), codes.ravel())


# --- what is saved is what is loaded -------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_packing_loses_nothing(name, method, tmp_path):
    model = MODELS[name]()
    if METHODS[method] is not None:
        model = compress(model, METHODS[method], gates=GATES[:3], biases=True)
    save_packed(model, tmp_path / "weights")
    other = blank(model)
    load_packed(tmp_path / "weights", other)
    assert_identical(other, model)


@given(arrays(np.float32, (4, 30), elements=st.sampled_from([0.0, -0.0, 0.5, -0.5, 1e-40, 3e38])))
def test_any_table_of_values_comes_back(tmp_path_factory, block):
    path = tmp_path_factory.mktemp("tables") / "weights"
    model = nn.Linear(30, 4)
    model.weight = nn.Parameter(torch.from_numpy(block))
    save_packed(model, path)
    other = blank(model)
    load_packed(path, other)
    assert_identical(other, model)
    (about,) = blocks_of(path)["weight"]
    count = len({value.tobytes() for value in block.ravel()})
    assert about["bits"] == max(1, int(np.ceil(np.log2(count))))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_come_back(dtype, tmp_path):
    model = compress(nn.LSTM(9, 8).to(dtype), Round(0.125))
    for rest, tolerance in (("float32", 0.0), ("int8", 0.01)):
        save_packed(model, tmp_path / "weights", rest)
        other = blank(model)
        load_packed(tmp_path / "weights", other)
        for name, tensor in other.state_dict().items():
            expected = model.state_dict()[name]
            torch.testing.assert_close(tensor, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("name", ["nn.LSTM", "language model", "translation"])
def test_int8_is_what_integers_simulate(name, clipped, tmp_path):
    """Matrices have a step a row; clipped blocks and vectors are stored exactly."""
    model = MODELS[name]()
    model = compress(model, RoundClip(0.2, 0.4)) if clipped else model
    save_packed(model, tmp_path / "weights", rest="int8")
    loaded = blank(model)
    load_packed(tmp_path / "weights", loaded)
    for key, tensor in model.state_dict().items():
        expected = tensor.clone() if tensor.dim() == 1 else Integers(8)(tensor)
        if clipped and ("weight_ih" in key or "weight_hh" in key):
            half = len(tensor) // 2
            expected[:half] = tensor[:half]
        found = loaded.state_dict()[key]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert torch.equal(found, tensor) == (tensor.dim() == 1), key


def test_factored_models_are_packed_too(tmp_path):
    model = factorise(language_model(), 3)
    for rest in ("float32", "int8"):
        save_packed(model, tmp_path / "weights", rest)
        other = blank(model)
        load_packed(tmp_path / "weights", other)
        if rest == "float32":
            assert_identical(other, model)
            continue
        for name, tensor in model.state_dict().items():
            matrix = tensor.dim() >= 2
            torch.testing.assert_close(
                other.state_dict()[name],
                Integers(8)(tensor) if matrix else tensor, rtol=0, atol=1e-5 if matrix else 0,
            )  # fmt: skip


def test_loading_keeps_ties_and_mode(tmp_path):
    model = Mixture().eval()
    save_packed(model, tmp_path / "weights")
    other = blank(model)
    load_packed(str(tmp_path / "weights"), other)
    assert other.first.weight is other.second.weight
    assert not other.training
    assert all(parameter.requires_grad for parameter in other.parameters())


def test_a_tied_weight_is_stored_once(tmp_path):
    model = translation(share_embeddings=True)
    model.target_embedding.weight.data.normal_()
    save_packed(model, tmp_path / "weights")
    assert blocks_of(tmp_path / "weights")["source_embedding.weight"] == {
        "same": "target_embedding.weight"
    }
    stored = sum(tensor.numel() for tensor in load_file(tmp_path / "weights").values())
    assert stored < sum(parameter.numel() for parameter in model.parameters()) + 10
    untied = translation()
    assert disk_bytes(untied) > disk_bytes(model) + 4 * 9 * 8 - HEADER
    assert not any("same" in str(about) for about in blocks_of_saved(untied, tmp_path).values())


def blocks_of_saved(model, folder):
    save_packed(model, folder / "other")
    return blocks_of(folder / "other")


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "bits"), [(RoundClip(0.2, 0.4), 3), (RoundClip(0.2, 0.2), 2), (Round(5.0), 1)]
)
def test_the_file_is_as_large_as_the_bits_say(method, bits, tmp_path):
    """Two gates of four in few bits, the others in 32 or 8, and steps and vectors in 32."""
    lstm = nn.LSTM(160, 200)
    for parameter in lstm.parameters():
        nn.init.normal_(parameter, std=0.2)
    model = compress(lstm, method)
    half = 2 * 200 * (160 + 200)
    vectors = 4 * 2 * 4 * 200
    steps = 4 * 2 * 2 * 200
    expected = {
        "float32": half * bits / 8 + half * 4 + vectors,
        "int8": half * bits / 8 + half + vectors + steps,
    }
    for rest, number in expected.items():
        save_packed(model, tmp_path / "weights", rest)
        size = (tmp_path / "weights").stat().st_size
        assert number < size < number + 4 * HEADER
        assert disk_bytes(model, rest) == size
    save_file(lstm.state_dict(), tmp_path / "dense")
    dense = (tmp_path / "dense").stat().st_size
    assert abs(disk_bytes(lstm) - dense) < 4 * HEADER
    for key in ("weight_ih_l0", "weight_hh_l0"):
        assert [part.get("bits") for part in blocks_of(tmp_path / "weights")[key]] == [
            bits, bits, None, None,
        ]  # fmt: skip


def test_more_values_than_codes_are_stored_as_they_are(tmp_path):
    model = nn.Linear(64, 32, bias=False)
    for count, bits in ((256, 8), (257, None)):
        model.weight.data = (torch.arange(64 * 32) % count).view(32, 64).float()
        (about,) = blocks_of_saved(model, tmp_path)["weight"]
        assert about.get("bits") == bits
    model.weight.data = torch.arange(4.0).view(2, 2)  # a table would be longer than the block
    assert blocks_of_saved(model, tmp_path)["weight"] == [{}]


# --- files that are not what they should be ------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """Path of a packed model, and the model."""
    model = compress(nn.LSTM(8, 9), RoundClip(0.1, 0.2))
    save_packed(model, tmp_path / "weights")
    return tmp_path / "weights", model


def assert_refused(path, model, message):
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=message) as error:
        load_packed(path, model)
    assert str(path) in str(error.value)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("kept", [0, 4, 100, 0.5, -1])
def test_truncated_files_are_refused(saved, kept):
    path, model = saved
    size = path.stat().st_size
    os.truncate(path, size - 1 if kept == -1 else int(size * kept) if kept == 0.5 else kept)
    assert_refused(path, blank(model), "holds no packed weights")


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 200, b"PK\x03\x04 some other file"])
def test_foreign_files_are_refused(saved, content):
    path, model = saved
    path.write_bytes(content)
    assert_refused(path, blank(model), "holds no packed weights")


def test_plain_safetensors_missing_files_and_folders_are_refused(saved, tmp_path):
    _, model = saved
    save_file(model.state_dict(), tmp_path / "plain")
    for name in ("plain", "nowhere", "."):
        assert_refused(tmp_path / name, blank(model), "holds no packed weights")


def without_a_tensor(header, tensors):
    del tensors["weight_hh_l0/0"]


def with_a_code_too_high(header, tensors):
    tensors["weight_hh_l0/1"] = torch.full_like(tensors["weight_hh_l0/1"], 255)


def with_an_unknown_type(header, tensors):
    header["weight_hh_l0"]["dtype"] = "float3"


def with_another_shape(header, tensors):
    header["weight_ih_l0"]["blocks"][0]["shape"] = [7, 8]


def with_a_header_that_is_a_list(header, tensors):
    header["weight_ih_l0"] = []


def with_a_tie_to_nothing(header, tensors):
    header["weight_ih_l0"] = {"same": "embedding"}


@pytest.mark.parametrize(
    "damage",
    [
        without_a_tensor,
        with_a_code_too_high,
        with_an_unknown_type,
        with_another_shape,
        with_a_header_that_is_a_list,
        with_a_tie_to_nothing,
    ],
)
def test_damaged_contents_are_refused(saved, damage):
    path, model = saved
    tensors = load_file(path)
    with safe_open(str(path), "pt") as file:
        header = json.loads(file.metadata()["g2lstm_packed"])
    del header["sha256"]  # as a file of an earlier version, which only its content gives away
    damage(header, tensors)
    save_file(tensors, path, metadata={"g2lstm_packed": json.dumps(header)})
    assert_refused(path, blank(model), "packed weights")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: nn.LSTM(8, 10), r"another model: bias_hh_l0 is \(36,\) there, \(40,\) here"),
        (lambda: nn.LSTM(8, 9, bias=False), r"bias_hh_l0 is \(36,\) there, None here"),
        (lambda: nn.LSTM(8, 9, 2), r"bias_hh_l1 is None there, \(36,\) here"),
        (lambda: nn.Linear(8, 9), r"bias is None there, \(9,\) here"),
        (lambda: factorise(nn.LSTM(8, 9), 2), r"bias_hh_l0 is \(36,\) there, None here"),
    ],
)
def test_weights_of_another_model_are_refused(saved, other, message):
    assert_refused(saved[0], other(), message)


def test_an_unknown_rest_is_named(tmp_path):
    with pytest.raises(ValueError, match="rest must be one of float32, int8, got 'int4'"):
        save_packed(nn.LSTM(2, 3), tmp_path / "weights", "int4")
    with pytest.raises(ValueError, match="'float16'"):
        disk_bytes(nn.LSTM(2, 3), "float16")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(saved, monkeypatch):
    path, model = saved
    before = path.read_bytes()

    def fail(tensors, temporary, metadata):
        temporary.write_bytes(b"half of it")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", fail)
        with pytest.raises(OSError, match="no space left"):
            save_packed(blank(model), path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    save_packed(blank(model), path)
    assert path.read_bytes() != before
    assert list(path.parent.iterdir()) == [path]


# --- size and work -------------------------------------------------------------------------------


def test_flops_are_two_for_each_weight_of_a_product():
    assert flops_per_step(nn.LSTM(3, 5)) == 2 * (4 * 5 * 3 + 4 * 5 * 5)
    assert flops_per_step(nn.LSTM(3, 5, bias=False)) == 2 * (4 * 5 * 3 + 4 * 5 * 5)
    two = 2 * (20 * 3 + 20 * 5) + 2 * (20 * 10 + 20 * 5)  # a layer: both directions
    assert flops_per_step(G2LSTM(3, 5, 2, bidirectional=True)) == 2 * two
    model = nn.Sequential(nn.Linear(7, 8), nn.LSTM(3, 5), nn.ModuleList([nn.LSTM(5, 2)]))
    assert flops_per_step(model) == 2 * (20 * 3 + 20 * 5 + 8 * 5 + 8 * 2)
    assert flops_per_step(nn.Linear(7, 8)) == 0


def test_flops_of_factored_layers_are_those_of_the_thin_products():
    """i and f: D r + r H each; g and o: D H each; of W_h the same with H for D."""
    d, h, r = 7, 9, 2
    thin = {k: 2 * (k * r + r * h) + 2 * k * h for k in (d, h)}
    whole = {k: 4 * k * h for k in (d, h)}
    lstm = nn.LSTM(d, h)
    assert flops_per_step(factorise(lstm, r)) == 2 * (thin[d] + thin[h])
    assert flops_per_step(factorise(lstm, r, "recurrent")) == 2 * (whole[d] + thin[h])
    assert flops_per_step(factorise(lstm, r, "input")) == 2 * (thin[d] + whole[h])


@pytest.mark.parametrize("rest", ["float32", "int8"])
def test_the_report_is_relative_to_its_first_row(rest, tmp_path):
    model = language_model()
    models = {"whole": model, "clipped": compress(model, RoundClip(0.2, 0.4))}
    models["thin"] = factorise(model, 2)
    report = compression_report(models, rest).set_index("model")
    assert list(report.index) == list(models)
    for name, each in models.items():
        save_packed(each, tmp_path / name, rest)
        row = report.loc[name]
        assert row.megabytes == (tmp_path / name).stat().st_size / 1e6
        assert row.parameters == sum(tensor.numel() for tensor in each.state_dict().values())
        assert row["relative size"] == row.megabytes / report.megabytes["whole"]
        assert row["relative work"] == row.flops_per_step / report.flops_per_step["whole"]
    hand = 2 * (40 * 8 + 40 * 10 + 32 * 10 + 32 * 8)
    assert report.flops_per_step.tolist()[:2] == [hand, hand]
    assert report["relative size"]["whole"] == report["relative work"]["whole"] == 1
    assert report["relative work"]["thin"] < 1
    assert report.parameters["thin"] < report.parameters["whole"]
