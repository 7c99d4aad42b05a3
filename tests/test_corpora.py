"""Loading corpora: encoding, the embedded corpus's cache, the hub (a stand-in), and errors."""

import hashlib
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from g2lstm import corpora, grammar, hub
from g2lstm.corpora import CorpusError, Vocabulary, load_corpus
from g2lstm.parallel_corpora import load_parallel
from hub_stand_in import fill_cache, parquet

TEXTS = {
    "train": "the cat sat\nthe dog sat <unk>\n the end \n",
    "valid": "the cat ran\n",
    "test": "a dog\n\nthe end\n",
}
PTB = "ptb-text-only/ptb_text_only", "refs/convert/parquet"


def write(folder, texts=None):
    folder.mkdir(parents=True, exist_ok=True)
    for split, text in (texts or TEXTS).items():
        data = text if isinstance(text, bytes) else text.encode()
        (folder / f"{split}.txt").write_bytes(data)
    return folder


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("G2LSTM_DATA", raising=False)
    monkeypatch.setenv("G2LSTM_CACHE", str(tmp_path / "cache"))


def hub_files(folder="penn_treebank", field="sentence", pattern="{}/0000.parquet"):
    names = {"train": "train", "valid": "validation", "test": "test"}
    return {
        f"{folder}/{pattern.format(there)}": parquet({field: TEXTS[here].split("\n")[:-1]})
        for here, there in names.items()
    }


@pytest.fixture
def stand_in(hub_server):
    """A hub on this machine that has Penn Treebank's layout with a few sentences."""
    hub_server.files = hub_files()
    return hub_server


def decode(corpus, split):
    return " ".join(corpus.vocabulary.decode(getattr(corpus, split)))


# Folders


def test_a_folder_is_encoded_with_the_vocabulary_of_train(tmp_path, no_network):
    corpus = load_corpus(write(tmp_path / "tiny"))
    assert corpus.name == "tiny"
    assert corpus.source == str(tmp_path / "tiny")
    assert corpus.entropy_floor is None
    assert corpus.vocabulary.tokens == ["the", "<eos>", "sat", "cat", "dog", "<unk>", "end"]
    assert corpus.train.dtype == torch.int64
    assert corpus.train.tolist() == [0, 3, 2, 1, 0, 4, 2, 5, 1, 0, 6, 1]
    assert decode(corpus, "valid") == "the cat <unk> <eos>"
    assert decode(corpus, "test") == "<unk> dog <eos> <eos> the end <eos>"  # a blank line counts
    for split in corpora.SPLITS:
        assert corpus.checksums[split] == hashlib.sha256(TEXTS[split].encode()).hexdigest()


def test_a_path_may_be_a_string_or_relative(tmp_path, monkeypatch):
    write(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load_corpus("tiny").name == "tiny"
    assert torch.equal(load_corpus(str(tmp_path / "tiny")).train, load_corpus("tiny").train)
    monkeypatch.chdir(tmp_path / "tiny")
    assert load_corpus(".").name == "tiny"


def test_unknown_comes_last_where_the_text_has_none(tmp_path):
    corpus = load_corpus(write(tmp_path, {"train": "b a b\n", "valid": "c\n", "test": "b"}))
    assert corpus.vocabulary.tokens == ["b", "a", "<eos>", "<unk>"]
    assert corpus.valid.tolist() == [3, 2]
    assert corpus.test.tolist() == [0, 2]  # without an end of line in the file


def test_line_ends_byte_order_mark_and_unicode_separators(tmp_path):
    text = "\ufeffthe\u0020cat\r\ntwo\u2028words one\x0btoken\r\n".encode()
    corpus = load_corpus(write(tmp_path, dict.fromkeys(corpora.SPLITS, text)))
    assert decode(corpus, "train") == "the cat <eos> two words one token <eos>"


TOKEN = st.text(st.characters(codec="utf-8"), min_size=1, max_size=4).filter(
    lambda t: t.split() == [t] and t not in ("<eos>", "<unk>") and "\ufeff" not in t
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(TOKEN, max_size=6), min_size=1), st.lists(TOKEN, max_size=6))
def test_any_text_survives_encoding(sentences, others):
    vocabulary = Vocabulary.from_sentences(sentences)
    flat = [token for sentence in sentences for token in (*sentence, "<eos>")]
    assert vocabulary.decode(vocabulary.encode(flat)) == flat
    assert vocabulary.decode(torch.tensor(vocabulary.encode(flat))) == flat
    known = set(flat)
    expected = [token if token in known else "<unk>" for token in others]
    assert vocabulary.decode(vocabulary.encode(others)) == expected
    counts = [flat.count(token) for token in vocabulary.tokens]
    assert counts == sorted(counts, reverse=True)
    firsts = [(-flat.count(t), flat.index(t)) for t in vocabulary.tokens if t in known - {"<eos>"}]
    assert firsts == sorted(firsts)
    if any(sentences):
        with tempfile.TemporaryDirectory() as folder:
            text = "".join(" ".join(sentence) + "\n" for sentence in sentences)
            corpus = load_corpus(write(Path(folder), dict.fromkeys(corpora.SPLITS, text)))
        assert corpus.vocabulary.tokens == vocabulary.tokens
        assert corpus.vocabulary.decode(corpus.test) == flat


def test_vocabulary_refuses_what_is_none():
    with pytest.raises(ValueError, match="'a' appears twice"):
        Vocabulary(["<unk>", "a", "<eos>", "a"])
    with pytest.raises(ValueError, match="lacks <eos>"):
        Vocabulary(["<unk>", "a"])
    with pytest.raises(TypeError, match="the cat"):
        Vocabulary(["<unk>", "<eos>"]).encode("the cat")
    assert len(Vocabulary(["<unk>", "<eos>"])) == 2


# Errors of local files


def test_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "valid.txt").unlink()
    with pytest.raises(CorpusError, match=r"valid\.txt is missing: a corpus folder holds"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_empty_split_is_named(tmp_path, text):
    write(tmp_path, TEXTS | {"test": text})
    with pytest.raises(CorpusError, match=r"test\.txt is empty"):
        load_corpus(tmp_path)


def test_undecodable_byte_is_located(tmp_path):
    write(tmp_path, TEXTS | {"test": b"the cat\nna\xefve dog\n"})
    with pytest.raises(CorpusError, match=r"test\.txt .*byte 0xef at offset 10 \(line 2\).*iconv"):
        load_corpus(tmp_path)


def test_end_mark_in_the_text_is_refused(tmp_path):
    write(tmp_path, TEXTS | {"valid": "the cat\nthe dog <eos>\n"})
    with pytest.raises(CorpusError, match=r"line 2 of .*valid\.txt holds <eos>"):
        load_corpus(tmp_path)


def test_unreadable_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "test.txt").unlink()
    (tmp_path / "test.txt").mkdir()
    with pytest.raises(CorpusError, match=r"cannot read .*test\.txt"):
        load_corpus(tmp_path)


@pytest.mark.parametrize(("name", "close"), [("gramar", "grammar"), ("PTB", "ptb")])
def test_unknown_name_suggests_and_lists_names(name, close, no_network):
    with pytest.raises(CorpusError, match=f"{name}.*Did you mean '{close}'.*wikitext-2"):
        load_corpus(name)


def test_unknown_folder_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere.*neither a name nor a folder") as caught:
        load_corpus(tmp_path / "nowhere")
    assert "Did you mean" not in str(caught.value)


# The embedded corpus


@pytest.fixture
def small_grammar(monkeypatch):
    monkeypatch.setattr(grammar, "SENTENCES", {"train": 300, "valid": 20, "test": 20})


def test_embedded_corpus_is_generated_once(tmp_path, small_grammar, monkeypatch, no_network):
    first = load_corpus("grammar")
    folder = Path(first.source)
    assert folder.parent == tmp_path / "cache"
    train = grammar.read_annotations(first.source, "train")
    assert decode(first, "train") == " ".join(" ".join((*s.tokens, "<eos>")) for s in train)
    sentences = grammar.read_annotations(first.source, "test")
    assert len(first.test) == sum(len(s.tokens) + 1 for s in sentences)
    assert first.entropy_floor == pytest.approx(grammar.cross_entropy(sentences), abs=1e-8)
    monkeypatch.setattr(grammar, "generate", None)  # would fail if it were generated again
    second = load_corpus("grammar")
    assert second.checksums == first.checksums
    assert second.vocabulary.tokens == first.vocabulary.tokens


@pytest.mark.parametrize("cut", [True, False])
@pytest.mark.parametrize(
    "harm", ["floor.json", "test.annotations.jsonl", "train.txt", "sha256.json"]
)
def test_a_broken_cache_is_mended(small_grammar, harm, cut):
    first = load_corpus("grammar")
    path = Path(first.source) / harm
    whole = path.read_bytes()
    if cut:  # after a line, where there are several: the rest is well formed
        path.write_bytes(whole[: whole.index(b"\n") + 1])
    else:
        path.unlink()
    if harm == "sha256.json" and not cut:  # as after a kill, before the last file was written
        second = load_corpus("grammar")
    else:
        with pytest.warns(UserWarning, match=f"made anew: {re.escape(harm)}"):
            second = load_corpus("grammar")
    assert second.checksums == first.checksums
    assert path.read_bytes() == whole


@pytest.mark.parametrize("content", ["another number", "text", "{}", "[1]"])
def test_a_changed_floor_is_found(small_grammar, content):
    first = load_corpus("grammar")
    path = Path(first.source) / "floor.json"
    whole = path.read_text()
    if content == "another number":
        content = whole.replace(f"{first.entropy_floor}", f"{first.entropy_floor - 1}")
        assert json.loads(content) != json.loads(whole)
    path.write_text(content)
    with pytest.warns(UserWarning, match=r"made anew: floor\.json"):
        second = load_corpus("grammar")
    assert second.entropy_floor == first.entropy_floor
    assert path.read_text() == whole


def test_a_cached_file_that_cannot_be_made_anew_is_named(small_grammar):
    path = Path(load_corpus("grammar").source) / "floor.json"
    path.unlink()
    path.mkdir()
    with (
        pytest.warns(UserWarning, match=r"made anew: floor\.json"),
        pytest.raises(CorpusError, match=r"cannot write .*floor\.json"),
    ):
        load_corpus("grammar")


def test_another_grammar_has_another_place(small_grammar, monkeypatch):
    first = load_corpus("grammar")
    monkeypatch.setattr(grammar, "fingerprint", lambda: "another")
    assert load_corpus("grammar").source != first.source


def test_fingerprint_follows_the_source(monkeypatch, tmp_path):
    before = grammar.fingerprint()
    changed = tmp_path / "grammar_rules.py"
    changed.write_text(Path(grammar.grammar_rules.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(grammar.grammar_rules, "__file__", str(changed))
    assert grammar.fingerprint() != before


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, small_grammar):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("G2LSTM_CACHE", str(tmp_path / "file"))
    with pytest.raises(CorpusError, match="Set G2LSTM_CACHE"):
        load_corpus("grammar")


def test_default_cache_lies_in_the_home_folder(tmp_path, monkeypatch, small_grammar):
    monkeypatch.delenv("G2LSTM_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    source = Path(load_corpus("grammar").source)
    assert source.parent == tmp_path / "home" / ".cache" / "g2lstm"


def test_without_a_home_the_remedy_is_named(monkeypatch, small_grammar):
    monkeypatch.delenv("G2LSTM_CACHE")
    monkeypatch.delenv("HOME")

    def nobody(number):
        raise KeyError(number)

    monkeypatch.setattr(pwd, "getpwuid", nobody)  # as in a container with a user of any number
    with pytest.raises(CorpusError, match="Set G2LSTM_CACHE"):
        load_corpus("grammar")


@pytest.mark.parametrize("name", ["~nobody-of-this-name/text", "x" * 5000, "a\0b"])
def test_a_name_that_no_folder_can_have_is_unknown(monkeypatch, name):
    with pytest.raises(CorpusError, match="unknown corpus"):
        load_corpus(name)
    with pytest.raises(CorpusError, match="unknown corpus"):
        load_parallel(name)
    if "\0" not in name:
        monkeypatch.setenv("G2LSTM_DATA", name)
        with pytest.raises(CorpusError, match="G2LSTM_DATA is"):
            load_corpus("ptb")


def test_processes_that_start_together_in_an_empty_cache(tmp_path):
    code = (
        "from g2lstm.corpora import load_corpus; c = load_corpus('grammar');"
        "print(len(c.train), c.entropy_floor, sorted(c.checksums.values()))"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "G2LSTM_CACHE": str(tmp_path / "both")}
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 200
    (folder,) = (tmp_path / "both").iterdir()
    assert len(list(folder.iterdir())) == 8  # nothing temporary is left


# Penn Treebank and WikiText-2


def test_data_folder_comes_first(tmp_path, monkeypatch, no_network):
    write(tmp_path / "data" / "ptb")
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(sys.modules, "datasets", None)  # not needed for local text
    with pytest.warns(UserWarning, match=r"not the published.*12 tokens.*published 929589"):
        corpus = load_corpus("ptb")
    assert corpus.name == "ptb"
    assert corpus.source == str(tmp_path / "data" / "ptb")


def test_checksums_tell_the_published_text_from_another(tmp_path, monkeypatch):
    write(tmp_path / "ptb")
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path))
    known = corpora._Published(
        corpora._PUBLISHED["ptb"].text,
        tokens={"train": 12, "valid": 4, "test": 7},
        checksums={s: hashlib.sha256(TEXTS[s].encode()).hexdigest() for s in corpora.SPLITS},
    )
    monkeypatch.setitem(corpora._PUBLISHED, "ptb", known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_corpus("ptb")
    write(tmp_path / "ptb", {"valid": "the dog ran\n"})
    with pytest.warns(UserWarning, match="valid has sha256") as caught:
        load_corpus("ptb")
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_data_folder_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"G2LSTM_DATA is '.*nowhere'"):
        load_corpus("ptb")


def test_data_folder_with_a_file_missing(monkeypatch, tmp_path, no_network):
    write(tmp_path / "ptb")
    (tmp_path / "ptb" / "train.txt").unlink()
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path))
    with pytest.raises(CorpusError, match=r"ptb/train\.txt is missing"):
        load_corpus("ptb")


@pytest.mark.parametrize(
    ("name", "repository", "revision", "files"),
    [
        ("ptb", "ptb-text-only/ptb_text_only", "refs/convert/parquet", hub_files()),
        (
            "wikitext-2",
            "Salesforce/wikitext",
            "main",
            hub_files("wikitext-2-v1", "text", "{}-00000-of-00001.parquet")
            | {"wikitext-103-v1/train-00000-of-00001.parquet": b"another"},
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is not the published text")
def test_local_hub_cache_is_used_without_network(
    hub_cache, no_network, name, repository, revision, files, tmp_path
):
    fill_cache(hub_cache.HF_HUB_CACHE, files, repository, revision)
    corpus = load_corpus(name)
    local = load_corpus(write(tmp_path / "tiny"))
    assert corpus.vocabulary.tokens == local.vocabulary.tokens
    for split in corpora.SPLITS:
        assert torch.equal(getattr(corpus, split), getattr(local, split))
    assert corpus.source.startswith(f"hub: {repository}@{revision}")
    lines = "the cat sat\nthe dog sat <unk>\nthe end\n"
    assert corpus.checksums["train"] == hashlib.sha256(lines.encode()).hexdigest()


def test_offline_mode_of_the_environment(tmp_path):
    """In a process of its own, because the libraries read the environment on import."""
    fill_cache(tmp_path / "home" / "hub", hub_files(), *PTB)
    code = """if True:
        import socket, time
        def refuse(*arguments): raise SystemExit("network touched")
        socket.socket.connect = socket.getaddrinfo = refuse
        from g2lstm.corpora import CorpusError, load_corpus
        print(len(load_corpus("ptb").train))
        start = time.perf_counter()
        try: load_corpus("wikitext-2")
        except CorpusError as error: print(error)
        print(time.perf_counter() - start < 1)
    """
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
    )
    count, message, fast = done.stdout.splitlines()
    assert count == "12"
    assert "HF_HUB_OFFLINE is set" in message
    assert "wikitext-2/" in message
    assert "G2LSTM_DATA" in message
    assert fast == "True"


def test_download_from_the_hub_and_then_the_cache(stand_in, hub_cache, tmp_path):
    with pytest.warns(UserWarning, match="published 929589"):
        first = load_corpus("ptb")
    assert any("resolve" in path for path in stand_in.asked)
    stand_in.asked.clear()
    with pytest.warns(UserWarning, match="published 929589"):
        second = load_corpus("ptb")
    assert stand_in.asked == []
    assert torch.equal(first.train, second.train)
    assert torch.equal(first.train, load_corpus(write(tmp_path / "tiny")).train)


def test_half_a_cache_is_completed_from_the_hub(stand_in, hub_cache):
    files = dict(list(hub_files().items())[:1])
    fill_cache(hub_cache.HF_HUB_CACHE, files, *PTB)
    with pytest.warns(UserWarning, match="published"):
        assert len(load_corpus("ptb").test) == 7
    assert any("resolve" in path for path in stand_in.asked)


def test_hub_without_a_split(stand_in):
    stand_in.files = {k: v for k, v in stand_in.files.items() if "validation" not in k}
    with pytest.raises(CorpusError, match="lacks parquet files of train, validation, test"):
        load_corpus("ptb")


def test_hub_with_another_field(stand_in):
    stand_in.files = hub_files(field="words")
    with pytest.raises(CorpusError, match="no field 'sentence'; its fields are: words"):
        load_corpus("ptb")


def test_failing_download(stand_in):
    stand_in.files = {}
    with pytest.raises(CorpusError, match=r"Put train\.txt, valid\.txt and test\.txt"):
        load_corpus("ptb")


def test_unreachable_hub_fails_at_once_with_the_remedy(hub_cache, monkeypatch, tmp_path):
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # not listening: connections are refused
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        monkeypatch.setattr(hub_cache, "ENDPOINT", endpoint)
        monkeypatch.setenv("G2LSTM_DATA", str(tmp_path))
        start = time.perf_counter()
        with pytest.raises(CorpusError) as caught:
            load_corpus("ptb")
    assert time.perf_counter() - start < 2
    message = str(caught.value)
    for part in (endpoint, "refused", "set G2LSTM_DATA", f"{tmp_path / 'ptb'} does not exist"):
        assert part in message


def test_silent_hub_fails_after_the_probe(hub_cache, monkeypatch):
    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(hub_cache, "ENDPOINT", endpoint)
        start = time.perf_counter()
        with pytest.raises(CorpusError, match="is not reachable"):
            load_corpus("wikitext-2")
    assert time.perf_counter() - start < 2


def test_name_look_up_that_hangs_fails_after_the_probe(hub_cache, monkeypatch):
    released = threading.Event()

    def look_up(*arguments, **keywords):
        released.wait(5)
        raise OSError("Name or service not known")

    monkeypatch.setattr(hub, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(hub.urllib.request, "urlopen", look_up)
    with pytest.raises(CorpusError, match=r"no answer in 0\.2 s"):
        load_corpus("wikitext-2")
    released.set()


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="pip install datasets"):
        load_corpus("ptb")


def test_words_that_training_lacks_are_counted_and_warned_of(tmp_path):
    texts = {"train": "a b\nb a", "valid": "a c\u2028c", "test": "d b"}
    for split, text in texts.items():
        (tmp_path / f"{split}.txt").write_text(text, encoding="utf-8")
    with pytest.warns(
        UserWarning, match="2 of 4 tokens of valid, 1 of 3 tokens of test were never"
    ):
        corpus = load_corpus(tmp_path)
    assert corpus.unseen == {"train": 0, "valid": 2, "test": 1}
    assert not corpus.knows_unknown
    # Where `<unk>` stands in the training text it means something.
    (tmp_path / "train.txt").write_text("a b <unk>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corpus = load_corpus(tmp_path)
    assert corpus.unseen == {"train": 0, "valid": 2, "test": 1}
    assert corpus.knows_unknown


@pytest.mark.parametrize("name", ["train.txt", "valid.txt", "test.txt"])
@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_is_no_file_is_refused_at_once(tmp_path, name, kind):
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}.txt").write_text("a b")
    (tmp_path / name).unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "device":
        (tmp_path / name).symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(tmp_path / name))
    with pytest.raises(CorpusError, match=f"{name} is a device, a pipe or a socket"):
        load_corpus(tmp_path)


def test_parts_that_a_killed_process_left_in_the_cache_go(tmp_path, monkeypatch):
    monkeypatch.setenv("G2LSTM_CACHE", str(tmp_path))
    monkeypatch.setattr(grammar, "SENTENCES", {"train": 30, "valid": 30, "test": 30})
    load_corpus("grammar")
    (folder,) = tmp_path.iterdir()
    old, young = folder / ".train.txt.abc.part", folder / ".test.txt.abc.part"
    old.touch()
    young.touch()
    os.utime(old, (0, 0))
    load_corpus("grammar")
    assert not old.exists()
    assert young.exists(), "another process may be writing it"
