"""The paper's case study: mean gate values word by word, of one sentence and at one place."""

import re
import unicodedata
from typing import Any

import numpy as np
import torch
from sacremoses import MosesDetokenizer

from g2lstm.batches import Pairs, collate
from g2lstm.corpora import END, UNKNOWN
from g2lstm.experiments import Configuration
from g2lstm.gate_profile import ALL_LAYERS, PAPER_PLACES, place_name
from g2lstm.inspection import recorded
from g2lstm.measurements import Measurement, Trained
from g2lstm.paper import SENTENCES
from g2lstm.subwords import END as END_OF_SENTENCE
from g2lstm.subwords import UNKNOWN as UNKNOWN_SUBWORD
from g2lstm.subwords import Subwords
from g2lstm.translation_task import TranslationTask

PAPER_SENTENCES = tuple(sentence["words"] for sentence in SENTENCES)
# Of our own, for the paper gives no source.
OWN_SOURCES = dict(
    zip(
        PAPER_SENTENCES,
        (
            "die zahlen haben sich seit 2002 nicht bewegt und gehen in die falsche richtung .",
            "die wirtschaft der usa ist immer noch die größte wirtschaft der welt .",
        ),
        strict=True,
    )
)
# Of the embedded grammars: a relative clause, and a second main clause after "and"; a reordered
# subordinate clause inside another.
GRAMMAR_SENTENCE = (
    "our thief who is beside our kitchen always whistles , and the queen thanks a dog ."
)
GRAMMAR_PAIR = {
    "sentence": "Our children did not sleep when the mice that woke up were old .",
    "source": "Unsere Kinder haben nicht geschlafen , als die Mäuse , die aufgewacht sind , "
    "alt waren .",
}
KINDS = ("input", "forget")
GIVEN, OWN = "given", "our own translation"


def case_sentences(configuration: Configuration) -> list[dict[str, str]]:
    """The sentences of the case study: arguments of `sentence_gates`.

    Both of the paper's, on the embedded corpora one of the grammar; none where a translation is
    not into English.
    """
    translation = configuration.task == "translation"
    if translation and not configuration.languages.endswith("-en"):
        return []
    if configuration.corpus != "grammar":
        return [{"sentence": sentence} for sentence in PAPER_SENTENCES]
    if translation:
        return [GRAMMAR_PAIR] if configuration.languages == "de-en" else []
    return [{"sentence": GRAMMAR_SENTENCE}]


def sentence_gates(
    trained: Trained, sentence: str | None = None, source: str | None = None
) -> dict[str, Any]:
    """Mean gate values over the units of each place, word by word, as in the paper's case study.

    Evaluation mode. A language model reads an end mark first. The decoder of a translation reads
    the sentence after its begin mark (teacher forcing); a word of several subwords has the mean
    over them.

    Args:
        trained: a run.
        sentence: words between white space, as the corpus writes them; of a translation the
            target, by default the model's own translation of ``source``.
        source: of a translation; by default that of the first test, validation or training pair
            whose target has the same letters, else, for the paper's sentences from German, a
            translation of our own.

    Returns:
        ``words`` and ``unknown`` (those of them that the vocabulary lacks); ``places``: by
        `gate_profile.place_name`, by "input" and "forget", the mean at each word; "input" and
        "forget" themselves are those of the paper's place. Of a translation also ``source``, where
        it comes from; ``source_words``, to which the encoder's values belong; for a source from a
        pair of the corpus neither these words nor the encoder's values are among them.

    Raises:
        ValueError: an empty sentence or translation; a source given to a language model; no source
            is known.
    """
    for name, text in (("sentence", sentence), ("source", source)):
        if text is not None and not text.split():
            raise ValueError(f"{name} is empty: give words between white space")
    if trained.configuration.task == "translation":
        found = _of_translation(trained, sentence, source)
    elif source is not None:
        raise ValueError(f"a language model has no source, got source={source!r}")
    elif sentence is None:
        raise ValueError("give a sentence, words between white space")
    else:
        found = _of_language_model(trained, sentence)
    return found | found["places"][PAPER_PLACES[trained.configuration.task]]


def gates_at(found: dict[str, Any], place: str | None = None) -> dict[str, list[float]]:
    """Words' gate values at a place, by "input" and "forget".

    Args:
        found: as `sentence_gates` returns it; records made before places were told apart have the
            paper's only.
        place: default: the paper's.

    Raises:
        ValueError: there is no such place; names those there are.
    """
    if place is None:
        return {kind: found[kind] for kind in KINDS}
    if place not in found.get("places", {}):
        known = "; ".join(found.get("places", {})) or "the paper's, which is the default"
        raise ValueError(f"there are no gates at place {place!r}, only at: {known}")
    return found["places"][place]


def _of_language_model(trained: Trained, sentence: str) -> dict[str, Any]:
    vocabulary = trained.task.corpus.vocabulary
    words = [_as_in(vocabulary.index, word) for word in sentence.split()]
    indices = vocabulary.encode([END, *words])
    inputs = torch.tensor(indices, device=trained.model.embedding.weight.device)[:, None]
    values = _values(trained, lambda: trained.model(inputs))
    every = {kind: np.concatenate([v[kind] for v in values.values()], axis=1) for kind in KINDS}
    each = range(1, len(indices))
    return {
        "words": words,
        "unknown": [word for word in words if word not in vocabulary.index or word == UNKNOWN],
        "places": {
            place: {kind: of[kind][each].mean(1).tolist() for kind in KINDS}
            for place, of in ({ALL_LAYERS: every} | values).items()
        },
    }


def _of_translation(trained: Trained, sentence: str | None, source: str | None) -> dict[str, Any]:
    task = trained.task
    read, source_words, origin = _source(task, sentence, source)
    if sentence is None:
        (text,), (hypothesis,) = task.translate([read])
        words, target = text.split(), hypothesis.tokens
        if not words:
            raise ValueError(f"the model translates {source!r} into nothing: give a sentence too")
        word_of = _words_of(words, target, task.target_subwords)
    else:
        words, target, word_of = _in_subwords(task, sentence, task.target_subwords)
    batch = collate(Pairs([read], [target]), [0], task.model.output_bias.device)
    given = batch.source, batch.source_lengths, batch.inputs
    places = {}
    for place, of in _values(trained, lambda: task.model(*given)).items():
        encoder = place.startswith("encoder")
        if encoder and source_words is None:
            continue
        # The decoder's first step reads the begin mark, the encoder's last one the end mark.
        of_words = source_words[1] if encoder else word_of
        first = 0 if encoder else 1
        places[place] = {
            kind: [
                float(of[kind][first + np.flatnonzero(np.equal(of_words, word))].mean())
                for word in range(max(of_words) + 1)
            ]
            for kind in KINDS
        }
    unknown = {word for word, i in zip(word_of, target, strict=True) if i == UNKNOWN_SUBWORD}
    return {
        "words": words,
        "unknown": [words[word] for word in sorted(unknown)],
        "source": origin,
        **({} if source_words is None else {"source_words": source_words[0]}),
        "places": places,
    }


def _values(trained: Trained, call: Any) -> dict[str, dict[str, np.ndarray]]:
    """By place and kind [T, H] of one sentence."""
    parts: dict[str, dict[str, list[np.ndarray]]] = {}
    for record in recorded(trained.model, False, call):  # with input feeding, one a step
        kinds = parts.setdefault(place_name(vars(record)), {kind: [] for kind in KINDS})
        for kind in KINDS:
            kinds[kind].append(getattr(record, f"{kind}_gate")[:, 0].double().cpu().numpy())
    return {
        place: {kind: np.concatenate(values) for kind, values in of.items()}
        for place, of in parts.items()
    }


def _source(
    task: TranslationTask, sentence: str | None, source: str | None
) -> tuple[list[int], tuple[list[str], list[int]] | None, str]:
    """The source as the encoder reads it, its words with the word of each subword, its origin."""
    origin = GIVEN
    if source is None:
        if sentence is None:
            raise ValueError("give a sentence, a source or both: words between white space")
        letters = _letters(sentence)
        for split in ("test", "valid", "train"):
            for number, target in enumerate(getattr(task.corpus, split)[1]):
                if _letters(target) == letters:
                    name = "validation" if split == "valid" else "training"
                    name = "test" if split == "test" else name
                    return task.pairs[split].sources[number], None, f"{name} pair {number + 1}"
        if task.corpus.source_language != "de" or sentence not in OWN_SOURCES:
            raise ValueError(
                f"no pair of the corpus {task.corpus.name} has the target {sentence!r}: "
                "give its source too"
            )
        source, origin = OWN_SOURCES[sentence], OWN
    words, read, word_of = _in_subwords(task, source, task.source_subwords)
    return [*read, END_OF_SENTENCE], (words, word_of), origin


def _in_subwords(
    task: TranslationTask, sentence: str, subwords: Subwords
) -> tuple[list[str], list[int], list[int]]:
    """Words between white space, subwords, and the word of each subword.

    Where the corpus is raw text, marks are put where they stand in such text.
    """
    words = unicodedata.normalize("NFC", sentence).split()
    text = " ".join(words)
    if task.corpus.tokenised is None:
        words = [word.replace("&apos;", "'").replace("&quot;", '"') for word in words]
        text = MosesDetokenizer().detokenize(words)
        if text.replace(" ", "") != "".join(words):  # it changed more than spaces
            text = " ".join(words)
    (tokens,) = subwords.encode([text])
    return words, tokens, _words_of(words, tokens, subwords)


def _words_of(words: list[str], tokens: list[int], subwords: Subwords) -> list[int]:
    """The word, by its number, of each subword: by the characters other than spaces."""
    of_character = [number for number, word in enumerate(words) for _ in word]
    word_of, place = [], 0
    for token in tokens:
        piece = "?" if token == UNKNOWN_SUBWORD else subwords.pieces[token].strip(" ")
        # A piece that is only a space belongs to the word behind it.
        word_of.append(of_character[min(place, len(of_character) - 1)])
        place += len(piece)
    return word_of


def _letters(text: str) -> str:
    """Letters and digits alone, for a comparison of raw text with tokenised."""
    return re.sub(r"&\w+;|[\W_]", "", text.lower())


def _as_in(index: dict[str, int], word: str) -> str:
    """The word as the corpus writes it: Penn Treebank has no escapes, and N for numbers."""
    if word not in index:
        word = word.replace("&apos;", "'")
    if word in index or "N" not in index:
        return word
    return "N" if re.fullmatch(r"[\d.,]*\d[\d.,]*", word) else word.lower()


_MODULES = ("sentence_gates", "gate_profile", "inspection", "batches", "subwords")
# One of each sentence of a case study, for a measurement is kept under its name.
CASE_STUDY = (
    Measurement("sentence", sentence_gates, _MODULES),
    Measurement("second_sentence", sentence_gates, _MODULES),
)
