"""Derivations of the synchronous grammar in `parallel_grammar_rules`: phrases in two languages."""

import functools
import itertools
import math
import random
from bisect import bisect
from collections.abc import Iterator
from typing import NamedTuple

from g2lstm.grammar_symbols import match, split_symbol
from g2lstm.parallel_grammar_rules import FEATURES, MAX_DEPTH, RULES
from g2lstm.parallel_lexicon import LEXICON, Verb, forms

OPEN, CLOSE = "(", ")"  # around a reordered clause in the target


class Phrase(NamedTuple):
    """Words and marks of the same phrase in two languages, reordered subordinate clauses marked."""

    source: list[str | Verb]
    target: list[str]  # each reordered subordinate clause stands between OPEN and CLOSE
    reordered: bool  # something of the clause changes sides of the verb, or the verb has two parts


class _Part(NamedTuple):
    text: str  # as the rule has it: the same phrase on both sides
    symbol: str | None  # with values for the variables; None for a word
    embedded: bool


class _Rule(NamedTuple):
    source: list[_Part]
    target: list[_Part]
    reordered: bool  # something in front of the source's verb is behind the target's


def _part(text: str, binding: dict[str, str]) -> _Part:
    name, features = split_symbol(text.lstrip("^"))
    symbol = f"{name}[{','.join(binding.get(f, f) for f in features)}]" if features else name
    known = features or symbol in RULES
    return _Part(text, symbol if known else None, embedded=text.startswith("^"))


def _reordered(source: list[str], target: list[str]) -> bool:
    verb = next((part for part in source if part.startswith("~")), None)
    return verb is not None and not set(source[: source.index(verb)]).isdisjoint(
        target[target.index(verb) :]
    )


def _rules(symbol: str) -> Iterator[tuple[_Rule, float]]:
    """Weighted right-hand sides of a symbol, with every variable given a value."""
    for pattern, alternatives in RULES.items():
        binding = match(pattern, symbol, FEATURES)
        if binding is None:
            continue
        for text, weight in alternatives.items():
            source, _, target = (side.split() for side in text.partition(" | "))
            target = target or [part for part in source if part != "&"]
            used = {f for part in source for f in split_symbol(part)[1]}
            free = [v for v in FEATURES if v in used and v not in binding]
            for values in itertools.product(*(FEATURES[v].items() for v in free)):
                chosen = binding | {v: value for v, (value, _) in zip(free, values, strict=True)}
                share = math.prod(
                    w / sum(FEATURES[v].values()) for v, (_, w) in zip(free, values, strict=True)
                )
                if share:
                    sides = ([_part(part, chosen) for part in side] for side in (source, target))
                    yield _Rule(*sides, _reordered(source, target)), weight * share


def _words(symbol: str) -> Iterator[tuple[Phrase, float]]:
    """Weighted phrases of a lexical symbol, by Zipf's law; none where the symbol is not one."""
    name, features = split_symbol(symbol)
    for pattern, entries in LEXICON.items():
        if match(pattern, symbol, FEATURES) is None:
            continue
        for rank, entry in enumerate(entries.split(), start=1):
            for form_rank, (source, target) in enumerate(forms(name, features, entry), start=1):
                two_parts = name.startswith("~") and features[0] == "modal"
                yield Phrase([source], target.split(), two_parts), 1 / (rank * form_rank)


@functools.cache
def _choices(symbol: str, deepest: bool) -> tuple[list[Phrase | _Rule], list[float]]:
    """What a symbol can become, and the cumulative probabilities."""
    weighted = list(_words(symbol)) or [
        (rule, weight)
        for rule, weight in _rules(symbol)
        if not (deepest and any(part.embedded for part in rule.source))
    ]
    total = math.fsum(weight for _, weight in weighted)
    if not total:
        raise KeyError(f"grammar symbol {symbol!r} has neither a rule nor words")
    cumulative = itertools.accumulate(weight / total for _, weight in weighted)
    return [outcome for outcome, _ in weighted], list(cumulative)


def _place_verb(clause: list[str | Verb]) -> list[str]:
    """The source of a clause with the forms of its verb in their places."""
    at = next(i for i, token in enumerate(clause) if isinstance(token, Verb))
    finite, rest, joined = clause[at]
    if "&" in clause:
        clause = [finite if token == "&" else token for token in clause]
        last = [rest]
    else:
        last = [rest + finite] if joined else [rest, finite]
    return [*clause[:at], *filter(None, last), *clause[at + 1 :]]


def derive(symbol: str, depth: int, chance: random.Random) -> Phrase:
    """Draw a phrase of a symbol; subordinate clauses lie deeper than it, down to `MAX_DEPTH`."""
    outcomes, cumulative = _choices(symbol, depth == MAX_DEPTH)
    outcome = outcomes[min(bisect(cumulative, chance.random()), len(outcomes) - 1)]
    if isinstance(outcome, Phrase):
        return outcome
    children, reordered = {}, outcome.reordered
    for part in outcome.source:
        if part.symbol is not None:
            child = derive(part.symbol, depth + part.embedded, chance)
            if part.embedded and child.reordered:
                child = child._replace(target=[OPEN, *child.target, CLOSE])
            children[part.text] = child
            reordered |= child.reordered and not part.embedded
    source, target = [], []
    for part in outcome.source:
        source += children[part.text].source if part.symbol else [part.text]
    for part in outcome.target:
        target += children[part.text].target if part.symbol else [part.text]
    if symbol.startswith("Clause"):
        source = _place_verb(source)
    return Phrase(source, target, reordered)
