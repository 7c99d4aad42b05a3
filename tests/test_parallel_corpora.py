"""Loading translated sentences: pairs, counts, the embedded corpus, a stand-in hub, errors."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from g2lstm import parallel_corpora, parallel_grammar
from g2lstm.corpora import CorpusError
from g2lstm.parallel_corpora import PARALLEL_NAMES, describe, load_parallel
from hub_stand_in import fill_cache, parquet

TEXTS = {
    "train.de": "Der Hund bellt.\n Die  Katze\tschläft. \nEin Vogel singt.\n",
    "train.en": "The dog barks.\nThe cat is asleep.\nA bird sings.\n",
    "valid.de": "Die Katze bellt.\n",
    "valid.en": "The cat barks.\n",
    "test.de": "Ein Hund schläft.\nDer Vogel!\n",
    "test.en": "A dog is asleep.\nThe bird!\n",
}
SPLITS = ("train", "valid", "test")
PUBLISHED = {  # repository, revision, files of the layout there
    "multi30k": ("bentrevett/multi30k", "main", "{}.jsonl", ("train", "val", "test")),
    "iwslt14": (
        *("bbaaaa/iwslt14-de-en-preprocess", "refs/convert/parquet", "de-en/{}/0000.parquet"),
        ("train", "validation", "test"),
    ),
    "wmt14": (
        *("wmt/wmt14", "main", "de-en/{}-00000-of-00001.parquet"),
        ("train", "validation", "test"),
    ),
}
pytestmark = pytest.mark.filterwarnings("ignore:.*is not the published corpus")


def write(folder, texts=TEXTS):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def rows(split, texts=TEXTS):
    sides = (texts[f"{split}.{language}"].split("\n")[:-1] for language in ("de", "en"))
    return [{"de": de, "en": en} for de, en in zip(*sides, strict=True)]


def hub_files(name, texts=TEXTS):
    _, _, pattern, names = PUBLISHED[name]
    files = {}
    for here, there in zip(SPLITS, names, strict=True):
        if name == "multi30k":
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(here, texts)]
            files[pattern.format(there)] = "".join(lines).encode()
        else:
            files[pattern.format(there)] = parquet({"translation": rows(here, texts)})
    return files


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("G2LSTM_DATA", raising=False)
    monkeypatch.setenv("G2LSTM_CACHE", str(tmp_path / "cache"))


# Folders


def test_a_folder_gives_pairs_of_text(tmp_path, no_network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        corpus = load_parallel(write(tmp_path / "tiny"))
    assert (corpus.name, corpus.source_language, corpus.target_language) == ("tiny", "de", "en")
    assert corpus.train == (
        ["Der Hund bellt.", "Die Katze schläft.", "Ein Vogel singt."],
        ["The dog barks.", "The cat is asleep.", "A bird sings."],
    )
    assert corpus.valid == (["Die Katze bellt."], ["The cat barks."])
    assert corpus.test[1] == ["A dog is asleep.", "The bird!"]
    assert corpus.checksums == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in TEXTS.items()
    }
    assert corpus.origin == str(tmp_path / "tiny")
    assert corpus.counts["train"] == {"pairs": 3, "kept": 3, "empty": 0, "too_long": 0}
    assert corpus.tokenised is None
    assert corpus.clauses is None


def test_the_other_direction(tmp_path):
    folder = write(tmp_path)
    there, back = load_parallel(folder), load_parallel(folder, source="en", target="de")
    assert (back.source_language, back.target_language) == ("en", "de")
    for split in SPLITS:
        assert getattr(back, split) == getattr(there, split)[::-1]
    assert back.checksums == there.checksums


def test_other_languages(tmp_path):
    write(tmp_path, TEXTS | {f"{split}.x-y": TEXTS[f"{split}.en"].upper() for split in SPLITS})
    corpus = load_parallel(tmp_path, "de", "x-y")
    assert corpus.valid == (["Die Katze bellt."], ["THE CAT BARKS."])


@pytest.mark.parametrize(
    ("train", "valid", "test"),
    [("train_subset", "val", "test2016"), ("train", "valid", "test_2016_flickr")],
)
def test_names_of_files(tmp_path, train, valid, test):
    stems = {"train": train, "valid": valid, "test": test}
    for name, text in TEXTS.items():
        split, language = name.split(".")
        write(tmp_path, {f"{stems[split]}.{language}": text})
    corpus = load_parallel(tmp_path)
    assert corpus.test == load_parallel(write(tmp_path / "usual")).test
    assert corpus.checksums["test.de"] == hashlib.sha256(TEXTS["test.de"].encode()).hexdigest()


def test_the_usual_name_of_a_file_comes_first(tmp_path):
    write(tmp_path, TEXTS | {"test2016.de": "x\n", "test2016.en": "x\n"})
    assert load_parallel(tmp_path).test[1] == ["A dog is asleep.", "The bird!"]


def test_a_path_may_be_a_string_or_relative(tmp_path, monkeypatch):
    write(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    assert load_parallel("tiny") == load_parallel(str(tmp_path / "tiny"))
    monkeypatch.chdir(tmp_path / "tiny")
    assert load_parallel(".").name == "tiny"


def test_line_ends_byte_order_mark_and_unicode_separators(tmp_path):
    text = "\ufeffder Hund\r\nzwei\u2028Worte ein\x0bmal\r\n".encode()
    corpus = load_parallel(write(tmp_path, dict.fromkeys(TEXTS, text)))
    assert corpus.train[0] == ["der Hund", "zwei Worte ein mal"]


def test_moses_tokenised_text_is_noticed(tmp_path):
    escaped = "It &apos;s here .\n&quot; No &quot; .\nHere .\n"
    texts = {name: escaped for name in TEXTS}
    assert load_parallel(write(tmp_path, texts)).tokenised == "moses"
    raw = 'It\'s here.\n"No", he said.\nWrite &quot; for a quote.\n'
    assert load_parallel(write(tmp_path, dict.fromkeys(TEXTS, raw))).tokenised is None


# Pairs that are left out


def test_pairs_with_an_empty_side_are_left_out_and_counted(tmp_path):
    gaps = {"train.de": "a\n\nc\n \ne\n", "train.en": "A\nB\n\t\n\nE\n"}
    corpus = load_parallel(write(tmp_path, TEXTS | gaps))
    assert corpus.train == (["a", "e"], ["A", "E"])
    assert corpus.counts["train"] == {"pairs": 5, "kept": 2, "empty": 3, "too_long": 0}


def test_empty_sides_in_test_are_left_out_with_a_warning(tmp_path):
    write(tmp_path, TEXTS | {"test.de": "a\n\nc\n", "test.en": "A\nB\nC\n"})
    with pytest.warns(UserWarning, match=r"left out: 1 of test\. Scores") as caught:
        corpus = load_parallel(tmp_path)
    assert caught[0].filename == __file__
    assert corpus.test == (["a", "c"], ["A", "C"])
    assert corpus.counts["test"] == {"pairs": 3, "kept": 2, "empty": 1, "too_long": 0}


def test_long_pairs_are_left_out_of_train_alone(tmp_path):
    long = {"de": "ab\na b\na b c\na\n", "en": "AB\nA B\nA\nA B C\n"}
    texts = {f"{split}.{language}": text for split in SPLITS for language, text in long.items()}
    corpus = load_parallel(write(tmp_path, texts), max_length=2)
    assert corpus.train == (["ab", "a b"], ["AB", "A B"])
    assert corpus.counts["train"] == {"pairs": 4, "kept": 2, "empty": 0, "too_long": 2}
    for split in ("valid", "test"):
        assert getattr(corpus, split)[0] == ["ab", "a b", "a b c", "a"]
        assert corpus.counts[split] == {"pairs": 4, "kept": 4, "empty": 0, "too_long": 2}


SENTENCE = st.lists(st.sampled_from(["der", "Hund", "bellt,", " ", "\t"]), max_size=5).map(" ".join)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(SENTENCE, SENTENCE), max_size=8), st.integers(1, 4))
def test_pairs_stay_together(tmp_path, pairs, limit):
    pairs = [("erstes", "first"), *pairs]
    text = {
        language: "".join(f"{pair[i]}\n" for pair in pairs)
        for i, language in enumerate(("de", "en"))
    }
    write(tmp_path, TEXTS | {"train.de": text["de"], "train.en": text["en"]})
    corpus = load_parallel(tmp_path, max_length=limit)
    expected = [
        (" ".join(s.split()), " ".join(t.split()))
        for s, t in pairs
        if 1 <= len(s.split()) <= limit and 1 <= len(t.split()) <= limit
    ]
    assert list(zip(*corpus.train, strict=True)) == expected
    counts = corpus.counts["train"]
    assert counts["kept"] == len(expected)
    assert counts["empty"] == sum(not s.split() or not t.split() for s, t in pairs)
    assert counts["kept"] + counts["empty"] + counts["too_long"] == counts["pairs"] == len(pairs)


def test_description_of_a_corpus(tmp_path):
    table = describe(load_parallel(write(tmp_path)))
    assert table.index.tolist() == list(SPLITS)
    assert table.columns.tolist() == [
        *("pairs", "kept", "empty", "too_long", "words de", "words en")
    ]
    assert table.loc["train"].tolist() == [3, 3, 0, 0, 9, 10]
    assert table.loc["test"].tolist() == [2, 2, 0, 0, 5, 6]


# Errors of local files


def test_files_out_of_step_are_named_with_their_lines(tmp_path):
    write(tmp_path, TEXTS | {"valid.en": "The cat barks.\nOne more.\n"})
    message = r"valid\.de has 1 lines, .*valid\.en has 2: line n"
    with pytest.raises(CorpusError, match=message):
        load_parallel(tmp_path)


@pytest.mark.parametrize("name", TEXTS)
def test_missing_file_is_named(tmp_path, name):
    write(tmp_path)
    (tmp_path / name).unlink()
    message = r"valid|test" if not name.startswith("train") else r"no training text in '..'"
    with pytest.raises(CorpusError, match=message) as caught:
        load_parallel(tmp_path)
    if not name.startswith("train"):
        assert f"{tmp_path / name} is missing: a folder of translated" in str(caught.value)
        assert "{train,valid,test}.{de,en}" in str(caught.value)


def test_folder_without_text_names_the_file_that_should_be_there(tmp_path):
    with pytest.raises(CorpusError, match=r"train\.de is missing"):
        load_parallel(tmp_path)


@pytest.mark.parametrize("text", ["", "\n", " \n\t\n"])
def test_empty_file_is_named(tmp_path, text):
    write(tmp_path, TEXTS | {"test.en": text})
    with pytest.raises(CorpusError, match=r"test\.en is empty"):
        load_parallel(tmp_path)


def test_undecodable_byte_is_located(tmp_path):
    write(tmp_path, TEXTS | {"valid.de": b"Der B\xe4r\n"})
    with pytest.raises(CorpusError, match=r"valid\.de .*byte 0xe4 at offset 5 \(line 1\).*iconv"):
        load_parallel(tmp_path)


def test_split_with_no_pair_left_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(CorpusError, match=r"train has no pair left of 3: 0 .* 3 with more than 1"):
        load_parallel(tmp_path, max_length=1)
    write(tmp_path, {"test.de": "a\n\n", "test.en": "\nb\n"})
    with pytest.raises(CorpusError, match=r"test has no pair left of 2: 2 with an empty side"):
        load_parallel(tmp_path)


@pytest.mark.parametrize("name", ["grammar", "multi30k", "folder"])
def test_languages_that_are_none(tmp_path, monkeypatch, small_grammar, name, no_network):
    write(tmp_path / "multi30k")
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path))
    where = tmp_path / "multi30k" if name == "folder" else name
    with pytest.raises(CorpusError, match="source and target are both 'en'"):
        load_parallel(where, source="en")
    with pytest.raises(CorpusError, match=r"no training text in 'fr'; languages there: de, en\."):
        load_parallel(where, target="fr")


@pytest.mark.parametrize("length", [0, -3])
def test_length_that_is_none(tmp_path, length):
    with pytest.raises(CorpusError, match=f"max_length is {length}"):
        load_parallel(write(tmp_path), max_length=length)


@pytest.mark.parametrize(("name", "close"), [("gramar", "grammar"), ("Multi-30k", "multi30k")])
def test_unknown_name_suggests_and_lists_names(name, close, no_network):
    with pytest.raises(CorpusError, match=f"{name}.*Did you mean '{close}'.*iwslt14, wmt14; or"):
        load_parallel(name)


def test_unknown_folder_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"nowhere.*neither a name nor a folder") as caught:
        load_parallel(tmp_path / "nowhere")
    assert "Did you mean" not in str(caught.value)


# The embedded corpus


@pytest.fixture
def small_grammar(monkeypatch):
    monkeypatch.setattr(parallel_grammar, "SENTENCES", {"train": 60, "valid": 10, "test": 40})


def test_embedded_corpus_is_generated_once(tmp_path, small_grammar, monkeypatch, no_network):
    first = load_parallel("grammar")
    assert first.name == "grammar"
    assert Path(first.origin).parent == tmp_path / "cache"
    pairs = parallel_grammar.read_pairs(first.origin)
    assert first.test == ([p.source for p in pairs], [p.target for p in pairs])
    assert [first.counts[split]["kept"] for split in SPLITS] == [60, 10, 40]
    assert first.tokenised is None
    monkeypatch.setattr(parallel_grammar, "generate_pairs", None)  # not to be called again
    assert load_parallel("grammar") == first


def test_clauses_stand_in_the_translations_of_the_embedded_corpus(small_grammar):
    corpus = load_parallel("grammar")
    assert len(corpus.clauses) == len(corpus.test[1])
    assert sum(map(len, corpus.clauses)) > 5
    for clauses, target in zip(corpus.clauses, corpus.test[1], strict=True):
        assert all(clause in target for clause in clauses)
    back = load_parallel("grammar", source="en", target="de")
    assert back.clauses is None
    assert back.test == corpus.test[::-1]


@pytest.mark.parametrize("harm", ["manifest.json", "test.clauses.jsonl", "train.de", "cut"])
def test_a_broken_cache_is_mended(small_grammar, harm):
    first = load_parallel("grammar")
    if harm == "cut":
        path = Path(first.origin) / "valid.en"
        path.write_bytes(path.read_bytes()[:50])
    else:
        (Path(first.origin) / harm).unlink()
    with pytest.warns(UserWarning, match="made anew"):
        assert load_parallel("grammar") == first
    assert (Path(first.origin) / "manifest.json").exists()


def test_another_grammar_has_another_place(small_grammar, monkeypatch):
    first = load_parallel("grammar")
    monkeypatch.setattr(parallel_grammar, "fingerprint", lambda: "another")
    assert load_parallel("grammar").origin != first.origin


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, small_grammar):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("G2LSTM_CACHE", str(tmp_path / "file"))
    with pytest.raises(CorpusError, match="Set G2LSTM_CACHE"):
        load_parallel("grammar")


# Published corpora


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("multi30k", "multi30k"),
        ("multi30k", "multi30k-de-en"),
        ("iwslt14", "iwslt14"),
        ("iwslt14", "iwslt14-de-en"),
        ("wmt14", "wmt14"),
        ("wmt14", "wmt14-en-de"),
        ("wmt14", "wmt14-en-de-sample"),
    ],
)
def test_data_folder_comes_first(tmp_path, monkeypatch, no_network, name, folder):
    write(tmp_path / folder)
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path))
    monkeypatch.setitem(sys.modules, "datasets", None)  # not needed for local text
    for languages in (("de", "en"), ("en", "de")):
        corpus = load_parallel(name, *languages)
        assert corpus.name == name
        assert corpus.origin == str(tmp_path / folder)
        assert corpus.train == load_parallel(tmp_path / folder, *languages).train


def test_other_sizes_than_the_published_ones_are_told(tmp_path, monkeypatch):
    write(tmp_path / "wmt14")
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path))
    message = r"train has 3 pairs, published 4508785; .*test has 2 pairs, published 3003\. BLEU"
    with pytest.warns(UserWarning, match=message) as caught:
        load_parallel("wmt14")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    known = parallel_corpora._PUBLISHED["wmt14"]
    known = replace(known, pairs={"train": (3,), "valid": (5, 1), "test": (2,)})
    monkeypatch.setitem(parallel_corpora._PUBLISHED, "wmt14", known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_parallel("wmt14", max_length=3)  # one that is too long is not one that is missing


def test_published_sizes():
    sizes = {n: tuple(p.pairs.values()) for n, p in parallel_corpora._PUBLISHED.items()}
    assert sizes["multi30k"] == ((29_000,), (1_014,), (1_000,))
    assert sizes["iwslt14"] == ((160_239,), (7_283,), (6_750,))
    newstest2012, newstest2013, newstest2014 = 3_003, 3_000, 3_003
    assert set(sizes["wmt14"][1]) == {newstest2013, newstest2012 + newstest2013}
    assert sizes["wmt14"][2] == (newstest2014,)
    assert tuple(sizes) == PARALLEL_NAMES[1:]


def test_data_folder_that_is_none(monkeypatch, tmp_path):
    monkeypatch.setenv("G2LSTM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(CorpusError, match=r"G2LSTM_DATA is '.*nowhere'"):
        load_parallel("iwslt14")


@pytest.mark.parametrize("name", PUBLISHED)
def test_local_hub_cache_is_used_without_network(hub_cache, no_network, name, tmp_path):
    repository, revision, _, _ = PUBLISHED[name]
    fill_cache(hub_cache.HF_HUB_CACHE, hub_files(name), repository, revision)
    corpus, local = load_parallel(name), load_parallel(write(tmp_path / "tiny"))
    for split in SPLITS:
        assert getattr(corpus, split) == getattr(local, split)
    assert corpus.counts == local.counts
    assert corpus.origin.startswith(f"hub: {repository}@{revision}")
    lines = "Der Hund bellt.\nDie  Katze\tschläft.\nEin Vogel singt.\n"
    assert corpus.checksums["train.de"] == hashlib.sha256(lines.encode()).hexdigest()
    assert load_parallel(name, "en", "de").train == local.train[::-1]


@pytest.mark.parametrize("name", PUBLISHED)
def test_download_from_the_hub_and_then_the_cache(hub_server, name):
    hub_server.files = hub_files(name) | {"README.md": b"text", "other/train.jsonl.gz": b"no"}
    first = load_parallel(name)
    resolved = {path for path in hub_server.asked if "/resolve/" in path}
    assert {path.split("/resolve/")[1].partition("/")[2] for path in resolved} == set(
        hub_files(name)
    )
    hub_server.asked.clear()
    assert load_parallel(name) == first
    assert hub_server.asked == []


def test_missing_parts_of_a_split_are_fetched(hub_server, hub_cache):
    files = hub_files("wmt14")
    whole = files.pop("de-en/train-00000-of-00001.parquet")
    parts = {f"de-en/train-0000{i}-of-00002.parquet": whole for i in range(2)}
    fill_cache(hub_cache.HF_HUB_CACHE, files | dict(list(parts.items())[1:]), "wmt/wmt14")
    hub_server.files = files | parts
    assert load_parallel("wmt14").counts["train"]["pairs"] == 6
    assert any("/resolve/" in path for path in hub_server.asked)


def test_a_value_that_is_missing_is_an_empty_side(hub_cache):
    files = hub_files("multi30k")
    files["train.jsonl"] += b'{"de": null, "en": "Nothing."}\n'
    fill_cache(hub_cache.HF_HUB_CACHE, files, "bentrevett/multi30k")
    assert load_parallel("multi30k").counts["train"] == {
        **{"pairs": 4, "kept": 3, "empty": 1, "too_long": 0}
    }


def test_a_damaged_download_is_named(hub_cache):
    files = hub_files("multi30k") | {"val.jsonl": b'{"de": "Der Hund'}
    fill_cache(hub_cache.HF_HUB_CACHE, files, "bentrevett/multi30k")
    with pytest.raises(CorpusError, match=r"files of bentrevett/multi30k@main cannot be read"):
        load_parallel("multi30k")


def test_a_language_the_hub_does_not_have(no_network):
    with pytest.raises(CorpusError, match=r"wmt14 has no 'fr'; its languages: de, en\."):
        load_parallel("wmt14", "fr", "en")


def test_offline_mode_of_the_environment_and_the_remedy(tmp_path):
    """In a process of its own, because the libraries read the environment on import."""
    code = """if True:
        import socket
        def refuse(*arguments): raise SystemExit("network touched")
        socket.socket.connect = socket.getaddrinfo = refuse
        from g2lstm.corpora import CorpusError
        from g2lstm.parallel_corpora import load_parallel
        try: load_parallel("multi30k")
        except CorpusError as error: print(error)
    """
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path / "home"),
        "G2LSTM_DATA": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    for part in (
        "HF_HUB_OFFLINE is set",
        f"{tmp_path / 'multi30k'} does not exist",
        "Put {train,valid,test}.{de,en}, one sentence a line, into a folder multi30k/",
        "G2LSTM_DATA",
    ):
        assert part in done.stdout
