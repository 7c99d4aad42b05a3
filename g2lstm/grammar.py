"""English-like text from a probabilistic grammar, with its structure and its entropy known.

The embedded corpus is drawn from the grammar in `grammar_rules`, so nothing has to be downloaded
and every token comes with its ground truth: its word class, whether it opens a clause, how deeply
its clause is embedded.

What makes the text worth modelling: verbs agree in number with subjects that stand several words
earlier, behind prepositional phrases and relative clauses; the kind of a noun (person, animal,
thing) selects verbs, adjectives and relative pronouns; a relative clause that lacks its object must
not get one, and after it the main clause goes on; "either" asks for "or", "if" for "then", a
question for "?".

The grammar is unambiguous, a sentence has one derivation. So the probability of the derivation is
that of the sentence, and the entropy is exact, no bound: it is the floor for any model's
cross-entropy.
"""

import functools
import hashlib
import itertools
import json
import math
import os
import random
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from g2lstm import grammar_rules, grammar_symbols
from g2lstm.files import write_json, write_text
from g2lstm.grammar_rules import FEATURES, LEXICON, MAX_DEPTH, RULES
from g2lstm.grammar_symbols import match, split_symbol

SENTENCES = {"train": 15_000, "valid": 1_250, "test": 1_250}
"""Sentences of each split of the corpus: about 249,000, 20,300 and 20,100 tokens with `<eos>`."""


@dataclass(frozen=True)
class Sentence:
    """A generated sentence and its ground truth; the four tuples are aligned, one entry per token.

    Attributes:
        tokens: the words, ending in "." or "?"; the end mark `<eos>` is not among them.
        word_classes: "noun", "verb", "adjective", "adverb", "determiner", ... or "punctuation".
        clause_boundaries: True on a token that opens a clause inside the sentence: conjunction of
            clauses, subordinator, complementiser, relative pronoun, first word of a main clause
            after a fronted one. False on the sentence's first token, whatever it is (there the end
            mark before it is the boundary), and on an "and" that joins nouns.
        depths: how many clauses enclose the token's own: 0 in a main clause, at most `MAX_DEPTH`.
        log_probability: of the sentence, in nats; the end mark follows with certainty.
    """

    tokens: tuple[str, ...]
    word_classes: tuple[str, ...]
    clause_boundaries: tuple[bool, ...]
    depths: tuple[int, ...]
    log_probability: float


class _Child(NamedTuple):
    symbol: str
    opens: bool
    embedded: bool


def _child(part: str, binding: dict[str, str]) -> _Child:
    name, features = split_symbol(part.lstrip("|^"))
    symbol = f"{name}[{','.join(binding.get(f, f) for f in features)}]" if features else name
    return _Child(symbol, opens="|" in part, embedded="^" in part)


def _right_hand_sides(symbol: str) -> Iterator[tuple[tuple[_Child, ...], float]]:
    """Weighted children of a symbol, with every variable given a value."""
    for pattern, alternatives in RULES.items():
        binding = match(pattern, symbol, FEATURES)
        if binding is None:
            continue
        for text, weight in alternatives.items():
            parts = text.split()
            used = {f for part in parts for f in split_symbol(part)[1]}
            free = [v for v in FEATURES if v in used and v not in binding]
            for values in itertools.product(*(FEATURES[v].items() for v in free)):
                chosen = binding | {v: value for v, (value, _) in zip(free, values, strict=True)}
                share = math.prod(
                    w / sum(FEATURES[v].values()) for v, (_, w) in zip(free, values, strict=True)
                )
                if share:
                    yield tuple(_child(part, chosen) for part in parts), weight * share


@functools.cache
def _words(symbol: str) -> tuple[str, ...]:
    """The word forms of a class, most frequent first; empty where the symbol is none."""
    if symbol in (".", ",", "?"):
        return (symbol,)
    marked = "pl" if symbol.startswith("noun") else "sg"  # the number that has an ending
    for pattern, entries in LEXICON.items():
        binding = match(pattern, symbol, FEATURES)
        if binding is not None:
            forms = [entry.partition("/") for entry in entries.split()]
            ending = binding.get("N") == marked
            return tuple((other or first + "s") if ending else first for first, _, other in forms)
    return ()


@functools.cache
def _expand(symbol: str, depth: int) -> tuple[tuple, tuple[float, ...]]:
    """What a symbol can become at a depth: (words or tuples of children, their probabilities)."""
    if words := _words(symbol):
        weighted = [(word, 1 / rank) for rank, word in enumerate(words, start=1)]
    else:
        weighted = [
            (children, weight)
            for children, weight in _right_hand_sides(symbol)
            if depth < MAX_DEPTH or not any(child.embedded for child in children)
        ]
    total = math.fsum(weight for _, weight in weighted)
    if not total:
        raise KeyError(f"grammar symbol {symbol!r} has neither a rule nor words")
    return tuple(o for o, _ in weighted), tuple(w / total for _, w in weighted)


@functools.cache
def _choices(symbol: str, depth: int) -> tuple[tuple, tuple[float, ...], tuple[float, ...]]:
    """`_expand` made ready for drawing: outcomes, cumulative probabilities, log-probabilities."""
    outcomes, probabilities = _expand(symbol, depth)
    cumulative = tuple(itertools.accumulate(probabilities))
    return outcomes, cumulative, tuple(math.log(p) for p in probabilities)


def _draw(source: random.Random) -> Sentence:
    tokens, classes, boundaries, depths, log_probability = [], [], [], [], 0.0
    stack = [("Sentence", 0, False)]
    while stack:
        symbol, depth, opens = stack.pop()
        outcomes, cumulative, logs = _choices(symbol, depth)
        chosen = min(bisect(cumulative, source.random()), len(outcomes) - 1)
        outcome = outcomes[chosen]
        log_probability += logs[chosen]
        if isinstance(outcome, str):
            tokens.append(outcome)
            classes.append(split_symbol(symbol)[0] if outcome.isalpha() else "punctuation")
            boundaries.append(opens)
            depths.append(depth)
        else:
            for child in reversed(outcome):
                stack.append((child.symbol, depth + child.embedded, child.opens))
            if opens:  # the first word of the first child is the symbol's own
                stack[-1] = (*stack[-1][:2], True)
    return Sentence(
        tuple(tokens), tuple(classes), tuple(boundaries), tuple(depths), log_probability
    )


def generate(sentences: int, seed: int = 0) -> list[Sentence]:
    """Draw independent sentences; the same seed gives the same ones on every machine.

    Args:
        sentences: how many; 10,000 take about a second.
        seed: of Python's `random.Random`, whose stream is fixed for all versions.

    Raises:
        ValueError: the number of sentences is negative.
    """
    if sentences < 0:
        raise ValueError(f"sentences must be 0 or more, got {sentences}")
    source = random.Random(seed)
    return [_draw(source) for _ in range(sentences)]


@functools.cache
def _moments(symbol: str, depth: int) -> tuple[float, float]:
    """Expected nats and expected tokens of what a symbol derives."""
    outcomes, probabilities = _expand(symbol, depth)
    nats = length = 0.0
    for outcome, probability in zip(outcomes, probabilities, strict=True):
        nats -= probability * math.log(probability)
        if isinstance(outcome, str):
            length += probability
        else:
            for child in outcome:
                child_nats, child_length = _moments(child.symbol, depth + child.embedded)
                nats += probability * child_nats
                length += probability * child_length
    return nats, length


def entropy_rate() -> float:
    """Nats per token, `<eos>` counted, that no model of infinite text from this grammar can beat.

    Exact: sentences are independent and have one derivation each, so the rate is the entropy of a
    derivation, summed over the rules, divided by the expected number of tokens with the end mark.
    """
    nats, length = _moments("Sentence", 0)
    return nats / (length + 1)


def cross_entropy(sentences: list[Sentence]) -> float:
    """Nats per token, `<eos>` counted, of the grammar itself on these sentences: their floor."""
    nats = -math.fsum(sentence.log_probability for sentence in sentences)
    return nats / sum(len(sentence.tokens) + 1 for sentence in sentences)


def fingerprint() -> str:
    """A short hash of the grammar's data and code: it changes when the corpus may."""
    modules = (grammar_rules, grammar_symbols)
    sources = [*(Path(module.__file__) for module in modules), Path(__file__)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def write_corpus(
    folder: str | os.PathLike, seed: int = 0, sentences: dict[str, int] | None = None
) -> None:
    """Generate the embedded corpus into a folder, in about two seconds.

    Writes for each split `<split>.txt` (one sentence a line, tokens separated by spaces) and
    `<split>.annotations.jsonl` (one `Sentence` a line, for `read_annotations`), and at last
    `floor.json`: the entropy rate, and per split the grammar's own cross-entropy (nats per token,
    `<eos>` counted), the tokens with `<eos>` and the sha256 of the text. Each file appears whole or
    not at all, and `floor.json` only when the others are there, so processes that write the same
    corpus at once do no harm.

    Args:
        folder: made if missing; files of these names are replaced.
        seed: of the generator.
        sentences: sentences of each split; default `SENTENCES`.
    """
    folder = Path(folder)
    sizes = SENTENCES if sentences is None else sentences
    drawn = iter(generate(sum(sizes.values()), seed))
    splits = {}
    for split, size in sizes.items():
        part = list(itertools.islice(drawn, size))
        annotations = (
            json.dumps(vars(s) | {"log_probability": round(s.log_probability, 9)}) for s in part
        )
        write_text(folder / f"{split}.annotations.jsonl", "".join(f"{a}\n" for a in annotations))
        text = "".join(" ".join(s.tokens) + "\n" for s in part)
        write_text(folder / f"{split}.txt", text)
        splits[split] = {
            "cross_entropy": round(cross_entropy(part), 12),
            "tokens": sum(len(s.tokens) + 1 for s in part),
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    floor = {
        "entropy_rate": round(entropy_rate(), 12),
        "seed": seed,
        "grammar": fingerprint(),
        "splits": splits,
    }
    write_json(folder / "floor.json", floor)


def read_annotations(folder: str | os.PathLike, split: str = "test") -> list[Sentence]:
    """The sentences of a split that `write_corpus` wrote, with their ground truth.

    Raises:
        FileNotFoundError: the folder holds no annotations of this split.
    """
    path = Path(folder) / f"{split}.annotations.jsonl"
    sentences = []
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = json.loads(line)
        fields = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        sentences.append(Sentence(**fields))
    return sentences
