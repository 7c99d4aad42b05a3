"""Weights of finished runs loaded again; measurements kept beside them, and when they are made."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from g2lstm import grammar, measurements
from g2lstm.batches import Pairs
from g2lstm.checkpoint import CheckpointError
from g2lstm.evaluation import evaluate, evaluate_translation
from g2lstm.files import write_json
from g2lstm.measurements import Measurement, first_pairs, load_trained, loss_of
from g2lstm.presets import LANGUAGE_MODEL
from g2lstm.provenance import code_checksum
from g2lstm.records import MEASUREMENTS, RunError, find_runs, read_run
from tiny_runs import finished, text_corpus, untrained

SENTENCES = ["a cat sees the dog", "the dog hears a bird .", "a bird sleeps"] * 20


pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def original(corpora):
    return finished()


@pytest.fixture
def run(original, tmp_path):
    """A copy of the run, to be damaged at will."""
    return read_run(shutil.copytree(original.directory, tmp_path / "run"))


@pytest.fixture
def calls():
    return []


@pytest.fixture
def measurement(calls):
    """The norm of the weights, times a factor; counts its calls."""

    def measure(trained, factor=1.0, **settings):
        calls.append(settings)
        assert not torch.is_grad_enabled()
        assert not trained.model.training
        squares = sum(float(value.double().square().sum()) for value in trained.model.parameters())
        return {"norm": factor * math.sqrt(squares)}

    return Measurement("norm", measure, ("files", "checkpoint"))


def saved(run, name="norm"):
    return run.directory / MEASUREMENTS / f"{name}.json"


# Trained models


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gate": "sharpened", "schedule": "cosine", "temperature_end": 0.5, "temperature": 0.9},
        {"task": "translation"},
    ],
)
def test_a_loaded_model_is_the_one_that_was_measured(settings):
    run = finished(**settings)
    trained = load_trained(run, device="cpu")
    assert trained.run == run
    assert not trained.model.training
    if settings.get("task") == "translation":
        found = evaluate_translation(trained.model, trained.task.pairs["test"]).perplexity
    else:
        found = evaluate(trained.model, trained.task.corpus.test).perplexity
    assert found == run.summary["test_perplexity"]
    if "schedule" in settings:
        (row,) = run.metrics
        assert trained.model.temperature == row["temperature"] < 0.9


def test_published_records_without_weights_say_how_to_make_them(run):
    (run.directory / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"holds no weights.*papermill notebooks/01_.*hidden_size"):
        load_trained(run)


def test_damaged_weights_are_named(run):
    path = run.directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged"):
        load_trained(run)


def test_weights_of_another_model_are_named(run):
    other = finished("language-model", overrides={"hidden_size": 12})
    shutil.copy(other.directory / "model.safetensors", run.directory)
    with pytest.raises(CheckpointError, match=r"belongs to the run .*hidden_size-12"):
        load_trained(run)


def test_a_preset_that_has_changed_is_an_error(run, monkeypatch):
    preset = LANGUAGE_MODEL["quick"]
    changed = replace(preset, model=preset.model | {"dropout_words": 0.1})
    monkeypatch.setitem(LANGUAGE_MODEL, "quick", changed)
    with pytest.raises(RunError, match=r"another preset 'quick' .dropout_words 0.0, now 0.1"):
        load_trained(run)


def test_a_text_that_has_changed_is_an_error(run, monkeypatch, tmp_path):
    monkeypatch.setenv("G2LSTM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(grammar.SENTENCES, "test", 61)  # the last split: the others stay
    with pytest.raises(RunError, match=r"another text than .*grammar-.* holds now \(test\)"):
        load_trained(run)


# Records of measurements


def test_a_measurement_is_made_once(run, measurement, calls):
    first = measurement.of(run, factor=2.0)
    model = load_trained(run).model
    norm = np.linalg.norm(np.concatenate([v.detach().ravel() for v in model.parameters()]))
    assert first == {"norm": pytest.approx(2 * norm)}
    assert measurement.of(run, factor=2.0) == first
    assert measurement.of(read_run(run.directory), factor=2.0) == first
    assert len(calls) == 1


def test_what_is_on_record_is_read_and_nothing_is_made(run, measurement, calls):
    assert measurement.recorded(run) is None
    assert not calls
    found = measurement.of(run, factor=2.0)
    assert measurement.recorded(run, factor=2.0) == found
    assert measurement.recorded(run, factor=3.0) is None
    assert measurement.recorded(replace(run, config=run.config | {"fingerprint": "0"})) is None
    assert len(calls) == 1


def test_the_record_says_where_it_comes_from(run, measurement):
    result = measurement.of(run, factor=0.5)
    record = json.loads(saved(run).read_text())
    assert record["result"] == result
    assert record["settings"] == {"factor": 0.5}
    assert record["fingerprint"] == run.config["fingerprint"]
    assert record["code"] == code_checksum(("files", "checkpoint", "measurements"))
    about = record["provenance"]
    assert about["command"].startswith("norm measured of papermill notebooks/01_language_model")
    assert about["seed"] == 1
    assert about["versions"]["torch"]
    assert about["time"] > run.provenance["time"]


def test_a_measurement_is_made_anew_when_settings_code_or_run_change(
    run, measurement, calls, monkeypatch
):
    start = measurement.of(run)
    assert measurement.of(run, factor=3.0)["norm"] == pytest.approx(3 * start["norm"])
    assert len(calls) == 2
    measurement.of(run, factor=3.0)
    assert len(calls) == 2
    replace(measurement, modules=("files",)).of(run, factor=3.0)
    assert len(calls) == 3, "as if the code had changed"
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "code_checksum", lambda modules: "changed")
        measurement.of(run, factor=3.0)
        measurement.of(run, factor=3.0)
        assert len(calls) == 4
    again = replace(run, config=run.config | {"fingerprint": "that of the run made anew"})
    measurement.of(again, factor=3.0)
    assert len(calls) == 5


def test_settings_are_compared_as_json_gives_them_back(run, measurement, calls):
    first = measurement.of(run, norms=(0.1, 0.2), table={1: (2, 3)})
    assert measurement.of(run, norms=(0.1, 0.2), table={1: (2, 3)}) == first
    assert measurement.of(run, norms=[0.1, 0.2], table={"1": [2, 3]}) == first
    assert len(calls) == 1


def test_a_published_record_is_read_though_the_code_has_changed(run, measurement, calls):
    first = measurement.of(run)
    (run.directory / "model.safetensors").unlink()
    elsewhere = replace(measurement, modules=("files",))
    assert elsewhere.of(run) == first
    assert len(calls) == 1
    with pytest.raises(RunError, match="holds no weights"):
        elsewhere.of(run, factor=2.0)
    other = replace(run, config=run.config | {"fingerprint": "another"})
    with pytest.raises(RunError, match="holds no weights"):
        elsewhere.of(other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "result"}),
        lambda text: text.encode("utf-16").decode("latin-1"),
    ],
)
def test_a_damaged_record_is_made_anew(run, measurement, calls, damage):
    first = measurement.of(run)
    text = saved(run).read_text()
    saved(run).write_text(damage(text))
    assert measurement.of(run) == first
    assert len(calls) == 2
    assert json.loads(saved(run).read_text())["result"] == json.loads(text)["result"]


def test_a_measurement_that_fails_leaves_no_record(run, measurement):
    def fail(trained):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        replace(measurement, function=fail).of(run)
    assert not saved(run).exists()


def test_numbers_that_are_not_finite_become_null(run):
    odd = {"row": (math.inf, -math.inf, math.nan, 1.5), 3: np.float64("inf"), "none": None}
    strange = Measurement("strange", lambda trained: odd, ("files",))
    expected = {"row": [None, None, None, 1.5], "3": None, "none": None}
    assert strange.of(run) == expected
    assert strange.of(run) == expected, "read again"
    assert "NaN" not in saved(run, "strange").read_text()


def test_measurements_of_several_runs_come_in_order(measurement, calls, tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    corpus = text_corpus(tmp_path / "pets", SENTENCES)
    for gate in ("gumbel", "sigmoid"):
        finished(corpus=corpus, gate=gate)
    runs = find_runs("quick", corpus)
    found = measurement.of_all(iter(runs), progress_bar=False, factor=2.0)
    assert [run for run, _ in found] == runs
    assert [result for _, result in found] == [measurement.of(run, factor=2.0) for run in runs]
    assert found[0][1] != found[1][1]
    assert len(calls) == 2


# Losses on the first part of a text


@pytest.mark.parametrize(("split", "limit"), [("valid", 200), ("train", 333), ("test", 10**6)])
def test_loss_of_a_language_model_by_hand(split, limit):
    trained = untrained()
    tokens = getattr(trained.task.corpus, split)[:limit]
    length = len(tokens) // 10
    total = 0.0
    for strand in tokens[: 10 * length].view(10, length):
        with torch.no_grad():
            hidden = trained.model(strand[:-1, None]).hidden[:, 0]
            scores = trained.model.log_probabilities(hidden).double()
        total -= float(scores.gather(1, strand[1:, None]).sum())
    found = loss_of(trained, trained.model, split, limit)
    assert found == pytest.approx(total / (10 * (length - 1)), rel=1e-6)


def test_loss_of_few_tokens_has_as_many_strands_as_fit():
    trained = untrained()
    tokens = trained.task.corpus.valid[:7]  # three strands of two tokens
    with torch.no_grad():
        hidden = trained.model(tokens[:6:2][None]).hidden[0]
        scores = trained.model.log_probabilities(hidden).double()
    expected = -float(scores.gather(1, tokens[1:6:2, None]).mean())
    assert loss_of(trained, trained.model, "valid", 7) == pytest.approx(expected, rel=1e-6)


def test_loss_of_a_translation_by_hand():
    trained = untrained("translation")
    pairs = trained.task.pairs["valid"]
    total = count = 0
    for source, target in zip(pairs.sources[:3], pairs.targets[:3], strict=True):
        inputs = torch.tensor([2, *target])[:, None]
        with torch.no_grad():
            source = torch.tensor(source)[:, None]
            hidden = trained.model(source, torch.tensor([len(source)]), inputs).hidden[:, 0]
            scores = trained.model.log_probabilities(hidden).double()
        total -= float(scores.gather(1, torch.tensor([*target, 3])[:, None]).sum())
        count += len(target) + 1
    assert loss_of(trained, trained.model, limit=count) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_loss_is_that_of_the_model_at_hand_and_infinite_where_it_breaks(task):
    trained, other = untrained(task), untrained(task)
    with torch.no_grad():
        next(iter(other.model.parameters())).mul_(2)
    assert loss_of(trained, other.model) != loss_of(trained, trained.model)
    assert loss_of(trained, other.model) == loss_of(other, other.model)
    with torch.no_grad():
        next(iter(other.model.parameters())).fill_(math.nan)
    assert loss_of(trained, other.model) == math.inf


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 60))
def test_the_first_pairs_are_as_many_as_fit(lengths, limit):
    pairs = Pairs([[n] for n in range(len(lengths))], [[7] * n for n in lengths])
    found = first_pairs(pairs, limit)
    size = len(found)
    assert found.sources == pairs.sources[:size]
    assert found.targets == pairs.targets[:size]
    assert size >= 1
    assert found.target_tokens <= limit or size == 1
    if size < len(lengths):
        assert found.target_tokens + lengths[size] + 1 > limit


def test_a_record_of_an_earlier_run_is_not_read(run, measurement, calls):
    write_json(saved(run), {"settings": {}, "fingerprint": "old", "code": "", "result": 1})
    assert measurement.of(run) != 1
    assert len(calls) == 1
