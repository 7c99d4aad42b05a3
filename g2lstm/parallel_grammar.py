"""German-like sentences and their English-like translations, from a synchronous grammar.

The embedded parallel corpus is drawn from the grammar in `parallel_grammar_rules`, so nothing has
to be downloaded and every pair comes with its ground truth: the clauses that have to be reordered.

What translation needs here is what German needs: verbs at the end of subordinate and relative
clauses, participles and infinitives at the end of main clauses, the subject behind the verb after
whatever stands first, particles that come off their verbs, relative clauses away from their nouns;
case, gender and number in determiners, adjectives and pronouns tell who does what to whom.

Every source sentence has one translation, so a perfect system reaches a BLEU of 100.
"""

import hashlib
import itertools
import json
import os
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from g2lstm import grammar_symbols, parallel_derivation, parallel_grammar_rules, parallel_lexicon
from g2lstm.files import write_json, write_text
from g2lstm.parallel_derivation import CLOSE, OPEN, derive
from g2lstm.parallel_grammar_rules import MAX_WORDS

SENTENCES = {"train": 10_000, "valid": 500, "test": 500}
"""Pairs of each split of the corpus."""

_WORDS = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Pair:
    """A sentence, its translation and its ground truth.

    Attributes:
        source: German-like, raw text: cased, punctuation attached.
        target: its one correct English-like translation, raw text.
        clauses: target text of each subordinate clause that is reordered, in the order of their
            first words: verb-final in the source, the verb not in its English place. A clause
            around another one holds the text of both. "weil sie schläft" is verb-final but has the
            order of "because she sleeps", so it is not among them.
    """

    source: str
    target: str
    clauses: tuple[str, ...]


@dataclass(frozen=True)
class ClauseAccuracy:
    """How well reordered clauses are translated; shares from 0 to 1.

    Attributes:
        clauses: reordered clauses of the references.
        correct: share of them whose exact text stands in the hypothesis.
        exact_with: share of sentences equal to the reference, of those with such a clause.
        exact_without: the same of those without one, None where there are none.
    """

    clauses: int
    correct: float
    exact_with: float
    exact_without: float | None


def _text(words: list[str]) -> str:
    """Words and marks as raw text; a comma in front of another mark is dropped."""
    return re.sub(r"( ,)* (?=[,.])", "", " ".join(words))


def _draw(chance: random.Random) -> Pair:
    phrase = derive("Sentence", 0, chance)
    words, opened, spans = [], [], []
    for word in phrase.target:
        if word == OPEN:
            opened.append(len(spans))
            spans.append(slice(len(words), None))
        elif word == CLOSE:
            span = opened.pop()
            spans[span] = slice(spans[span].start, len(words))
        else:
            if words and words[-1] == "a" and word[0] in "aeiou":
                words[-1] = "an"
            words.append(word)
    words[0] = words[0][0].upper() + words[0][1:]
    source = _text(phrase.source)
    clauses = tuple(_text(words[span]) for span in spans)
    return Pair(source[0].upper() + source[1:], _text(words), clauses)


def generate_pairs(count: int, seed: int = 0) -> list[Pair]:
    """Draw pairs with different sources; the same seed gives the same ones on every machine.

    Args:
        count: how many; 10,000 take about two seconds.
        seed: of Python's `random.Random`, whose stream is fixed for all versions.

    Raises:
        ValueError: the count is negative.
    """
    if count < 0:
        raise ValueError(f"count must be 0 or more, got {count}")
    chance = random.Random(seed)
    pairs = {}
    while len(pairs) < count:
        pair = _draw(chance)
        if max(len(pair.source.split()), len(pair.target.split())) <= MAX_WORDS:
            pairs.setdefault(pair.source, pair)
    return list(pairs.values())


def _occurrences(part: list[str], whole: list[str]) -> int:
    """How often the words stand in the whole as a run, without overlap."""
    found = at = 0
    while at <= len(whole) - len(part):
        hit = whole[at : at + len(part)] == part
        found += hit
        at += len(part) if hit else 1
    return found


def clause_accuracy(hypotheses: list[str], pairs: list[Pair]) -> ClauseAccuracy:
    """Compare translations with the reordered clauses of the references.

    A clause counts as correct where its exact text, cased, stands in the hypothesis as a run of
    whole words; one that the reference has twice must stand there twice.

    Args:
        hypotheses: raw text, one for each pair.
        pairs: the references.

    Raises:
        ValueError: not as many hypotheses as pairs, or no reordered clause in any pair.
    """
    if len(hypotheses) != len(pairs):
        raise ValueError(f"{len(hypotheses)} hypotheses for {len(pairs)} pairs: need one for each")
    clauses = sum(len(pair.clauses) for pair in pairs)
    if not clauses:
        raise ValueError(f"no reordered clause in {len(pairs)} pairs: nothing to measure")
    correct, exact = 0, {True: [], False: []}
    for hypothesis, pair in zip(hypotheses, pairs, strict=True):
        words = _WORDS.findall(hypothesis)
        for clause, times in Counter(pair.clauses).items():
            correct += min(times, _occurrences(_WORDS.findall(clause), words))
        exact[bool(pair.clauses)].append(hypothesis == pair.target)
    shares = {kind: sum(hits) / len(hits) if hits else None for kind, hits in exact.items()}
    return ClauseAccuracy(clauses, correct / clauses, shares[True], shares[False])


def fingerprint() -> str:
    """A short hash of the grammar's data and code: it changes when the corpus may."""
    modules = (grammar_symbols, parallel_grammar_rules, parallel_lexicon, parallel_derivation)
    sources = [*(module.__file__ for module in modules), __file__]
    return hashlib.sha256(b"".join(Path(p).read_bytes() for p in sources)).hexdigest()[:12]


def write_corpus(
    folder: str | os.PathLike, seed: int = 0, sentences: dict[str, int] | None = None
) -> None:
    """Generate the embedded parallel corpus into a folder, in about two seconds.

    Writes for each split `<split>.de` and `<split>.en` (one sentence a line) and
    `<split>.clauses.jsonl` (one list of `Pair.clauses` a line), and at last `manifest.json`: the
    seed, the grammar's fingerprint, and per split the counts of pairs, words and clauses and the
    sha256 of each file. No source sentence occurs twice, within a split or across them. Each file
    appears whole or not at all, and `manifest.json` only when the others are there, so processes
    that write the same corpus at once do no harm.

    Args:
        folder: made if missing; files of these names are replaced.
        seed: of the generator.
        sentences: pairs of each split; default `SENTENCES`.
    """
    folder = Path(folder)
    sizes = SENTENCES if sentences is None else sentences
    drawn = iter(generate_pairs(sum(sizes.values()), seed))
    splits = {}
    for split, size in sizes.items():
        pairs = list(itertools.islice(drawn, size))
        files = {
            f"{split}.de": [pair.source for pair in pairs],
            f"{split}.en": [pair.target for pair in pairs],
            f"{split}.clauses.jsonl": [json.dumps(pair.clauses) for pair in pairs],
        }
        checksums = {}
        for name, lines in files.items():
            text = "".join(f"{line}\n" for line in lines)
            write_text(folder / name, text)
            checksums[name] = hashlib.sha256(text.encode()).hexdigest()
        splits[split] = {
            "pairs": size,
            "source_words": sum(len(pair.source.split()) for pair in pairs),
            "target_words": sum(len(pair.target.split()) for pair in pairs),
            "clauses": sum(len(pair.clauses) for pair in pairs),
            "sha256": checksums,
        }
    manifest = {"seed": seed, "fingerprint": fingerprint(), "splits": splits}
    write_json(folder / "manifest.json", manifest)


def read_pairs(folder: str | os.PathLike, split: str = "test") -> list[Pair]:
    """The pairs of a split that `write_corpus` wrote, with their ground truth.

    Raises:
        FileNotFoundError: the folder lacks a file of this split.
        ValueError: the files of the split do not have the same number of lines.
    """
    sources, targets, clauses = (
        (Path(folder) / f"{split}.{kind}").read_text(encoding="utf-8").splitlines()
        for kind in ("de", "en", "clauses.jsonl")
    )
    if not len(sources) == len(targets) == len(clauses):
        raise ValueError(
            f"{folder}, {split}: {len(sources)} sources, {len(targets)} targets and {len(clauses)} "
            "lists of clauses; write the corpus again"
        )
    rows = zip(sources, targets, clauses, strict=True)
    return [Pair(source, target, tuple(json.loads(line))) for source, target, line in rows]
