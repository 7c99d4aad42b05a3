"""Models in folders of their own: as in their runs, smaller on demand, never half there."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from g2lstm import saved_models
from g2lstm.beam_search import translate
from g2lstm.checkpoint import CheckpointError, save_checkpoint
from g2lstm.compression import LowRank, RoundClip, compress
from g2lstm.corpora import Vocabulary, load_corpus
from g2lstm.evaluation import evaluate
from g2lstm.files import WriteError
from g2lstm.low_rank_lstm import factorise
from g2lstm.manifest import differences
from g2lstm.records import read_translations
from g2lstm.release import release
from g2lstm.saved_models import (
    ModelError,
    Words,
    encode_text,
    new_folder,
    open_model,
    save_compressed,
)
from g2lstm.subwords import END
from tiny_runs import finished, trained, without_headers

pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def models(corpora, tmp_path_factory):
    """A released model of each task, from tiny runs."""
    folder = tmp_path_factory.mktemp("models")
    for task in ("language-model", "translation"):
        release(finished(task, gate="sharpened").directory, folder / task)
    return folder


@pytest.fixture(scope="module")
def plain(models, tmp_path_factory):
    """The same in the first format, whose files do not say which run they belong to."""
    folder = tmp_path_factory.mktemp("plain") / "models"
    shutil.copytree(models, folder)
    return {path.name: without_headers(path) for path in folder.iterdir()}


def no_corpus(*arguments):
    raise AssertionError("a corpus was loaded")


def test_a_released_language_model_is_that_of_its_run(models, monkeypatch):
    run = trained("language-model", gate="sharpened")
    monkeypatch.setattr(saved_models, "load_corpus", no_corpus)
    saved = open_model(models / "language-model", device="cpu")
    assert not saved.model.training
    assert saved.model.temperature == run.model.temperature == 0.2
    assert saved.words.vocabulary.tokens == run.task.corpus.vocabulary.tokens
    assert not saved.words.knows_unknown
    found = evaluate(saved.model, run.task.corpus.test)
    assert found.perplexity == pytest.approx(run.run.summary["test_perplexity"], rel=1e-6)


def test_a_released_translation_model_is_that_of_its_run(models):
    run = trained("translation", gate="sharpened")
    saved = open_model(models / "translation", device="cpu")
    sentences = run.task.corpus.test[0][:5]
    source, target = saved.subwords
    found = translate(saved.model, [[*row, END] for row in source.encode(sentences)])
    texts = target.decode([hypothesis.tokens for hypothesis in found])
    assert texts == read_translations(run.run)[:5]


def test_a_run_directory_takes_its_vocabulary_from_the_corpus(corpora, tmp_path):
    run = finished("language-model", gate="sharpened")
    words = open_model(run.directory, device="cpu").words
    assert words.vocabulary.tokens == load_corpus("grammar").vocabulary.tokens
    without_headers(shutil.copytree(run.directory, tmp_path / "run"))
    record = run.provenance | {"data": {"sha256": {"train": "0" * 64}}}
    (tmp_path / "run/provenance.json").write_text(json.dumps(record))
    with pytest.raises(ModelError, match="trained on another text"):
        open_model(tmp_path / "run")


@pytest.mark.parametrize("evaluation_gate", ["plain", "hard"])
@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_a_factored_model_computes_what_low_rank_computes(models, tmp_path, task, evaluation_gate):
    saved = open_model(models / task, device="cpu")
    saved.model.evaluation_gate = evaluation_gate
    report = save_compressed(saved, tmp_path / "small", rank=2)
    assert report["parameters"].iloc[1] < report["parameters"].iloc[0]
    assert differences(tmp_path / "small") == []
    small = open_model(tmp_path / "small", device="cpu").model
    tokens = torch.arange(3, 12)[:, None]
    if task == "translation":
        twin = compress(saved.model, LowRank(2), matrices="recurrent")
        pairs = [model.encode(tokens, torch.tensor([9])).values for model in (small, twin)]
    else:
        twin = compress(saved.model, LowRank(2))
        pairs = [model(tokens).hidden for model in (small, twin)]
    torch.testing.assert_close(*pairs, rtol=1e-4, atol=1e-5)


def test_factors_of_all_gates_are_saved_and_loaded(models, tmp_path):
    saved = open_model(models / "language-model", device="cpu")
    save_compressed(saved, tmp_path / "small", rank=2, gates="all", int8=True)
    assert json.loads((tmp_path / "small/compression.json").read_text())["gates"] == "all"
    small = open_model(tmp_path / "small", device="cpu").model
    twin = factorise(saved.model, 2, gates="all")
    for name, tensor in twin.state_dict().items():
        step = tensor.abs().amax(-1, keepdim=True) / 127 if tensor.dim() > 1 else 0 * tensor
        assert ((small.state_dict()[name] - tensor).abs() <= step * 0.51).all(), name


def test_a_rounded_model_comes_back_bit_by_bit(models, tmp_path):
    saved = open_model(models / "language-model", device="cpu")
    method = RoundClip(0.02, 0.04)
    save_compressed(saved, tmp_path / "small", method=method)
    small = open_model(tmp_path / "small", device="cpu").model
    twin = compress(saved.model, method)
    assert all(map(torch.equal, small.state_dict().values(), twin.state_dict().values()))
    assert small.temperature == saved.model.temperature
    assert small.evaluation_gate == "plain"
    saved.model.evaluation_gate = "hard"
    save_compressed(saved, tmp_path / "hard", method=method)
    assert open_model(tmp_path / "hard", device="cpu").model.evaluation_gate == "hard"
    report = save_compressed(saved, tmp_path / "small", method=method, int8=True, force=True)
    about = json.loads((tmp_path / "small/compression.json").read_text())
    assert about["how"] == "step 0.02, clip 0.04, all other matrices int8"
    assert report["relative size"].tolist() == [
        1,
        report["megabytes"].iloc[1] / report["megabytes"].iloc[0],
    ]
    assert report["relative size"].iloc[1] < 0.9
    bytes_there = (tmp_path / "small/model.safetensors").stat().st_size
    assert report["megabytes"].iloc[1] == bytes_there / 1e6
    with pytest.raises(ModelError, match="compressed already"):
        save_compressed(open_model(tmp_path / "small"), tmp_path / "smaller", rank=1)


def test_nothing_is_replaced_unasked_and_nothing_half_written(models, tmp_path):
    shutil.copytree(models / "language-model", tmp_path / "model")
    with pytest.raises(ModelError, match="--force"), new_folder(tmp_path / "model"):
        pass
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("years of work")
    for taken in ("home", "home/thesis.txt"):
        with (
            pytest.raises(ModelError, match="holds no model of g2lstm"),
            new_folder(tmp_path / taken, force=True),
        ):
            pass
    with pytest.raises(FileNotFoundError), new_folder(tmp_path / "model", force=True) as folder:
        shutil.copy(tmp_path / "not there", folder / "half")
    assert differences(tmp_path / "model") == []
    with new_folder(tmp_path / "model", force=True) as folder:
        (folder / "whole").touch()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["whole"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "model"]


def test_a_text_becomes_the_tokens_of_its_corpus():
    words = Words(Vocabulary(["<eos>", "a", "b", "<unk>"]), knows_unknown=True)
    tokens, unknown = encode_text(words, ["a  b", "", "c a <unk>"], "text.txt")
    assert tokens.tolist() == [1, 2, 0, 0, 3, 1, 3, 0]
    assert unknown == 1
    without = Words(words.vocabulary, knows_unknown=False)
    for word in ("c", "<unk>"):
        with pytest.raises(
            ModelError, match=rf"line 2 of text\.txt holds '{word}'.* 4 words lacks"
        ):
            encode_text(without, ["a b", f"b {word}"], "text.txt")
    with pytest.raises(ModelError, match=r"line 1 of text\.txt holds <eos>"):
        encode_text(words, ["a <eos>"], "text.txt")
    with pytest.raises(ModelError, match=r"text\.txt is empty"):
        encode_text(words, [""], "text.txt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "there is no config.json"),
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", "[]", "config.json is no JSON object"),
        ("config.json", "{}", "config.json describes no model: KeyError: 'model'"),
        ("model.safetensors", None, "holds no weights"),
        ("vocabulary.json", "{}", "is no vocabulary"),
        ("vocabulary.json", '{"format": "other"}', "its format is 'other'"),
    ],
)
def test_a_folder_that_is_no_model_is_an_error(plain, tmp_path, name, content, message):
    shutil.copytree(plain["language-model"], tmp_path / "model")
    path = tmp_path / "model" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path / "model")


def edit(path, **values):
    """Set entries of the JSON object in a file; those of an entry where it is given a dict."""
    content = json.loads(path.read_text())
    for name, value in values.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": []}, "TypeError"),
        ({"model": {"hidden_size": "ten"}}, "hidden_size must be of type int, got 'ten'"),
        ({"model": {"hidden_size": 10**9}}, "hidden_size must be at most 1000000"),
        ({"model": {"hiden_size": 3}}, "unknown override 'hiden_size'; did you mean"),
        ({"evaluation": {"cache_pointer": 3}}, "cache_pointer must be of type bool"),
        ({"evaluation": None}, "TypeError"),
        ({"preset": "odd"}, "preset must be one of"),
        ({"gate": ["gumbel"]}, "gate"),
        ({"overrides": [1]}, "TypeError"),
    ],
)
def test_a_configuration_of_the_wrong_shape_is_an_error(plain, tmp_path, change, message):
    shutil.copytree(plain["language-model"], tmp_path / "model")
    edit(tmp_path / "model/config.json", **change)
    with pytest.raises(ModelError, match=r"config\.json describes no model") as error:
        open_model(tmp_path / "model")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"compression\.json .*no JSON object"),
        ({}, "describes no compressed model: KeyError: 'rank'"),
        ({"rank": None, "temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"rank": "two", "matrices": ["recurrent"]}, "rank must be an integer"),
        ({"rank": 2, "matrices": ["input"], "gates": "some"}, "gates must be one of"),
        ({"rank": 2, "matrices": 3}, "describes no compressed model: TypeError"),
    ],
)
def test_a_compression_of_the_wrong_shape_is_an_error(plain, tmp_path, content, message):
    shutil.copytree(plain["language-model"], tmp_path / "model")
    (tmp_path / "model/compression.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=message):
        open_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("progress", "error", "message"),
    [
        ({}, CheckpointError, "another kind: it notes no temperature"),
        ({"temperature": "hot"}, ModelError, "describes no trained model: .*temperature"),
    ],
)
def test_weights_without_a_temperature_are_an_error(plain, tmp_path, progress, error, message):
    shutil.copytree(plain["language-model"], tmp_path / "model")
    model = open_model(tmp_path / "model", device="cpu").model
    save_checkpoint(tmp_path / "model/model.safetensors", model, progress=progress)
    with pytest.raises(error, match=message):
        open_model(tmp_path / "model")


def test_a_run_whose_provenance_names_no_text_is_an_error(corpora, tmp_path):
    run = finished("language-model", gate="sharpened").directory
    without_headers(shutil.copytree(run, tmp_path / "run"))
    (tmp_path / "run/provenance.json").write_text("{}")
    with pytest.raises(ModelError, match=r"provenance\.json describes no run: KeyError: 'data'"):
        open_model(tmp_path / "run")


def test_a_model_that_cannot_be_replaced_is_still_there(models, tmp_path, monkeypatch):
    shutil.copytree(models / "language-model", tmp_path / "model")
    rename = Path.rename

    def refused(path, target):
        if path.name == "new":
            raise PermissionError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError), new_folder(tmp_path / "model", force=True) as folder:
        (folder / "whole").touch()
    assert differences(tmp_path / "model") == []
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_an_interrupted_replacement_loses_no_model(models, tmp_path, monkeypatch, moment):
    """Ctrl-C at each of the two renames that replace a model, before and after it is done."""
    before = differences(shutil.copytree(models / "language-model", tmp_path / "model"))
    rename = Path.rename

    def interrupted(path, target):
        first = path.name == "model"
        if moment == ("before" if first else "after"):
            raise KeyboardInterrupt
        found = rename(path, target)
        if moment == "between" and first:
            raise KeyboardInterrupt
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_compressed(
                open_model(models / "language-model", device="cpu"),
                tmp_path / "model",
                rank=2,
                force=True,
            )
        # Where a second one comes at once, the model has another name.
        (kept,) = tmp_path.iterdir()
    assert kept.name == "model" or kept.name.startswith("model.replaced-")
    assert differences(kept) == before == []
    open_model(kept, device="cpu")


def test_a_translation_needs_its_subwords(models, tmp_path):
    shutil.copytree(models / "translation", tmp_path / "model")
    (tmp_path / "model/source_subwords.json").unlink()
    with pytest.raises(ModelError, match=r"source_subwords\.json is missing or damaged"):
        open_model(tmp_path / "model")


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_of_what_is_written(models, tmp_path, monkeypatch, error):
    saved = open_model(models / "language-model", device="cpu")

    def full(path, data):
        raise OSError(error, os.strerror(error), str(models / "language-model"))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"cannot write .*out.*MB are free: make room") as caught:
        save_compressed(saved, tmp_path / "out", rank=1)
    assert str(models) not in str(caught.value)
    assert not list(tmp_path.iterdir())
