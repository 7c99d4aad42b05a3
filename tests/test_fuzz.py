"""Random input gives what was asked for or a clear named error, in bounded time and memory.

`make test` tries a few of each kind, `make nightly` some 35,000 (the profiles are in
conftest). Hypothesis' statistics count how many were taken and how many refused.
"""

import io
import json
import os
import resource
import shutil
import string
import sys
import unicodedata
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st
from papermill.cli import _resolve_type
from torch import nn

import killed_runs
from g2lstm import commands
from g2lstm.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from g2lstm.command_line import main
from g2lstm.compression import RoundClip, compress
from g2lstm.corpora import CorpusError, load_corpus
from g2lstm.experiments import TASKS, arguments_of, configure, run_directory
from g2lstm.gates import GATES
from g2lstm.packing import load_packed, save_packed
from g2lstm.parallel_corpora import load_parallel
from g2lstm.parameters import ParameterError, check_parameters
from g2lstm.records import RECORDS, RunError, read_run
from g2lstm.subwords import Subwords, learn_subwords

SPLITS = ("train", "valid", "test")
SECONDS = 20  # for one input, on a busy machine
GIGABYTES = 3  # beyond what the tests' process has already


def few(share):
    """A fifth of the profile's examples, times ``share``."""
    examples = max(10, round(share * settings.default.max_examples / 5))
    return settings(max_examples=examples, deadline=1000 * SECONDS)


@pytest.fixture(autouse=True)
def _modest_memory():
    """An absurd allocation fails instead of filling the machine."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GIGABYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (limit, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, old)


def attempt(kind, function, *arguments, **keywords):
    """What the function gives and None; or None and the text of its error, if of this kind."""
    try:
        value = function(*arguments, **keywords)
    except kind as error:
        event("refused")
        return None, str(error)
    event("taken")
    return value, None


# Corpora

ODD = "a b\n\r\t\v\f\0\x1c\x85\u00a0\u2028\u3000\ufeff\u0301é字😀&'\"<>"
TEXT = st.one_of(
    st.lists(st.sampled_from(["the", "cat", "<unk>", "<s>", "&apos;"]), min_size=1).map(" ".join),
    st.text(ODD, min_size=1, max_size=60).map(lambda text: f"odd {text}"),
    st.text(st.characters(codec="utf-8"), max_size=60).map(lambda text: f"{text} any"),
    st.integers(1, 20_000).map(lambda n: "ab " * n + "x" * n),
    st.sampled_from(["", " ", "\t", "\u2028", "\0", "\ufeff"]),
)
LINES = st.lists(TEXT, min_size=1, max_size=6)
WHOLE = st.builds(str.join, st.sampled_from(["\n", "\r\n"]), LINES).map(str.encode)
BROKEN = st.one_of(
    st.binary(max_size=80),
    st.text(ODD, max_size=9).map(str.encode),
    WHOLE.map(lambda data: data + b" <eos>"),
    st.builds(bytes.__add__, WHOLE, st.binary(min_size=1, max_size=3)),
)
BYTES = st.integers(0, 9).flatmap(lambda n: WHOLE if n else BROKEN)


def tokens_of(data):
    """Sentences as lists of tokens; None where the bytes are no UTF-8."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    text = text[1:] if text.startswith("\ufeff") else text
    text = text[:-1] if text.endswith("\n") else text
    return [line.split() for line in text.split("\n")]


def write_all(folder, files):
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@few(0.4)
@given(files=st.fixed_dictionaries({f"{split}.txt": BYTES for split in SPLITS}))
def test_any_bytes_are_a_corpus_or_refused(folder, files):
    write_all(folder, files)
    sentences = {name: tokens_of(data) for name, data in files.items()}
    faults = [
        name
        for name, parts in sentences.items()
        if parts is None or not any(parts) or any("<eos>" in part for part in parts)
    ]
    corpus, error = attempt(CorpusError, load_corpus, folder)
    if error:
        assert any(str(folder / name) in error for name in faults)
        return
    assert not faults
    for split in SPLITS:
        words = [word for part in sentences[f"{split}.txt"] for word in (*part, "<eos>")]
        known = {*(w for part in sentences["train.txt"] for w in part), "<eos>"}
        found = corpus.vocabulary.decode(getattr(corpus, split))
        assert found == [word if word in known else "<unk>" for word in words]


@pytest.mark.filterwarnings("ignore:.*with an empty side")
@few(0.4)
@given(data=st.data(), max_length=st.integers(1, 50))
def test_any_bytes_are_a_parallel_corpus_or_refused(folder, data, max_length):
    files = {}
    for split in SPLITS:
        if data.draw(st.integers(0, 7)):  # mostly in step
            source = data.draw(LINES)
            target = [data.draw(TEXT) for _ in source]
            sides = (
                "\n".join(s.replace("\n", " ") for s in side).encode() for side in (source, target)
            )
        else:
            sides = (data.draw(BYTES), data.draw(BYTES))
        files |= dict(zip((f"{split}.de", f"{split}.en"), sides, strict=True))
    write_all(folder, files)
    corpus, error = attempt(CorpusError, load_parallel, folder, max_length=max_length)
    if error:
        assert str(folder) in error
        return
    for split in SPLITS:
        sides = [tokens_of(files[f"{split}.{language}"]) for language in ("de", "en")]
        pairs = [pair for pair in zip(*sides, strict=True) if all(pair)]
        if split == "train":
            pairs = [pair for pair in pairs if max(map(len, pair)) <= max_length]
        expected = [[" ".join(sentence) for sentence in side] for side in zip(*pairs, strict=True)]
        assert list(getattr(corpus, split)) == expected


@few(0.3)
@given(
    st.lists(TEXT, min_size=1, max_size=4),
    st.one_of(st.integers(0, 30), st.just(10**9)),
    st.booleans(),
)
def test_subwords_of_any_text_give_it_back(folder, sentences, merges, joint):
    sentences = [" ".join(sentence.split()) for sentence in sentences]
    assume(any(sentences))
    source, target = learn_subwords((sentences, sentences[::-1]), merges, joint)
    source.save(folder / "subwords.json")
    assert Subwords.load(folder / "subwords.json").pieces == source.pieces
    for subwords in (source, target):
        texts = subwords.decode(subwords.encode(sentences))
        assert texts == [unicodedata.normalize("NFC", sentence) for sentence in sentences]


# Parameters

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([10**9, 2**31, 2**63, 10**18, 10**400, -(10**400), 0.0, -0.0, 1e-320, 1e308]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["quick", "grammar", "1e-6", "nan", "1e400", "~nobody", "..", "/", "a\0b"]),
    st.text("ab/.~-", max_size=400),
)
VALUE = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(max_size=9), st.integers()), inner, max_size=3),
    ),
    max_leaves=5,
)
OPTIONS = {
    task: sorted(
        {
            *configure(task=task).model, *asdict(configure(task=task).training),
            *configure(task=task).data, *configure(task=task).evaluation,
            "threads", "backend", "num_layers", "hidden_size", "encoder_layers", "attention",
        }
    )
    for task in TASKS
}  # fmt: skip
SENSIBLE = {
    "preset": st.sampled_from(["quick", "small", "paper-brief", "paper"]),
    "corpus": st.sampled_from([None, "grammar", "ptb", "wmt14", "/", "nowhere"]),
    "gate": st.sampled_from(GATES),
    "seed": st.integers(0, 9),
    "temperature": st.floats(0.01, 9.0),
    "noise_probability": st.floats(0.0, 1.0),
    "schedule": st.sampled_from(["constant", "linear", "cosine", "exponential"]),
    "temperature_end": st.floats(0.01, 9.0),
    "languages": st.sampled_from([None, "de-en", "en-de", "zh_CN-en"]),
}


@st.composite
def arguments(draw):
    """Of `configure`: sensible ones, and one or two that are anything at all."""
    task = draw(st.sampled_from(TASKS))
    names = draw(st.sets(st.sampled_from(sorted(SENSIBLE)), max_size=5))
    chosen = {"task": task} | {name: draw(SENSIBLE[name]) for name in names}
    option = st.one_of(st.sampled_from(OPTIONS[task]), st.sampled_from(OPTIONS[task]), st.text())
    if draw(st.booleans()):
        numbers = st.one_of(st.integers(0, 9), st.floats(0, 1), PLAIN)
        chosen["overrides"] = draw(st.dictionaries(option, numbers, max_size=4))
    names = st.sampled_from([*SENSIBLE, "task", "overrides"])
    return chosen | draw(st.dictionaries(names, VALUE, max_size=2))


def checked(chosen):
    """What is true of each configuration that `configure` gives; other errors go through."""
    configuration, error = attempt(ParameterError, configure, **chosen)
    if error:
        overrides = chosen.get("overrides")
        names = {*chosen, *(overrides if isinstance(overrides, dict) else ())}
        assert any(str(name) in error or repr(name) in error for name in names), error
        return
    config = json.loads(json.dumps(asdict(configuration), allow_nan=False))
    assert configure(**arguments_of(config)) == configuration
    assert json.loads(json.dumps(asdict(configure(**arguments_of(config))))) == config
    directory = run_directory(configuration)
    root = os.environ["G2LSTM_RUNS"]
    parts = directory.relative_to(root).parts
    assert len(parts) == 5
    assert ".." not in parts
    assert all(len(part.encode(errors="replace")) <= 255 for part in parts[2:])


@few(1.0)
@given(arguments())
def test_any_parameters_are_a_configuration_or_refused_by_name(chosen):
    checked(chosen)


@few(0.5)
@given(arguments())
def test_parameters_as_yaml_passes_them(chosen):
    try:
        text = yaml.safe_dump(chosen, allow_unicode=True)
        read = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # what YAML cannot say, such as a NUL
        assume(False)
    assert isinstance(read, dict)
    checked(read)


@few(0.5)
@given(
    st.sampled_from(["task", *SENSIBLE]),
    st.one_of(st.text(max_size=20), st.text(string.digits + "eE+-._", max_size=30), PLAIN.map(str)),
)
def test_parameters_as_the_command_line_passes_them(name, text):
    checked({name: _resolve_type(text)})


@few(0.5)
@given(st.floats(min_value=0, exclude_min=True, max_value=1e6), st.data())
def test_other_settings_have_another_directory(temperature, data):
    factor = data.draw(st.floats(0.999, 1.001))
    one = configure(temperature=temperature)
    try:
        other = configure(temperature=temperature * factor)
    except ParameterError:  # it became 0
        return
    assert (run_directory(one) == run_directory(other)) == (one == other)


NAMES = st.text(string.ascii_letters + "_", min_size=1, max_size=12)


@few(0.5)
@given(st.dictionaries(NAMES, VALUE, max_size=5), st.sets(NAMES, max_size=4), st.data())
def test_unknown_names_of_parameters_are_refused(namespace, known, data):
    namespace |= {name: data.draw(VALUE) for name in known}
    unknown = {
        name
        for name in namespace
        if not (name.startswith("_") or name in known or name in ("In", "Out"))
    }
    found, error = attempt(ParameterError, check_parameters, namespace, known)
    if error:
        assert any(f"unknown parameter {name!r}" in error for name in unknown)
        return
    assert not unknown
    assert found.keys() == known
    assert all(found[name] is namespace[name] for name in known)


# Files of weights


@st.composite
def damaged(draw, content):
    """The bytes with bits flipped, a stretch overwritten, left out, or put in."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "flip", "header", "overwrite", "cut", "insert"]))
        start = draw(st.integers(0, max(0, len(data) - 1)))
        if kind == "header":
            start = draw(st.integers(0, max(0, min(len(data) - 1, 3000))))
        if kind in ("flip", "header") and data:
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif kind == "overwrite":
            stretch = draw(st.one_of(st.just(bytes(64)), st.binary(max_size=64)))
            data[start : start + len(stretch)] = stretch
        elif kind == "cut":
            del data[start : start + draw(st.integers(1, 2000))]
        elif kind == "insert":
            data[start:start] = draw(st.binary(min_size=1, max_size=9))
    return bytes(data)


def small_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4))
    optimizer = torch.optim.AdamW(model.parameters(), 0.1)
    model[1](model[0](torch.arange(5)))[0].sum().backward()
    optimizer.step()
    return model, optimizer


def content(model, optimizer=None):
    """All values as text and bytes, exactly."""
    parts = [f"{k} {v.dtype} {v.numpy().tobytes()!r}" for k, v in model.state_dict().items()]
    if optimizer:
        parts.append(repr(optimizer.state_dict()["param_groups"]))
        for state in optimizer.state_dict()["state"].values():
            parts += [f"{k} {v.dtype} {v.numpy().tobytes()!r}" for k, v in state.items()]
    return parts


@pytest.fixture(scope="module")
def checkpoint(folder):
    model, optimizer = small_model()
    save_checkpoint(folder / "whole", model, optimizer, {"history": [{"loss": 0.1}]})
    random_state = torch.get_rng_state()
    load_checkpoint(folder / "whole", model, optimizer)  # pairs of numbers become lists
    return (folder / "whole").read_bytes(), content(model, optimizer), random_state


@few(1.5)
@given(data=st.data())
def test_a_damaged_checkpoint_is_refused_or_the_same(folder, checkpoint, data):
    whole, expected, random_state = checkpoint
    path = folder / "checkpoint.safetensors"
    path.write_bytes(data.draw(damaged(whole)))
    model, optimizer = small_model()
    torch.rand(3)
    progress, error = attempt(CheckpointError, load_checkpoint, path, model, optimizer)
    if error:
        assert str(path) in error
        return
    assert progress == {"history": [{"loss": 0.1}]}
    assert content(model, optimizer) == expected
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.fixture(scope="module")
def packed(folder):
    model = compress(small_model()[0], RoundClip(0.1, 0.2))
    for rest in ("float32", "int8"):
        save_packed(model, folder / rest, rest)
    loaded, _ = small_model()
    load_packed(folder / "int8", loaded)
    wholes = [(folder / rest).read_bytes() for rest in ("float32", "int8")]
    return list(zip(wholes, (content(model), content(loaded)), strict=True))


@few(1.5)
@given(data=st.data())
def test_damaged_packed_weights_are_refused_or_the_same(folder, packed, data):
    whole, expected = data.draw(st.sampled_from(packed))
    path = folder / "packed.safetensors"
    path.write_bytes(data.draw(damaged(whole)))
    model, _ = small_model()
    before = content(model)
    _, error = attempt(CheckpointError, load_packed, path, model)
    assert content(model) == (before if error else expected)
    assert error is None or str(path) in error


# Records


@pytest.fixture(scope="module")
def records(folder):
    """Those of a run that was never made."""
    rows = [{"epoch": epoch, "valid_loss": 1 / epoch} for epoch in (1, 2)]
    config = asdict(configure()) | {"fingerprint": "0" * 64}
    texts = {
        "config.json": json.dumps(config),
        "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "summary.json": json.dumps({"epochs": 2, "test_loss": 1.5}),
        "provenance.json": json.dumps({"commit": None, "seconds": 1.5}),
    }
    (folder / "run").mkdir()
    return {name: text.encode() for name, text in texts.items()}


@few(0.6)
@given(name=st.sampled_from(RECORDS), data=st.data())
def test_a_damaged_record_is_refused_by_name(folder, records, name, data):
    write_all(folder / "run", records | {name: data.draw(damaged(records[name]))})
    run, error = attempt(RunError, read_run, folder / "run")
    if error:
        assert str(folder / "run") in error
        assert name in error or "metrics.jsonl" in error
        return
    assert len(run.metrics) == run.summary.get("epochs", len(run.metrics))


@few(0.6)
@given(data=st.data())
def test_damaged_subwords_are_refused(folder, data):
    path = folder / "subwords.json"
    learn_subwords((["a man a plan"], ["ein Mann"]), 5, True)[0].save(path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    subwords, error = attempt(ValueError, Subwords.load, path)
    if error:
        assert str(path) in error
        return
    subwords.decode(subwords.encode(["a man"]))


# The command line

COMMANDS = ("runs", "verify", "seal", "translate", "perplexity", "compress", "release", "train")
FLAGS = (
    "--folder", "--json", "--beam-size", "--cache", "--rank", "--round", "--clip", "--int8", "-o",
    "--output", "--force", "--task", "--preset", "--corpus", "--languages", "--gate", "--seed",
    "--temperature", "--noise-probability", "--schedule", "--temperature-end", "--set", "--quiet",
    "--help", "--version", "--", "-", "-h", "--unknown",
)  # fmt: skip
# No "/": what is written stays in the test's folder. No NUL: no system passes one on.
ANY_WORD = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=9)
NUMBERS = st.sampled_from(["0", "1", "-1", "0.2", "1e9", "nan", "inf", "1e400", str(10**30), "٣"])
SETTINGS = st.builds(
    "{}={}".format, st.one_of(st.sampled_from(["epochs", "dropout", "backend"]), ANY_WORD), NUMBERS
)
KNOWN = st.sampled_from(
    ["translation", "language-model", "quick", "grammar", "de-en", "sharpened", "linear", "\udcff"]
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a finished run, damaged copies of it, an empty folder and a file."""
    folder = tmp_path_factory.mktemp("place")
    killed_runs.write_corpora(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("G2LSTM_RUNS", str(folder / "runs"))
        killed_runs.finish(folder, "language-model", folder / "runs")
    (run,) = (folder / "runs").glob("*/*/*/*/seed-1")
    shutil.copytree(run, folder / "run")
    for name in ("config.json", "model.safetensors", "summary.json"):
        broken = shutil.copytree(folder / "run", folder / f"without-{name}")
        os.truncate(broken / name, 50)
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("die Katze schläft\n")
    return folder


def fill(data, shape):
    return [word if isinstance(word, str) else data.draw(word) for word in shape]


PLACES = st.sampled_from(
    ["run", "without-config.json", "without-model.safetensors", "without-summary.json", "empty",
     "text.txt", "nowhere", "runs", ".", "language-model"]
)  # fmt: skip
WORD = st.one_of(PLACES, ANY_WORD, NUMBERS, SETTINGS, KNOWN, st.sampled_from(FLAGS))
SHAPES = st.sampled_from(
    [
        ["compress", PLACES, "--rank", NUMBERS, "-o", "out"],
        ["compress", PLACES, "--round", NUMBERS, "--clip", NUMBERS, "-o", "out", "--force"],
        ["perplexity", PLACES, PLACES],
        ["perplexity", "run", "-"],
        ["translate", PLACES, "--beam-size", NUMBERS],
        ["release", PLACES, "-o", PLACES],
        ["verify", PLACES],
        ["seal", PLACES],
        ["runs", "--folder", PLACES],
        ["train", "--seed", NUMBERS, "--set", SETTINGS],
        ["train", "--corpus", PLACES, "--temperature", NUMBERS],
        [],
    ]
)


@few(0.8)
@given(
    data=st.data(),
    shape=SHAPES,
    more=st.one_of(st.just([]), st.just([]), st.lists(WORD, max_size=4)),
    command=st.sampled_from(COMMANDS),
    standard_input=st.one_of(st.binary(max_size=30), st.just(b"die Katze\n\nschl\xc3\xa4ft")),
)
def test_any_words_on_the_command_line_end_without_a_traceback(
    place, data, shape, more, command, standard_input
):
    words = [*(fill(data, shape) or [command]), *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("G2LSTM_RUNS")
        patch.setattr(commands, "prepare", lambda configuration: configuration)
        patch.setattr(commands, "train_or_load", lambda *_, **__: read_run("run"))
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(standard_input)))
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
        patch.setattr(sys, "stderr", io.StringIO())
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
        message = sys.stderr.getvalue()
    event(f"{words[0] if words[0] in COMMANDS else 'other'}: {code}")
    assert code in (0, None, 1, 2)
    assert "Traceback" not in message
    if code == 2:
        assert "error: " in message
