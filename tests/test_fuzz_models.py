"""Any model folder, run folder and text is used or refused by name, in bounded time and memory."""

import io
import json
import shutil
import sys

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from g2lstm.command_line import main
from g2lstm.release import release
from g2lstm.saved_models import open_model, save_compressed
from g2lstm.text import prepared
from tiny_runs import finished, without_headers

SECONDS = 20  # for one input, on a busy machine


def few(share):
    examples = max(10, round(share * settings.default.max_examples / 5))
    return settings(max_examples=examples, deadline=1000 * SECONDS)


@pytest.fixture(scope="module")
def place(corpora, tmp_path_factory):
    """A run, a released and a smaller model of each task, and copies to be damaged.

    They are of the first format, in which a changed file is not found by its checksum.
    """
    folder = tmp_path_factory.mktemp("place")
    for task in ("language-model", "translation"):
        shutil.copytree(finished(task).directory, folder / f"{task}-run")
        release(finished(task).directory, folder / f"{task}-model")
        saved = open_model(folder / f"{task}-model", device="cpu")
        save_compressed(saved, folder / f"{task}-small", rank=2)
        for kind in ("run", "model", "small"):
            without_headers(folder / f"{task}-{kind}")
    (folder / "text.txt").write_text("the dog sleeps .\n")
    return folder


def run(words, text=b""):
    """Exit code, standard output and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
        patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
        patch.setattr(sys, "stderr", io.StringIO())
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        return code, sys.stdout.buffer.getvalue().decode(), sys.stderr.getvalue()


# Records

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([10**9, 10**400, 1e308, -1e308, 0.5, float("nan"), float("inf"), "", "1e-1"]),
    st.text(st.characters(), max_size=5),  # lone surrogates too
    st.sampled_from([[], {}, [[]], [1, "a"], {"a": 1}, "grammar", "sigmoid"]),
    st.sampled_from([500, 3000]).map(lambda n: "nested" + str(n)),
)


def nested(value):
    """JSON text of a value; of "nested500" that of so many lists in each other."""
    text = json.dumps(value)
    for depth in (500, 3000):
        text = text.replace(f'"nested{depth}"', "[" * depth + "]" * depth)
    return text


@st.composite
def changed(draw, content):
    """The value with a part replaced, left out or added somewhere in it."""
    if isinstance(content, dict | list) and content and draw(st.integers(0, 3)):
        parts = dict(content) if isinstance(content, dict) else dict(enumerate(content))
        key = draw(st.sampled_from(sorted(parts)))
        what = draw(st.sampled_from(["change", "change", "change", "remove", "add"]))
        if what == "remove":
            del parts[key]
        elif what == "add" and isinstance(content, dict):
            parts[draw(st.text(max_size=5))] = draw(ODD)
        else:
            parts[key] = draw(changed(parts[key]))
        return parts if isinstance(content, dict) else list(parts.values())
    return draw(ODD)


@few(3.0)
@given(
    data=st.data(),
    task=st.sampled_from(["language-model", "translation"]),
    kind=st.sampled_from(["run", "model", "small"]),
)
def test_any_record_in_a_folder_is_used_or_refused(place, data, task, kind):
    folder = place / f"{task}-{kind}"
    copy = place / "damaged/task/corpus/preset/gate/seed-1"
    shutil.rmtree(place / "damaged", ignore_errors=True)
    shutil.rmtree(place / "out", ignore_errors=True)
    shutil.copytree(folder, copy)
    name = data.draw(st.sampled_from(sorted(path.name for path in folder.glob("*.json"))))
    content = json.loads((folder / name).read_text())
    (copy / name).write_text(nested(data.draw(changed(content))))
    use = [
        ["translate", copy] if task == "translation" else ["perplexity", copy, place / "text.txt"],
        ["compress", copy, "--rank", "1", "-o", place / "out"],
        ["release", copy, "-o", place / "out"],
        ["verify", copy],
        ["runs", "--folder", place / "damaged"],
    ]
    words = data.draw(st.sampled_from(use))
    code, _, message = run(words, "Der König schläft.\n".encode())
    event(f"{words[0]} {name}: {code}")
    assert code in (0, 1, 2)
    if code == 2:
        assert "error: " in message
        assert not (place / "out").exists()


# Text

SPACES = st.text("".join(map(chr, (*range(9, 14), *range(28, 33), 133, 160, 0x2003, 0x2028))))
WORDS = st.one_of(
    st.sampled_from(["Der", "König", "schläft", ".", "Die", "Katze", "<unk>", "</s>", "&apos;"]),
    st.text(st.characters(codec="utf-8", exclude_categories=["Z", "C"]), max_size=9),
)


@few(1.0)
@given(st.lists(st.tuples(SPACES, WORDS), max_size=9), SPACES)
def test_any_sentence_is_translated_as_it_would_be_trained_on(place, parts, end):
    text = ("".join(space + word for space, word in parts) + end).replace("\n", " ")
    words = ["translate", place / "translation-model", "--beam-size", "1"]
    code, out, message = run(words, text.encode())
    again, plain, _ = run(words, prepared(text).encode())
    assert (code, out) == (again, plain)
    assert code == 0
    assert out.count("\n") == 1
    assert (out == "\n") == (not text.split())
    assert "Traceback" not in message
    if any("\u4e00" <= char <= "\u9fff" for char in text):
        assert "never seen in training" in message
