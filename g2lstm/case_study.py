"""Gate values word by word over whole texts: what the paper's case study suggests, measured."""

import html
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from g2lstm.alignment import FUNCTION_WORDS, contrast, unit_auc
from g2lstm.batches import Pairs, collate, token_batches
from g2lstm.corpora import END, UNKNOWN, Corpus
from g2lstm.evaluation import batchify
from g2lstm.grammar import read_annotations
from g2lstm.inspection import GateRecord, recorded
from g2lstm.language_model import State, detach
from g2lstm.measurements import Measurement, Trained, first_pairs

CONTENT_CLASSES = ("noun", "verb", "adjective", "adverb")  # of the embedded grammar
SIGNS = "#%&*/@\\"  # stand for words, though Unicode calls them punctuation
KINDS = ("input", "forget")
APOSTROPHE = re.compile("’|&apos;")  # as typeset, and as Moses' tokenizer writes it
WORD = re.compile(r"(?:'|’|&apos;)(?:s|t|re|ve|ll|d|m)\b|\w+")
STRANDS = 10  # parallel strands in which a text is read
STEPS = 70  # tokens of a strand a forward pass


@dataclass(frozen=True)
class TokenGates:
    """Gate values of the tokens of a text, with what is known of each token.

    Attributes:
        sentences: [N] number of the sentence of each token.
        gates: by "input" and "forget" [N, U]: every unit of every layer (of a translation: of the
            decoder), in evaluation mode, while the token is read.
        layers: [U] the layer of each unit, from 0.
        labels: [N] bool arrays by name: "boundary" (opens a clause), "function", "content",
            "punctuation", "end" (end of sentence), "word class <name>", "frequency <range>"; those
            that are known.
    """

    sentences: np.ndarray
    gates: dict[str, np.ndarray]
    layers: np.ndarray
    labels: dict[str, np.ndarray]


def text_gates(trained: Trained, split: str = "test", limit: int = 20_000) -> TokenGates:
    """Gates of the first tokens of a split, and what is known of them.

    Of a language model, all layers while it reads the text; of a translation, the decoder's layers
    while it reads the reference translations.

    Args:
        trained: the run.
        split: "valid" or "test".
        limit: tokens; of a translation, subwords.
    """
    if trained.configuration.task == "translation":
        return _translation_gates(trained, split, limit)
    corpus = trained.task.corpus
    tokens = getattr(corpus, split)[:limit]
    strands = batchify(tokens, STRANDS)
    records: dict[int, list[GateRecord]] = {}
    state: State | None = None
    device = trained.model.embedding.weight.device
    for inputs in strands.to(device).split(STEPS):

        def call(inputs=inputs) -> None:
            nonlocal state
            state = detach(trained.model(inputs, state).state)

        for layer, record in enumerate(recorded(trained.model, False, call)):
            records.setdefault(layer, []).append(record)
    values = {kind: _side_by_side(records.values(), kind) for kind in KINDS}
    gates = {kind: v.transpose(1, 0, 2).reshape(-1, v.shape[2]) for kind, v in values.items()}
    sizes = [of_layer[0].input_gate.shape[2] for of_layer in records.values()]
    tokens = strands.T.flatten()
    words = corpus.vocabulary.decode(tokens.tolist())
    end = np.array([word == END for word in words])
    sentences = np.concatenate([[0], np.cumsum(end)[:-1]])
    labels = {"end": end} | _labels_of_words(trained, split, words, tokens.numpy())
    return TokenGates(sentences, gates, np.repeat(np.arange(len(sizes)), sizes), labels)


def measure_alignment(trained: Trained, limit: int = 20_000) -> dict[str, Any]:
    """Contrasts of gate values between groups of tokens, and the units that mark them best.

    Returns:
        ``contrasts``: a dict each with ``contrast`` (its name), ``gate``, ``layer`` (a number, or
        "all") and what `alignment.Contrast` holds. ``means``: mean gate by group of tokens.
        ``units``: for each gate and contrast the unit that tells the groups apart best in every
        other sentence, with its layer and its AUC there (``auc_chosen_on``) and in the sentences
        between (``auc_held_out``). ``lowest_tenth``: as `lowest_tenth` returns it.
    """
    test = text_gates(trained, "test", limit)
    rows, units = [], []
    for name, groups in _contrasts(test.labels):
        for kind in KINDS:
            for layer, values in _by_layer(test, kind):
                found = contrast(values, *groups, test.sentences)
                if found is not None:
                    rows.append({"contrast": name, "gate": kind, "layer": layer} | found.as_dict())
            units += _best_unit(name, kind, test, groups)
    means = [
        {
            "label": label,
            "gate": kind,
            "tokens": int(mask.sum()),
            "mean": float(test.gates[kind][mask].mean()),
        }
        for label, mask in test.labels.items()
        if mask.any()
        for kind in KINDS
    ]
    return {
        "contrasts": rows, "means": means, "units": units, "lowest_tenth": lowest_tenth(test)
    }  # fmt: skip


def lowest_tenth(text: TokenGates) -> list[dict[str, Any]]:
    """Who the tokens with the lowest forget gates are, as the paper states its claim.

    Returns:
        A dict for each layer (a number, or "all") and group: "function word", "punctuation",
        "clause start" (of a sentence too; inside one only where the truth is known) and "any of
        them": its ``share`` of the tenth of the tokens whose mean forget gate is lowest, its
        share of all, ``base``, and the number of all ``tokens``. End marks do not count.
    """
    words = ~text.labels["end"]
    starts = np.diff(text.sentences, prepend=-1) != 0
    groups = {
        "function word": text.labels["function"],
        "punctuation": text.labels["punctuation"],
        "clause start": text.labels.get("boundary", starts) | starts,
    }
    groups["any of them"] = np.logical_or.reduce(list(groups.values()))
    rows = []
    for layer, values in _by_layer(text, "forget"):
        order = np.argsort(values[words], kind="stable")
        lowest = order[: max(1, len(order) // 10)]
        for name, group in groups.items():
            row = {"layer": layer, "group": name, "tokens": len(order)}
            share = float(group[words][lowest].mean())
            rows.append(row | {"share": share, "base": float(group[words].mean())})
    return rows


def _by_layer(text: TokenGates, kind: str) -> Iterator[tuple[str | int, np.ndarray]]:
    """Mean gate [N] over the units of all layers, and of each if there are several."""
    yield "all", text.gates[kind].mean(1)
    layers = np.unique(text.layers).tolist()
    for layer in layers if len(layers) > 1 else ():
        yield layer, text.gates[kind][:, text.layers == layer].mean(1)


def _side_by_side(layers: Iterable[list[GateRecord]], kind: str) -> np.ndarray:
    """[T, B, U] of the records of each layer: calls one after the other, layers side by side."""
    parts = [torch.cat([getattr(r, f"{kind}_gate") for r in of_layer]) for of_layer in layers]
    return torch.cat(parts, 2).float().cpu().numpy()


def _contrasts(
    labels: dict[str, np.ndarray],
) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """Names and groups of the comparisons that the labels allow."""
    words = ~labels["end"]
    if "boundary" in labels:
        boundary = labels["boundary"]
        yield "clause boundary - other words", (boundary, words & ~boundary)
        yield (
            "clause boundary - other function words",
            (boundary, labels["function"] & words & ~boundary),
        )
    yield "function - content words", (labels["function"], labels["content"])
    if labels["end"].any():
        yield "end of sentence - words", (labels["end"], words)
    ranges = [name for name in labels if name.startswith("frequency")]
    if len(ranges) > 1:
        most, *_, rare = ranges
        yield (
            f"rare ({rare.removeprefix('frequency ')}) - frequent "
            f"({most.removeprefix('frequency ')})",
            (labels[rare] & words, labels[most] & words),
        )


def _best_unit(
    name: str, kind: str, text: TokenGates, groups: tuple[np.ndarray, np.ndarray]
) -> list[dict[str, Any]]:
    """The unit chosen on every other sentence, judged on the rest; none where a group is empty."""
    halves = [[group & (text.sentences % 2 == half) for group in groups] for half in (0, 1)]
    if not all(group.any() for half in halves for group in half):
        return []
    chosen, held_out = (unit_auc(text.gates[kind], *half) for half in halves)
    unit = int(np.abs(chosen - 0.5).argmax())
    layer = int(text.layers[unit])
    return [
        {
            "contrast": name,
            "gate": kind,
            "layer": layer,
            "unit": unit - int((text.layers < layer).sum()),
            "auc_chosen_on": float(chosen[unit]),
            "auc_held_out": float(held_out[unit]),
        }
    ]


def _labels_of_words(
    trained: Trained, split: str, words: list[str], tokens: np.ndarray
) -> dict[str, np.ndarray]:
    corpus = trained.task.corpus
    if corpus.name == "grammar":
        return _annotated(corpus, split, words)
    letters = np.array([word[0].isalpha() or word in FUNCTION_WORDS for word in words])
    special = np.array([word in (END, UNKNOWN) for word in words])
    function = np.array([word.lower() in FUNCTION_WORDS for word in words])
    marks = np.array([is_punctuation(word) for word in words])
    labels = {
        "function": function,
        "content": letters & ~function & ~special,
        "punctuation": marks & ~function & ~special,
    }
    # The vocabulary is in order of frequency in the training text.
    bounds = [0, 10, 100, 1000, len(corpus.vocabulary)]
    for low, high in itertools.pairwise(bounds):
        if low < len(corpus.vocabulary):
            name = f"frequency rank {low + 1}-{min(high, len(corpus.vocabulary))}"
            labels[name] = (tokens >= low) & (tokens < high) & ~special
    return labels


def _annotated(corpus: Corpus, split: str, words: list[str]) -> dict[str, np.ndarray]:
    """The truth of the embedded corpus; an end mark has none."""
    classes: list[str] = []
    boundaries: list[bool] = []
    truth: list[str] = []
    for sentence in read_annotations(corpus.source, split):
        truth += [*sentence.tokens, END]
        classes += [*sentence.word_classes, END]
        boundaries += [*sentence.clause_boundaries, False]
        if len(truth) >= len(words):
            break
    # Through the vocabulary: a word that the training text lacks is read as <unk>.
    if corpus.vocabulary.decode(corpus.vocabulary.encode(truth[: len(words)])) != words:
        raise ValueError(f"the annotations in {corpus.source} do not belong to its {split} text")
    word_class = np.array(classes[: len(words)])
    content = np.isin(word_class, CONTENT_CLASSES)
    mark = np.isin(word_class, ["punctuation", END])
    labels = {
        "boundary": np.array(boundaries[: len(words)]),
        "function": ~content & ~mark,
        "content": content,
        "punctuation": word_class == "punctuation",
    }
    names = sorted(set(classes) - {END})
    return labels | {f"word class {name}": word_class == name for name in names}


def _translation_gates(trained: Trained, split: str, limit: int) -> TokenGates:
    """Gates of the decoder on the references, in order; begin marks are left out."""
    task, model = trained.task, trained.model
    pairs = first_pairs(task.pairs[split], limit)
    device = model.output_bias.device
    parts: dict[int, dict[str, np.ndarray]] = {}
    for indices in token_batches(pairs, 2000):
        batch = collate(pairs, indices, device)

        def call(batch=batch) -> None:
            model(batch.source, batch.source_lengths, batch.inputs)

        decoder: dict[tuple[str, int], list[GateRecord]] = {}
        for record in recorded(model, False, call):  # with input feeding, one a step
            if "decoder" in record.module:
                decoder.setdefault((record.module, record.layer), []).append(record)
        values = {kind: _side_by_side(decoder.values(), kind) for kind in KINDS}
        for place, sentence in enumerate(indices):
            steps = slice(1, len(pairs.targets[sentence]) + 1)
            parts[sentence] = {kind: values[kind][steps, place] for kind in KINDS}
    sizes = [of_layer[0].input_gate.shape[2] for of_layer in decoder.values()]
    gates = {kind: np.concatenate([parts[i][kind] for i in range(len(pairs))]) for kind in KINDS}
    lengths = [len(target) for target in pairs.targets]
    labels = _labels_of_subwords(trained, split, pairs)
    layers = np.repeat(np.arange(len(sizes)), sizes)
    return TokenGates(np.repeat(np.arange(len(pairs)), lengths), gates, layers, labels)


def _labels_of_subwords(trained: Trained, split: str, pairs: Pairs) -> dict[str, np.ndarray]:
    """Each subword has the class of its word; the first one of a reordered clause is a boundary."""
    corpus = trained.task.corpus
    function, content, marks, boundary = [], [], [], []
    clauses: Sequence[Sequence[str]] | None = corpus.clauses if split == "test" else None
    for number, target in enumerate(pairs.targets):
        pieces = [
            piece.replace("▁", " ") for piece in trained.task.target_subwords.readable(target)
        ]
        text = "".join(pieces)
        starts = np.cumsum([0, *map(len, pieces)])
        spans = {m.start(): m for m in WORD.finditer(text)}
        word_of = np.full(len(text) + 1, -1)
        for start, found in spans.items():
            word_of[start : found.end()] = start
        clause_starts = {
            text.find(clause) for clause in (clauses[number] if clauses is not None else ())
        }
        for piece, start, end in zip(pieces, starts, starts[1:], strict=False):
            first = start + (len(piece) > 1 and piece.startswith(" "))
            place = word_of[first]
            word = APOSTROPHE.sub("'", spans[place].group().lower()) if place >= 0 else None
            function.append(word in FUNCTION_WORDS)
            content.append(word is not None and word not in FUNCTION_WORDS)
            marks.append(word is None and is_punctuation(piece.strip()))
            boundary.append(any(start <= s < end and s > 1 for s in clause_starts))
    labels = {"end": np.zeros(len(function), dtype=bool)}
    if clauses is not None:
        labels["boundary"] = np.array(boundary)
    groups = {"function": function, "content": content, "punctuation": marks}
    return labels | {name: np.array(group) for name, group in groups.items()}


def is_punctuation(token: str) -> bool:
    """Whether it is marks of punctuation only, or Moses' escape of one."""
    text = html.unescape(token)
    marks = (unicodedata.category(sign)[0] == "P" and sign not in SIGNS for sign in text)
    return text == "`" or (bool(text) and all(marks))


_MODULES = ("alignment", "case_study", "inspection", "evaluation", "batches")
ALIGNMENT = Measurement("alignment", measure_alignment, _MODULES)
