"""Folders of models that declare what they do not hold, or hold what is no number."""

import json
import shutil
import struct

import psutil
import pytest
import torch

from g2lstm import memory, saved_models
from g2lstm.checkpoint import CheckpointError, read_tensors, write_tensors
from g2lstm.command_line import main
from g2lstm.compression import LowRank, Round, WeightsError, compress
from g2lstm.manifest import write_manifest
from g2lstm.measurements import load_trained
from g2lstm.memory import ResourceError, check_memory
from g2lstm.model_folders import ModelError
from g2lstm.packing import load_packed, save_packed
from g2lstm.release import release
from g2lstm.runs import prepare, train_or_load
from g2lstm.saved_models import open_model, save_compressed
from tiny_runs import finished, tiny, without_headers

TASKS = ("language-model", "translation")
GIGABYTE = 2**30


@pytest.fixture(scope="module")
def models(corpora, tmp_path_factory):
    """Released models of each task, and small ones made of them."""
    folder = tmp_path_factory.mktemp("models")
    for task in TASKS:
        release(finished(task).directory, folder / task)
        saved = open_model(folder / task, device="cpu")
        save_compressed(saved, folder / f"{task}-rank", rank=2)
        save_compressed(saved, folder / f"{task}-rounded", method=Round(0.1), int8=True)
    return folder


KINDS = [f"{task}{how}" for task in TASKS for how in ("", "-rank", "-rounded")]


@pytest.fixture
def copy(models, tmp_path):
    """Copies of the first format, in which a changed file is not found by its checksum."""
    return lambda name: without_headers(shutil.copytree(models / name, tmp_path / name))


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def grown():
    """The memory that this process took since, at its most."""
    resource = pytest.importorskip("resource")

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    before = peak()
    return lambda: peak() - before


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    "sizes", [{"embedding_size": 10**6}, {"hidden_size": 10**6}, {"embedding_size": 3000}]
)
def test_sizes_that_the_weights_have_not_are_refused_before_they_are_made(copy, grown, name, sizes):
    folder = copy(name)
    edit(folder / "config.json", lambda config: config["model"].update(sizes))
    with pytest.raises((CheckpointError, ModelError), match="weights of another model"):
        open_model(folder, device="cpu")
    assert grown() < GIGABYTE / 4


def test_a_file_of_a_few_bytes_that_declares_much_is_refused(copy, grown):
    folder = copy("language-model")
    entry = {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}
    header = json.dumps({"model.embedding.weight": entry}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"1234")
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is damaged or no file of weights"
    ):
        open_model(folder, device="cpu")
    assert grown() < GIGABYTE / 4


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(shape=[10**6, 10**6]),
        lambda about: about.update(shape=[10**12, 1]),
        lambda about: about.update(bits=0),
        lambda about: about.update(bits=10**9),
        lambda about: about.update(shape=[-4, -5]),
        lambda about: about.update(shape="ten"),
    ],
)
def test_packed_weights_that_declare_more_codes_than_there_are_are_refused(tmp_path, grown, change):
    model = torch.nn.Linear(30, 40)
    model = type(model)(30, 40)
    with torch.no_grad():
        model.weight.copy_(model.weight.sign())
    save_packed(model, tmp_path / "packed")
    tensors, header = read_tensors(tmp_path / "packed", "g2lstm_packed")
    change(header["weight"]["blocks"][0])
    write_tensors(tmp_path / "packed", tensors, "g2lstm_packed", header)
    with pytest.raises(CheckpointError, match="packed"):
        load_packed(tmp_path / "packed", model)
    assert grown() < GIGABYTE / 4


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("task", TASKS)
def test_weights_that_are_no_numbers_are_an_error_of_every_command(
    copy, task, value, tmp_path, capsys, monkeypatch
):
    folder = copy(task)
    tensors, header = read_tensors(folder / "model.safetensors", "g2lstm")
    name = max(tensors, key=lambda name: tensors[name].numel())
    tensors[name][1, 2] = value
    write_tensors(folder / "model.safetensors", tensors, "g2lstm", header)
    write_manifest(folder)
    (tmp_path / "text").write_text("the dog\n")
    use = ["perplexity", folder, tmp_path / "text"] if "lang" in task else ["translate", folder]
    for words in (use, ["compress", folder, "--rank", "2", "-o", tmp_path / "out"]):
        assert main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert "weights of" in error
        assert "are NaN or infinite" in error
        assert not (tmp_path / "out").exists()
    # A run directory in the same state is neither released nor measured.
    run = finished(task)
    with monkeypatch.context() as patch:
        patch.setattr(saved_models, "load_best", lambda path, model: load_broken(path, model))
        from g2lstm.training import load_best

        def load_broken(path, model):
            return load_best(folder / "model.safetensors", model)

        with pytest.raises(WeightsError, match="NaN or infinite"):
            release(run.directory, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "use",
    [
        lambda m: compress(m, Round(0.1)),
        lambda m: compress(m, LowRank(1)),
        lambda m: save_packed(m, "nowhere/packed"),
    ],
)
def test_weights_that_are_no_numbers_are_neither_compressed_nor_packed(use):
    model = torch.nn.LSTM(3, 4)
    with torch.no_grad():
        model.weight_hh_l0[0, 0] = torch.nan
    with pytest.raises(WeightsError, match="1 of 64 weights of weight_hh_l0 are NaN"):
        use(model)


def test_too_little_memory_is_told_before_it_is_taken(corpora, monkeypatch, grown):
    with pytest.raises(ResourceError, match=r"model of .* parameters needs at least .* GB of mem"):
        prepare(tiny(overrides={"embedding_size": 10**6, "hidden_size": 10**6}), device="cpu")
    experiment = prepare(tiny(overrides={"batch_size": 11}), device="cpu")
    needed = 4 * sum(parameter.numel() for parameter in experiment.model.parameters())
    monkeypatch.setattr(memory, "available", lambda device: needed)
    with pytest.raises(ResourceError, match=r"training, with steps of .* tokens, needs at least"):
        train_or_load(experiment, progress_bar=False)
    assert grown() < GIGABYTE / 4
    monkeypatch.undo()
    check_memory(psutil.virtual_memory().available // 2, "half", "cpu")
    with pytest.raises(ResourceError, match="twice needs at least"):
        check_memory(2 * psutil.virtual_memory().available, "twice", "cpu")


def test_more_threads_than_make_sense_are_refused(corpora):
    most = 8 * psutil.cpu_count()
    with pytest.raises(
        ResourceError, match=rf"threads={most + 1} on a machine of .* at most {most}"
    ):
        prepare(tiny(overrides={"threads": most + 1}), device="cpu")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("x: can't allocate memory: 1")])
def test_memory_that_runs_out_is_one_line(monkeypatch, capsys, error):
    def fail(folder):
        raise error

    monkeypatch.setattr("g2lstm.commands.list_runs", fail)
    assert main(["runs"]) == 2
    assert "there is not enough memory for this" in capsys.readouterr().err


def test_a_run_of_weights_that_are_no_numbers_is_not_measured(corpora, tmp_path):
    run = finished("language-model", gate="sigmoid")
    copied = without_headers(shutil.copytree(run.directory, tmp_path / "run"))
    tensors, header = read_tensors(copied / "model.safetensors", "g2lstm")
    tensors["model.decoder_bias"][3] = torch.nan
    write_tensors(copied / "model.safetensors", tensors, "g2lstm", header)
    with pytest.raises(WeightsError, match="decoder_bias"):
        load_trained(type(run)(**vars(run) | {"directory": copied}), device="cpu")
