"""Gates word by word against one plain recorded call; labels against the grammars' own truth."""

import copy
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from g2lstm import case_study
from g2lstm.alignment import FUNCTION_WORDS, contrast, unit_auc
from g2lstm.case_study import (
    TokenGates,
    is_punctuation,
    lowest_tenth,
    measure_alignment,
    text_gates,
)
from g2lstm.corpora import END, UNKNOWN
from g2lstm.grammar import read_annotations
from g2lstm.inspection import record_gates
from g2lstm.measurements import Trained
from g2lstm.subwords import BEGIN
from tiny_runs import PAIRS, text_corpus, untrained

KINDS = ("input", "forget")


pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def reader(corpora):
    return untrained()


@pytest.fixture(scope="module")
def translator(corpora):
    return untrained("translation")


def with_corpus(trained: Trained, **changes) -> Trained:
    """The same model with something else as its task's corpus."""
    task = copy.copy(trained.task)
    task.corpus = replace(task.corpus, **changes)
    return Trained(trained.run, trained.configuration, task)


def sharpest(found: TokenGates) -> None:
    """Gates of these models differ enough for a wrong order to be noticed."""
    assert found.gates["forget"].std() > 0.1


# Gates


def test_gates_of_a_text_are_those_of_one_call_over_its_strands(reader):
    found = text_gates(reader)
    tokens, model = reader.task.corpus.test, reader.model
    length = len(tokens) // 10
    assert length > 140, "several calls of 70 steps, state carried"
    strands = torch.stack([tokens[k * length : (k + 1) * length] for k in range(10)], 1)
    with record_gates(model) as records, torch.no_grad():
        model(strands)
    assert [record.input_gate.shape for record in records] == [(length, 10, 10), (length, 10, 8)]
    assert found.layers.tolist() == [0] * 10 + [1] * 8
    for kind in KINDS:
        assert found.gates[kind].shape == (10 * length, 18)
        for place in range(0, 10 * length, 7):
            strand, step = divmod(place, length)
            expected = [getattr(r, f"{kind}_gate")[step, strand] for r in records]
            np.testing.assert_allclose(found.gates[kind][place], torch.cat(expected), atol=1e-6)
    sharpest(found)


def test_sentences_are_numbered_in_the_order_of_the_text(reader):
    found = text_gates(reader)
    sentences = read_annotations(reader.task.corpus.source, "test")
    expected = [n for n, s in enumerate(sentences) for _ in range(len(s.tokens) + 1)]
    assert found.sentences.tolist() == expected[: len(found.sentences)]


def test_a_limit_keeps_the_first_tokens(reader):
    whole, part = text_gates(reader), text_gates(reader, limit=407)
    assert len(part.sentences) == 400
    for label, mask in part.labels.items():
        assert np.array_equal(mask, whole.labels[label][:400]), label
    np.testing.assert_allclose(  # the first strand of 40 tokens
        part.gates["input"][:40], whole.gates["input"][:40], atol=1e-6
    )
    valid = text_gates(reader, "valid").labels["end"].sum()
    assert 0 < valid < whole.labels["end"].sum()


def test_gates_are_those_of_evaluation_and_the_mode_is_left_as_it_was(reader):
    before = text_gates(reader, limit=200)
    reader.model.train()
    try:
        again = text_gates(reader, limit=200)
        assert reader.model.training
    finally:
        reader.model.eval()
    assert np.array_equal(before.gates["forget"], again.gates["forget"])


@pytest.mark.parametrize("input_feeding", [False, True])
def test_gates_of_a_translation_are_those_of_the_decoder_on_each_reference(corpora, input_feeding):
    trained = untrained("translation", overrides={"input_feeding": input_feeding})
    found = text_gates(trained)
    pairs, model = trained.task.pairs["test"], trained.model
    assert found.layers.tolist() == [layer for layer in range(3) for _ in range(10)]
    lengths = [len(target) for target in pairs.targets]
    assert found.sentences.tolist() == [n for n, k in enumerate(lengths) for _ in range(k)]
    assert len(set(lengths)) > 5, "batches have padding"
    for sentence in range(0, len(pairs), 3):
        source, target = pairs.sources[sentence], pairs.targets[sentence]
        memory = model.encode(torch.tensor(source)[:, None], torch.tensor([len(source)]))
        inputs = torch.tensor([BEGIN, *target])[:, None]
        with torch.no_grad(), record_gates(model) as records:
            model.decode(inputs, model.start(memory), memory)
        if input_feeding:  # of each step one record of the lower layer and two of the upper ones
            steps = [records[3 * t : 3 * t + 3] for t in range(1, len(inputs))]
            rows = {
                kind: [torch.cat([getattr(r, f"{kind}_gate")[0, 0] for r in s]) for s in steps]
                for kind in KINDS
            }
        else:
            rows = {
                kind: [
                    torch.cat([getattr(r, f"{kind}_gate")[t, 0] for r in records])
                    for t in range(1, len(inputs))
                ]
                for kind in KINDS
            }
        mine = found.sentences == sentence
        for kind in KINDS:
            np.testing.assert_allclose(found.gates[kind][mine], torch.stack(rows[kind]), atol=1e-5)
    sharpest(found)


def test_a_limit_keeps_the_first_pairs(translator):
    whole, part = text_gates(translator), text_gates(translator, limit=100)
    size = len(part.sentences)
    assert 0 < size + part.sentences[-1] + 1 <= 100 < size + part.sentences[-1] + 1 + 60
    assert np.array_equal(part.sentences, whole.sentences[:size])
    np.testing.assert_allclose(part.gates["input"], whole.gates["input"][:size], atol=1e-5)


# Labels


def test_labels_of_the_embedded_corpus_are_its_annotations(reader):
    found = text_gates(reader)
    truth = []
    for sentence in read_annotations(reader.task.corpus.source, "test"):
        truth += zip(
            sentence.tokens, sentence.word_classes, sentence.clause_boundaries, strict=True
        )
        truth.append((END, None, False))
    content = ("noun", "verb", "adjective", "adverb")
    classes = {kind for _, kind, _ in truth} - {None}
    unknown = reader.task.corpus.vocabulary.index[UNKNOWN]
    assert unknown in reader.task.corpus.test, "these words have their annotations too"
    assert found.labels.keys() == {
        "end", "boundary", "function", "content", "punctuation",
        *(f"word class {kind}" for kind in classes),
    }  # fmt: skip
    for place in range(len(found.sentences)):
        token, kind, boundary = truth[place]
        expected = {
            "end": token == END,
            "boundary": boundary,
            "content": kind in content,
            "punctuation": kind == "punctuation",
            "function": kind is not None and kind != "punctuation" and kind not in content,
            **{f"word class {name}": name == kind for name in classes},
        }
        assert {label: bool(mask[place]) for label, mask in found.labels.items()} == expected
    assert 0 < found.labels["boundary"].sum() < found.labels["function"].sum()


def test_annotations_of_another_text_are_refused(reader, tmp_path):
    folder = Path(reader.task.corpus.source)
    lines = (folder / "test.annotations.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "test.annotations.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match="do not belong to its test text"):
        text_gates(with_corpus(reader, source=str(tmp_path)))


WIRE = [
    "the cats do n't sleep .",
    "mr. <unk> said N % of the company 's cats of the town sleep",
    "but ` Prices fell N N to $ N , ' he said",
    "The old cats and the small dogs and the cats sleep near the town",
]


def test_labels_of_other_texts_go_by_lists_and_frequency(tmp_path):
    trained = untrained(corpus=text_corpus(tmp_path / "wire", WIRE * 8))
    found = text_gates(trained)
    words = [word for sentence in WIRE * 8 for word in (*sentence.split(), END)]
    words = words[: len(found.sentences)]
    function = ["the", "do", "n't", "of", "'s", "but", "to", ",", "he", "The", "and", "near", "'"]
    expected = {
        "end": {END},
        "function": set(function) - {","},
        "content": {
            "cats", "sleep", "mr.", "said", "N", "company", "town", "Prices", "fell", "old",
            "small", "dogs",
        },
        "punctuation": {".", "`", ","},
    }  # fmt: skip
    for label, members in expected.items():
        assert found.labels[label].tolist() == [word in members for word in words], label
    assert "boundary" not in found.labels
    index = trained.task.corpus.vocabulary.index
    size = len(index)
    assert 20 < size < 100
    names = [label for label in found.labels if label.startswith("frequency")]
    assert names == ["frequency rank 1-10", f"frequency rank 11-{size}"]
    for name, ranks in zip(names, (range(10), range(10, size)), strict=True):
        expected = [index[word] in ranks and word not in (END, UNKNOWN) for word in words]
        assert found.labels[name].tolist() == expected


def words_of(pieces: list[str]) -> list[tuple[str, bool]]:
    """Of each piece its whole word, or mark, and whether it is the first piece with a letter."""
    words: list[str] = []
    place: list[int] = []
    for piece in pieces:
        new = piece.startswith("▁") or not piece.isalnum() or not words[-1].strip("▁").isalnum()
        if new and words[-1:] != ["▁"]:  # a lone ▁ is the space in front of the next word
            words.append("")
        words[-1] += piece
        place.append(len(words) - 1)
    seen: set[int] = set()
    found = []
    for piece, at in zip(pieces, place, strict=True):
        letters = piece != "▁"
        found.append((words[at].strip("▁") if letters else "", letters and at not in seen))
        if letters:
            seen.add(at)
    return found


def test_labels_of_subwords_are_those_of_their_words(translator):
    found = text_gates(translator)
    subwords, targets = translator.task.target_subwords, translator.task.pairs["test"].targets
    words = [entry for target in targets for entry in words_of(subwords.readable(target))]
    text = " ".join(word for word, first in words if first)
    plain = " ".join(re.findall(r"\w+|[^\w\s]", " ".join(translator.task.corpus.test[1])))
    assert text == plain, "the words of this test are those of the text"
    assert sum(first for _, first in words) < 0.6 * len(words), "most words are several pieces"
    assert not found.labels["end"].any()
    for place, (word, _) in enumerate(words):
        function = word.lower() in FUNCTION_WORDS
        assert found.labels["function"][place] == function, word
        assert found.labels["content"][place] == (word.isalnum() and not function), word
        assert found.labels["punctuation"][place] == (word in tuple(".,?!")), word


def test_a_boundary_is_the_first_subword_of_a_reordered_clause(translator):
    found = text_gates(translator)
    task, total = translator.task, 0
    for number, (target, clauses) in enumerate(
        zip(task.pairs["test"].targets, task.corpus.clauses, strict=True)
    ):
        words = words_of(task.target_subwords.readable(target))
        starts = [place for place, (_, first) in enumerate(words) if first]
        text = [words[place][0] for place in starts]
        expected = set()
        for clause in clauses:
            parts = re.findall(r"\w+|[^\w\s]", clause)
            at = next(i for i in range(len(text)) if text[i : i + len(parts)] == parts)
            if at:  # a clause that opens the sentence is no boundary inside it
                expected.add(starts[at])
        boundary = found.labels["boundary"][found.sentences == number]
        assert set(np.flatnonzero(boundary).tolist()) == expected
        total += len(expected)
    assert total > PAIRS["test"] / 4
    assert "boundary" not in text_gates(translator, "valid").labels, "known of the test text only"


def test_what_follows_an_apostrophe_is_a_function_word(tmp_path):
    targets = ["The dog 's bone isn't Anna's", "He'll see O'Hara", "It’s a man &apos;s hat"]
    for split in ("train", "valid", "test"):
        for language in ("de", "en"):
            (tmp_path / f"{split}.{language}").write_text("".join(f"{t}\n" for t in targets * 3))
    trained = untrained("translation", corpus=str(tmp_path))
    found = text_gates(trained, limit=10**6)
    expected = [
        ["The", "'", "s", "'", "t", "'", "s"],
        ["He", "'", "ll"],
        ["It", "’", "s", "a", "s"],
    ]
    for number, words in enumerate(expected * 3):
        function = found.labels["function"][found.sentences == number]
        pieces = trained.task.target_subwords.readable(trained.task.pairs["test"].targets[number])
        marked = "".join(p if f else " " for p, f in zip(pieces, function, strict=True))
        assert re.findall(r"\w+|['’]", marked.replace("&apos;", "")) == words


# Contrasts and units


def test_contrasts_compare_the_groups_they_name(reader):
    text = text_gates(reader)
    found = measure_alignment(reader)
    words = ~text.labels["end"]
    boundary, function = text.labels["boundary"], text.labels["function"]
    groups = {
        "clause boundary - other words": (boundary, words & ~boundary),
        "clause boundary - other function words": (boundary, function & ~boundary),
        "function - content words": (function, text.labels["content"]),
        "end of sentence - words": (text.labels["end"], words),
    }
    keys = [(row["contrast"], row["gate"], row["layer"]) for row in found["contrasts"]]
    assert keys == [
        (name, kind, layer) for name in groups for kind in KINDS for layer in ("all", 0, 1)
    ]
    for row in found["contrasts"]:
        units = text.layers >= 0 if row["layer"] == "all" else text.layers == row["layer"]
        values = np.array([v[units].mean() for v in text.gates[row["gate"]]])
        expected = contrast(values, *groups[row["contrast"]], text.sentences).as_dict()
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    for row in found["means"]:
        mask = text.labels[row["label"]]
        assert row["tokens"] == mask.sum() > 0
        assert row["mean"] == pytest.approx(text.gates[row["gate"]][mask].mean(), rel=1e-5)
    assert {(row["label"], row["gate"]) for row in found["means"]} == {
        (label, kind) for label, mask in text.labels.items() if mask.any() for kind in KINDS
    }
    assert len(found["units"]) == 2 * len(groups)


def test_a_single_layer_is_compared_once(corpora):
    trained = untrained(overrides={"num_layers": 1, "tie_weights": False})
    found = measure_alignment(trained, limit=400)
    assert {row["layer"] for row in found["contrasts"]} == {"all"}


def test_rare_words_are_compared_where_there_are_ranges_of_frequency(tmp_path):
    trained = untrained(corpus=text_corpus(tmp_path / "wire", WIRE * 8))
    text, found = text_gates(trained), measure_alignment(trained)
    size = len(trained.task.corpus.vocabulary)
    (row,) = [
        row
        for row in found["contrasts"]
        if row["contrast"] == f"rare (rank 11-{size}) - frequent (rank 1-10)"
        and (row["gate"], row["layer"]) == ("forget", "all")
    ]
    rare, frequent = (
        text.gates["forget"].mean(1)[text.labels[f"frequency rank {ranks}"]]
        for ranks in (f"11-{size}", "1-10")
    )
    assert row["difference"] == pytest.approx(rare.mean() - frequent.mean(), rel=1e-4)
    pets = untrained(corpus=text_corpus(tmp_path / "pets", ["a cat sees the dog"] * 30))
    names = {row["contrast"] for row in measure_alignment(pets)["contrasts"]}
    assert names == {"function - content words", "end of sentence - words"}


def made_up(monkeypatch, random) -> tuple[np.ndarray, np.ndarray]:
    """A text of 40 sentences with gates at will: function words are every other token."""
    sentences = np.repeat(np.arange(40), 6)
    function = np.arange(240) % 2 == 0
    gates = random.uniform(size=(240, 9))
    labels = {"end": np.zeros(240, dtype=bool), "function": function, "content": ~function}
    labels["punctuation"] = np.zeros(240, dtype=bool)
    layers = np.repeat([0, 1], [4, 5])
    text = TokenGates(sentences, {"input": gates, "forget": gates[:, ::-1]}, layers, labels)
    monkeypatch.setattr(case_study, "text_gates", lambda trained, split, limit: text)
    return gates, sentences % 2 == 0


def test_the_best_unit_is_judged_on_sentences_it_was_not_chosen_on(monkeypatch):
    gates, even = made_up(monkeypatch, np.random.default_rng(0))
    function = np.arange(240) % 2 == 0
    gates[:, 6] = np.where(even, ~function, gates[:, 6])  # lower on function words, in even ones
    gates[:, 2] = np.where(even, gates[:, 2], function)  # in the others perfect
    found = measure_alignment(None)
    rows = {row["gate"]: row for row in found["units"]}
    assert len(found["units"]) == 2
    expected = unit_auc(gates[~even], function[~even], ~function[~even])
    assert 0.3 < expected[6] < 0.7
    for kind, layer, unit in (("input", 1, 2), ("forget", 0, 2)):  # the latter's are reversed
        assert (rows[kind]["layer"], rows[kind]["unit"]) == (layer, unit)
        assert rows[kind]["auc_chosen_on"] == 0
        assert rows[kind]["auc_held_out"] == pytest.approx(expected[6])


def test_no_best_unit_without_tokens_in_both_halves(monkeypatch):
    made_up(monkeypatch, np.random.default_rng(0))
    text = case_study.text_gates(None, "test", 0)
    text.labels["function"][:] = np.arange(240) < 6  # in sentence 0 only
    text.labels["content"][:] = np.arange(240) > 100
    found = measure_alignment(None)
    assert found["units"] == []
    assert [row["contrast"] for row in found["contrasts"] if row["layer"] == "all"] == (
        ["function - content words"] * 2
    )


def test_alignment_of_a_translation(translator):
    found = measure_alignment(translator)
    names = {row["contrast"] for row in found["contrasts"]}
    assert names == {
        "clause boundary - other words",
        "clause boundary - other function words",
        "function - content words",
    }
    assert {row["layer"] for row in found["contrasts"]} == {"all", 0, 1, 2}


@pytest.mark.parametrize("task", ["language-model", "translation"])
def test_the_lowest_tenth_counted_token_by_token(request, task):
    trained = request.getfixturevalue("reader" if task == "language-model" else "translator")
    text = text_gates(trained)
    tokens = [n for n in range(len(text.sentences)) if not text.labels["end"][n]]
    sentences = text.sentences.tolist()

    def marks(n):
        first = n == 0 or sentences[n] != sentences[n - 1]
        found = {
            "function word": bool(text.labels["function"][n]),
            "punctuation": bool(text.labels["punctuation"][n]),
            "clause start": first or bool(text.labels["boundary"][n]),
        }
        return found | {"any of them": any(found.values())}

    rows = measure_alignment(trained)["lowest_tenth"]
    layers = ["all", 0, 1] if task == "language-model" else ["all", 0, 1, 2]
    assert [row["layer"] for row in rows] == [layer for layer in layers for _ in range(4)]
    for row in rows:
        units = text.layers >= 0 if row["layer"] == "all" else text.layers == row["layer"]
        values = {n: text.gates["forget"][n][units].mean() for n in tokens}
        lowest = sorted(tokens, key=values.get)[: len(tokens) // 10]
        assert row["tokens"] == len(tokens)
        for name, group in (("share", lowest), ("base", tokens)):
            expected = sum(marks(n)[row["group"]] for n in group) / len(group)
            assert row[name] == pytest.approx(expected, abs=1e-9)
    assert len({row["share"] for row in rows}) > 4
    assert any(row["share"] != pytest.approx(row["base"], abs=0.05) for row in rows)


def test_where_no_clause_is_known_a_start_is_that_of_a_sentence(tmp_path):
    text = text_gates(untrained(corpus=text_corpus(tmp_path / "wire", WIRE * 8)))
    assert "boundary" not in text.labels
    rows = {row["group"]: row for row in lowest_tenth(text) if row["layer"] == "all"}
    words, sentences = sum(~text.labels["end"]), len(set(text.sentences))
    assert rows["clause start"]["base"] == pytest.approx(sentences / words)


@pytest.mark.parametrize(
    ("token", "expected"),
    [(".", True), ("--", True), ("&quot;", True), ("&apos;", True), ("n't", False),
     ("$", False), ("%", False), ("", False), ("a", False), ("&apos;s", False), ("`", True)],
)  # fmt: skip
def test_punctuation_is_marks_only_and_their_escapes(token, expected):
    assert is_punctuation(token) is expected
