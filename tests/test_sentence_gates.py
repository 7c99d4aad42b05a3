"""Gates word by word against one plain recorded call for each word."""

import pytest
import torch

from g2lstm.beam_search import Hypothesis
from g2lstm.corpora import END
from g2lstm.experiments import configure
from g2lstm.inspection import record_gates
from g2lstm.sentence_gates import (
    GRAMMAR_PAIR,
    OWN_SOURCES,
    PAPER_SENTENCES,
    case_sentences,
    gates_at,
    sentence_gates,
)
from g2lstm.subwords import BEGIN
from g2lstm.subwords import END as END_OF_SENTENCE
from tiny_runs import text_corpus, untrained

KINDS = ("input", "forget")
WIRE = [
    "the cats do n't sleep .",
    "mr. <unk> said N % of the company 's cats of the town sleep",
    "but ` Prices fell N N to $ N , ' he said",
    "The old cats and the small dogs and the cats sleep near the town",
]

pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def reader(corpora):
    return untrained()


@pytest.fixture(scope="module")
def translator(corpora):
    return untrained("translation", overrides={"encoder_layers": 2})


def test_a_sentence_is_read_after_an_end_mark(reader):
    vocabulary = reader.task.corpus.vocabulary
    index = vocabulary.index
    tokens = reader.task.corpus.train.tolist()
    words = vocabulary.decode(tokens[: tokens.index(index[END])])
    assert len(words) > 5
    found = sentence_gates(reader, " ".join(words))
    assert found["words"] == words
    assert found["unknown"] == []
    state, means = None, {kind: [] for kind in KINDS}
    for word in (END, *words):
        with torch.no_grad(), record_gates(reader.model) as records:
            state = reader.model(torch.tensor([[index[word]]]), state).state
        for kind in KINDS:
            values = [float(v) for r in records for v in getattr(r, f"{kind}_gate").flatten()]
            means[kind].append(sum(values) / len(values))
    for kind in KINDS:
        assert found[kind] == pytest.approx(means[kind][1:], abs=1e-6)


def test_unknown_words_are_read_as_such_and_named(reader):
    found = sentence_gates(reader, "the Zyzzyva sleeps 2002 <unk> .")
    assert found["words"] == ["the", "Zyzzyva", "sleeps", "2002", "<unk>", "."]
    assert found["unknown"] == ["Zyzzyva", "2002", "<unk>"]
    same = sentence_gates(reader, "the <unk> sleeps <unk> <unk> .")
    assert found["forget"] == same["forget"]


def test_numbers_are_read_as_the_corpus_writes_them(tmp_path):
    trained = untrained(corpus=text_corpus(tmp_path / "wire", [*WIRE, "since 1987 it sleeps"] * 8))
    found = sentence_gates(trained, "The Cats fell 2002 1,234.5 1987 . -- 4th in Town")
    assert found["words"] == [
        "The",
        "cats",
        "fell",
        "N",
        "N",
        "1987",
        ".",
        "--",
        "4th",
        "in",
        "town",
    ]
    assert found["unknown"] == ["--", "4th", "in"]
    paper = sentence_gates(trained, PAPER_SENTENCES[0])
    assert paper["words"][6] == "N"


@pytest.mark.parametrize("sentence", ["", "  \n"])
def test_an_empty_sentence_is_refused(reader, sentence):
    with pytest.raises(ValueError, match="sentence is empty"):
        sentence_gates(reader, sentence)


def test_of_a_language_model_each_layer_can_be_asked_for(reader):
    index = reader.task.corpus.vocabulary.index
    found = sentence_gates(reader, "the thief whistles .")
    assert list(found["places"]) == ["all layers", "layer 1", "layer 2"]
    tokens = torch.tensor([[index[word]] for word in (END, "the", "thief", "whistles", ".")])
    with torch.no_grad(), record_gates(reader.model) as records:
        reader.model(tokens)
    for place, record in zip(("layer 1", "layer 2"), records, strict=True):
        for kind in KINDS:
            expected = getattr(record, f"{kind}_gate")[1:, 0].mean(1).tolist()
            assert gates_at(found, place)[kind] == pytest.approx(expected, abs=1e-6)
    assert gates_at(found) == {kind: found[kind] for kind in KINDS} == found["places"]["all layers"]
    with pytest.raises(ValueError, match="'decoder layer 1', only at: all layers; layer 1; layer"):
        gates_at(found, "decoder layer 1")


def test_of_an_old_record_there_is_only_the_papers_place():
    old = {"words": ["a"], "unknown": [], "input": [0.5], "forget": [0.25]}
    assert gates_at(old) == {"input": [0.5], "forget": [0.25]}
    with pytest.raises(ValueError, match="only at: the paper's, which is the default"):
        gates_at(old, "layer 1")


def expected_of(trained, source, target):
    """By place and kind [T] the mean over units: source with end mark, begin mark and target."""
    model = trained.model
    records_of = {}
    with torch.no_grad(), record_gates(model) as records:
        read = torch.tensor([*source, END_OF_SENTENCE])[:, None]
        memory = model.encode(read, torch.tensor([len(read)]))
        names = ["encoder layer 1", "encoder layer 1, backwards", "encoder layer 2"]
        records_of |= dict(zip(names, records, strict=True))
        records.clear()
        model.decode(torch.tensor([BEGIN, *target])[:, None], model.start(memory), memory)
        names = [f"decoder layer {n}" for n in (1, 2, 3)]
        records_of |= dict(zip(names, records, strict=True))
    return {
        place: {kind: getattr(r, f"{kind}_gate")[:, 0].mean(1).tolist() for kind in KINDS}
        for place, r in records_of.items()
    }


def as_raw_text(sentence):
    """Marks as the raw text of the corpus has them."""
    return sentence.replace(" ,", ",").replace(" .", ".")


def by_word(values, pieces):
    """Means over the pieces of each word: a piece that starts with a space or a mark starts one."""
    groups = []
    for value, piece in zip(values, pieces, strict=True):
        if piece.startswith("▁") or piece in tuple(".,"):
            groups.append([])
        groups[-1].append(value)
    return [sum(group) / len(group) for group in groups]


def test_a_translation_is_read_by_the_decoder_with_its_source(translator):
    target = "The tired queen helps the baker , and they sleep ."
    source = "Die müde Königin hilft dem Bäcker, und sie schlafen."
    found = sentence_gates(translator, target, source)
    assert found["words"] == target.split()
    assert found["source_words"] == source.split()
    assert (found["source"], found["unknown"]) == ("given", [])
    raw = as_raw_text(target)
    sides = translator.task.source_subwords, translator.task.target_subwords
    encoded = [side.encode([text])[0] for side, text in zip(sides, (source, raw), strict=True)]
    expected = expected_of(translator, *encoded)
    assert list(found["places"]) == list(expected)
    pieces = [side.readable(tokens) for side, tokens in zip(sides, encoded, strict=True)]
    assert len(pieces[1]) > len(target.split()) + 4, "several subwords in some words"
    for place, kinds in expected.items():
        for kind in KINDS:
            if place.startswith("encoder"):  # here "Bäcker," is one word of the source
                joined = [p for p in pieces[0] if p not in tuple(".,")]
                assert len(found["places"][place][kind]) == len(source.split()) < len(joined)
                first = [p.startswith("▁") for p in pieces[0]]
                values = kinds[kind][: first.index(True, 1)]
                mean = sum(values) / len(values)
                assert found["places"][place][kind][0] == pytest.approx(mean, abs=1e-5)
            else:
                words = by_word(kinds[kind][1:], pieces[1])
                assert found["places"][place][kind] == pytest.approx(words, abs=1e-5)
    assert gates_at(found) == found["places"]["decoder layer 1"]


def test_with_input_feeding_too(corpora):
    translator = untrained("translation", overrides={"input_feeding": True})
    found = sentence_gates(translator, **GRAMMAR_PAIR)
    sides = translator.task.source_subwords, translator.task.target_subwords
    source, target = (
        side.encode([as_raw_text(GRAMMAR_PAIR[name])])[0]
        for side, name in zip(sides, ("source", "sentence"), strict=True)
    )
    model = translator.model
    values = []
    with torch.no_grad(), record_gates(model.decoder) as records:
        read = torch.tensor([*source, END_OF_SENTENCE])[:, None]
        memory = model.encode(read, torch.tensor([len(read)]))
        model.decode(torch.tensor([BEGIN, *target])[:, None], model.start(memory), memory)
        values = [float(r.forget_gate.mean()) for r in records][1:]
    words = by_word(values, sides[1].readable(target))
    assert found["forget"] == pytest.approx(words, abs=1e-5)


@pytest.mark.parametrize(("split", "name"), [("train", "training"), ("test", "test")])
def test_without_a_source_it_is_that_of_the_pair_with_this_target(translator, split, name):
    corpus = translator.task.corpus
    sources, targets = getattr(corpus, split)
    seen = {t for s in ("test", "valid") for t in getattr(corpus, s)[1]} if split == "train" else ()
    number = next(n for n in range(5, len(targets)) if targets[n] not in (*seen, *targets[:n]))
    tokenised = targets[number].replace(".", " .").lower()
    found = sentence_gates(translator, tokenised)
    assert found["source"] == f"{name} pair {number + 1}"
    given = sentence_gates(translator, tokenised, sources[number])
    assert found["forget"] == given["forget"]
    assert "source_words" not in found, "text of the corpus is not kept"
    assert list(found["places"]) == [f"decoder layer {n}" for n in (1, 2, 3)]


def test_a_source_alone_is_translated_first(translator):
    source = GRAMMAR_PAIR["source"]
    encoded = translator.task.source_subwords.encode([as_raw_text(source)])[0]
    (text,), (hypothesis,) = translator.task.translate([[*encoded, END_OF_SENTENCE]])
    words = text.split()
    assert len(words) > 5
    found = sentence_gates(translator, source=source)
    assert found["words"] == words
    values = expected_of(translator, encoded, hypothesis.tokens)["decoder layer 1"]["forget"][1:]
    pieces = translator.task.target_subwords.readable(hypothesis.tokens)
    place, expected = -int(pieces[0].startswith("▁")), [[] for _ in words]
    for value, piece in zip(values, pieces, strict=True):
        place += piece.startswith("▁")
        expected[place].append(value)
    assert found["forget"] == pytest.approx([sum(v) / len(v) for v in expected], abs=1e-5)


def test_a_translation_into_nothing_is_refused(translator, monkeypatch):
    empty = [""], [Hypothesis([], 0.0, 0.0, True)]
    monkeypatch.setattr(translator.task, "translate", lambda sources: empty)
    with pytest.raises(ValueError, match="translates 'Die Katze' into nothing"):
        sentence_gates(translator, source="Die Katze")


def test_the_papers_sentences_have_a_source_of_our_own(translator):
    for sentence in PAPER_SENTENCES:
        found = sentence_gates(translator, sentence)
        assert found["source"] == "our own translation"
        assert found["source_words"] == OWN_SOURCES[sentence].split()
        assert found["words"] == sentence.replace("&apos;", "'").split()
        assert (
            found["forget"] == sentence_gates(translator, sentence, OWN_SOURCES[sentence])["forget"]
        )
        assert len(found["input"]) == len(sentence.split())


def test_characters_that_the_subwords_lack_are_named(translator):
    found = sentence_gates(translator, "the ☃ sleeps 漢字x .", "Die Katze schläft.")
    assert found["unknown"] == ["☃", "漢字x"]
    assert len(found["forget"]) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sentence": "no such pair ."}, "no pair of the corpus grammar has the target 'no such"),
        ({}, "give a sentence, a source or both"),
        ({"sentence": " ", "source": "Die Katze"}, "sentence is empty"),
        ({"sentence": "the cat", "source": ""}, "source is empty"),
    ],
)
def test_a_translation_needs_a_source(translator, arguments, message):
    with pytest.raises(ValueError, match=message):
        sentence_gates(translator, **arguments)


def test_a_language_model_has_no_source(reader):
    with pytest.raises(ValueError, match="a language model has no source, got source='die Katze'"):
        sentence_gates(reader, "the cat sleeps .", "die Katze")


@pytest.mark.parametrize(
    ("settings", "sentences"),
    [
        ({"corpus": "ptb"}, list(PAPER_SENTENCES)),
        ({"task": "translation", "corpus": "iwslt14"}, list(PAPER_SENTENCES)),
        ({"task": "translation"}, [GRAMMAR_PAIR["sentence"]]),
        ({"task": "translation", "corpus": "wmt14", "languages": "en-de"}, []),
    ],
)
def test_the_sentences_of_the_case_study(settings, sentences):
    found = case_sentences(configure(**settings))
    assert [chosen["sentence"] for chosen in found] == sentences


def test_the_sentences_of_the_grammars_are_of_their_words(corpora):
    (pair,) = case_sentences(configure(task="translation"))
    assert sentence_gates(untrained("translation"), **pair)["unknown"] == []
