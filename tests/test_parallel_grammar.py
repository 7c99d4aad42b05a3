"""The parallel corpus: one translation a sentence, order and agreement, its ground truth."""

import functools
import hashlib
import json
import os
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2lstm import parallel_derivation, parallel_grammar
from g2lstm.parallel_derivation import Phrase
from g2lstm.parallel_grammar import ClauseAccuracy, Pair, clause_accuracy, generate_pairs
from g2lstm.parallel_grammar_rules import MAX_DEPTH, MAX_WORDS, RULES
from g2lstm.parallel_lexicon import Verb
from test_parallel_lexicon import ADJECTIVES, AUXILIARIES, DETERMINERS, MODALS, NOUNS, VERBS

SUBORDINATORS = {
    "weil": "because",
    "wenn": "if",
    "während": "while",
    "als": "when",
    "obwohl": "although",
    "dass": "that",
    "ob": "whether",
}
RELATIVES = {"der", "die", "das", "den", "dem", "denen"}
OPENERS = {*SUBORDINATORS.values(), "who", "whom"}
CASES = ("nom", "acc", "dat")
GERMAN_NOUNS = {form for row in NOUNS.values() for form in row[1:4]}
MODAL_FORMS = {form for modal in MODALS for form in modal.split()}
# A particle is part of the finite form at the end of a clause and apart from it in a main clause.
ROWS = [german for german, _ in VERBS] + [modal.split() for modal in MODALS]
ROWS += [*AUXILIARIES.values(), ("waren", "war", "war")]
FINITE = {form.replace("_", "") for row in ROWS for form in row[:3]}
FINITE_IN_MAIN = {
    number: {row[column].rpartition("_")[2] for row in ROWS}
    for number, column in {"pl": 0, "ich": 1, "sg": 2}.items()
}
ENGLISH_VERBS = {form.split("_")[-1] for _, english in VERBS for form in english}


@pytest.fixture(scope="module")
def sample():
    return generate_pairs(4_000, seed=3)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    parallel_grammar.write_corpus(folder)
    return folder


def tokens(text):
    return re.findall(r"\w+|[,.]", text)


# One translation


def chart(words):
    """Every translation that some derivation gives to the words of a source sentence."""

    @functools.cache
    def spans(symbol, depth, start, second):
        """{(end, translation, finite form that has to stand at "&")} of a symbol from a word on."""
        found = set()
        for outcome in parallel_derivation._choices(symbol, depth == MAX_DEPTH)[0]:
            if isinstance(outcome, Phrase):
                (form,), finite = outcome.source, None
                if isinstance(form, Verb):
                    finite = form.finite if second else None
                    last = [form.rest + form.finite] if form.joined else [form.rest, form.finite]
                    forms = [f for f in ([form.rest] if second else last) if f]
                else:
                    forms = [form]
                end = start + len(forms)
                if words[start:end] == tuple(forms):
                    found.add((end, " ".join(outcome.target), finite))
                continue
            clause = symbol.startswith("Clause")
            inner = any(part.text == "&" for part in outcome.source) if clause else second
            states = {(start, (), None, None)}
            for part in outcome.source:
                states = set(chain(states, part, depth, inner))
            for end, children, at_mark, finite in states:
                if not clause or at_mark == finite:
                    children = dict(children)
                    translation = " ".join(children.get(p.text, p.text) for p in outcome.target)
                    found.add((end, translation, None if clause else finite))
        return found

    def chain(states, part, depth, second):
        for at, children, at_mark, finite in states:
            word = words[at] if at < len(words) else None
            if part.symbol is not None:
                for end, text, form in spans(part.symbol, depth + part.embedded, at, second):
                    yield end, (*children, (part.text, text)), at_mark, form or finite
            elif part.text == "&":
                yield at + 1, children, word, finite
            if part.text == word:
                yield at + 1, children, at_mark, finite
            if part.text == "," and word in (",", "."):  # not written in front of another mark
                yield at, children, at_mark, finite

    return {text for end, text, _ in spans("Sentence", 0, 0, False) if end == len(words)}


def translations(source):
    words = tokens(source)
    found = set()
    for first in {words[0], words[0].lower()}:
        for text in chart((first, *words[1:])):
            text = re.sub(r"\ba (?=[aeiou])", "an ", text).replace(" ,", ",").replace(" .", ".")
            found.add(text[0].upper() + text[1:])
    return found


def test_a_source_sentence_has_one_translation(sample):
    for pair in sample[:250]:
        assert translations(pair.source) == {pair.target}


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (
            "Der Hund sieht die Katze, weil sie schläft.",
            "The dog sees the cat because she sleeps.",
        ),
        ("Den Hund sieht die Katze.", "The cat sees the dog."),
        ("Sie sehen den Hund.", "They see the dog."),
        ("Sie sieht den Hund.", "She sees the dog."),
        ("Die Maus, die er sieht, schläft.", "The mouse that he sees sleeps."),
        ("Die Maus, die ihn sieht, schläft.", "The mouse that sees him sleeps."),
        ("Die Kinder, denen die Königin hilft, essen.", "The children whom the queen helps eat."),
        ("Heute ruft er mich an.", None),  # a pronoun there would precede the subject elsewhere
        ("Die Maus, die die Katze sieht, schläft.", None),  # who sees whom?
        ("Die Katze sieht sie.", None),
        ("Die Katze sieht der Hund.", None),
        ("Der Hund die Katze sieht.", None),
        ("Der Hund sieht die Katze, weil schläft sie.", None),
        ("Der Hund sehen die Katze.", None),
    ],
)
def test_the_language(source, target):
    assert translations(source) == ({target} if target else set())


def test_the_chart_finds_a_second_translation(monkeypatch):
    monkeypatch.setitem(RULES, "Nominative[sg]", {"er | he": 1, "sie | she": 1})
    monkeypatch.setitem(RULES, "Object[acc,P]", {"ihn | him": 1, "sie | her": 1})
    parallel_derivation._choices.cache_clear()
    assert translations("Die Maus, die sie sieht, schläft.") == {
        "The mouse that she sees sleeps.",
        "The mouse that sees her sleeps.",
    }
    parallel_derivation._choices.cache_clear()


def test_a_pair_read_by_hand():
    assert generate_pairs(8, seed=0)[7] == Pair(
        "Das Mädchen, das singen will, sagt, dass der Hund ihn gesucht hat.",
        "The girl who wants to sing says that the dog looked for him.",
        ("who wants to sing", "that the dog looked for him"),
    )


# Order and agreement


def readings(determiner, noun):
    """The {(case, number)} that a determiner and a noun can have together."""
    found = set()
    for forms in DETERMINERS.values():
        for place, form in enumerate(forms.split()):
            case, column = CASES[place // 4], ("m", "f", "n", "pl")[place % 4]
            if form != determiner:
                continue
            for gender, singular, plural, dative, *_ in NOUNS.values():
                if gender == column and noun == singular:
                    found.add((case, "sg"))
                if column == "pl" and noun == (dative if case == "dat" else plural):
                    found.add((case, "pl"))
    return found


def noun_phrases(words):
    """(position, determiner, noun) of every noun phrase with a determiner."""
    determiners = {form for row in DETERMINERS.values() for form in row.split()}
    for at, word in enumerate(words[:-1]):
        noun = at + 1 + (re.sub("e[mnrs]?$", "", words[at + 1]) in ADJECTIVES)
        if word in determiners and words[noun] in GERMAN_NOUNS:
            yield at, word, words[noun]


def uncapitalised(text):
    return text[0].lower() + text[1:]


def test_determiners_and_nouns_agree(sample):
    seen = 0
    for pair in sample:
        for _, determiner, noun in noun_phrases(tokens(uncapitalised(pair.source))):
            seen += 1
            assert readings(determiner, noun), pair.source
    assert seen > 1.5 * len(sample)


def test_verbs_agree_with_their_subjects(sample):
    """In main clauses that begin with a noun phrase; one that is no subject shows its case."""
    subjects = objects = 0
    for pair in sample:
        words = tokens(uncapitalised(pair.source))
        at, determiner, noun = next(noun_phrases(words), (None, None, None))
        if at != 0 or "," in words:
            continue
        numbers = {number for case, number in readings(determiner, noun) if case == "nom"}
        english = {form for row in NOUNS.values() if noun in row[1:4] for form in row[4:6]}
        if numbers:
            (number,) = numbers
            subjects += 1
            assert words[words.index(noun) + 1] in FINITE_IN_MAIN[number], pair.source
            assert english & set(tokens(pair.target)[1:3]), pair.source
        else:
            objects += 1
            assert tokens(pair.target)[-2] in english, pair.source
    assert subjects > 500
    assert objects > 50


def with_one_subordinate_clause(sample):
    """(pair, words of that clause in the source, words of the main clause, whether it is first)."""
    for pair in sample:
        halves = [half.split() for half in uncapitalised(pair.source).rstrip(".").split(", ")]
        if len(halves) == 2 and halves[1][0] != "aber":
            fronted = halves[0][0] in SUBORDINATORS
            clause, main = halves if fronted else reversed(halves)
            assert fronted or clause[0] in SUBORDINATORS.keys() | RELATIVES
            yield pair, clause, main, fronted


def test_place_of_the_finite_verb(sample):
    seen = {True: 0, False: 0}
    for pair, clause, main, fronted in with_one_subordinate_clause(sample):
        seen[fronted] += 1
        assert clause[-1] in FINITE, pair.source
        finite = [i for i, word in enumerate(main) if word in set.union(*FINITE_IN_MAIN.values())]
        assert finite[0] <= 4, pair.source
        assert not fronted or finite[0] == 0, pair.source
        if clause[0] in SUBORDINATORS:
            assert SUBORDINATORS[clause[0]] in tokens(uncapitalised(pair.target)), pair
    assert min(seen.values()) > 200


def begins_with_subject(main):
    at, determiner, noun = next(noun_phrases(main), (None, None, None))
    cases = {case for case, _ in readings(determiner, noun)} if at == 0 else ()
    return main[0] in ("er", "sie", "ich", "wir") or "nom" in cases


def test_reordered_clauses_against_the_last_words_of_the_clause(sample):
    """The order differs if in English something follows the verb, or in German a modal does."""
    seen = {True: 0, False: 0}
    for pair, clause, main, fronted in with_one_subordinate_clause(sample):
        if clause[0] in RELATIVES and not begins_with_subject(main):
            continue  # it may belong to the subject, then in English it stands in the middle
        halves = pair.target.rstrip(".").split(", ")
        words = halves[0 if fronted else -1].split()
        opener = next(i for i, word in enumerate(words) if word.lower() in OPENERS)
        reordered = words[-1] not in ENGLISH_VERBS or clause[-1] in MODAL_FORMS
        seen[reordered] += 1
        assert pair.clauses == ((" ".join(words[opener:]),) if reordered else ()), pair
    assert min(seen.values()) > 150


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**40))
def test_text_and_clauses_of_every_pair(seed):
    for pair in generate_pairs(5, seed):
        for text in (pair.source, pair.target):
            assert re.fullmatch(r"[A-ZÄÖÜ]\w*(,? \w+)*\.", text)
            assert len(text.split()) <= MAX_WORDS
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", pair.target, re.IGNORECASE)
        words, start = tokens(pair.target), 0
        for clause in pair.clauses:  # each begins behind the beginning of the one before
            part = tokens(clause)
            found = [i for i in range(start, len(words)) if words[i : i + len(part)] == part]
            assert part[0].lower() in OPENERS
            start = found[0] + 1
        assert len(pair.clauses) <= sum(word.lower() in OPENERS for word in words)


@pytest.mark.parametrize(
    "phenomenon",
    [
        r"\bhat \w.*\bge\w+(t|en)\b",  # perfect
        r"\bwill \w.*en\b",
        r"\b(rufe|ruft|rufen) .* an\b",  # separable verb
        r"^Den ",  # object in front
        r"\bkein",
        r"\bnicht\b",
        r", (der|dem|den|denen) ",
        r", dass \w.*, (der|die|das|den) ",  # clauses in clauses
        r"\bmir\b",
    ],
)
def test_the_sample_has(phenomenon, sample):
    assert sum(bool(re.search(phenomenon, pair.source)) for pair in sample) >= 20


def test_lengths_and_shares(sample):
    words = [len(pair.target.split()) for pair in sample]
    assert 9 < sum(words) / len(words) < 12
    assert 0.45 < sum(bool(pair.clauses) for pair in sample) / len(sample) < 0.55


# Drawing, writing, reading


def test_the_seed_fixes_the_pairs():
    pairs = generate_pairs(50, seed=7)
    assert pairs == generate_pairs(60, seed=7)[:50]
    assert pairs != generate_pairs(50, seed=8)
    assert generate_pairs(0) == []
    with pytest.raises(ValueError, match="-1"):
        generate_pairs(-1)


def test_another_process_draws_the_same():
    code = "from g2lstm.parallel_grammar import generate_pairs as g; print(ascii(g(50, seed=7)))"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
    assert output.strip() == ascii(generate_pairs(50, seed=7))


def test_no_source_sentence_occurs_twice(corpus):
    sizes = parallel_grammar.SENTENCES
    pairs = [pair for split in sizes for pair in parallel_grammar.read_pairs(corpus, split)]
    assert len({pair.source for pair in pairs}) == len(pairs) == sum(sizes.values())


def test_files_hold_the_pairs(corpus):
    drawn = generate_pairs(sum(parallel_grammar.SENTENCES.values()))
    for split, size in parallel_grammar.SENTENCES.items():
        pairs, drawn = drawn[:size], drawn[size:]
        assert parallel_grammar.read_pairs(corpus, split) == pairs
        for name, side in (("de", "source"), ("en", "target")):
            text = (corpus / f"{split}.{name}").read_bytes().decode()
            assert text.split("\n") == [*(getattr(pair, side) for pair in pairs), ""]


def test_manifest(corpus):
    manifest = json.loads((corpus / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["seed"] == 0
    assert manifest["fingerprint"] == parallel_grammar.fingerprint()
    files = {"manifest.json"}
    for split, size in parallel_grammar.SENTENCES.items():
        about = manifest["splits"][split]
        pairs = parallel_grammar.read_pairs(corpus, split)
        assert about["pairs"] == size
        assert about["source_words"] == sum(pair.source.count(" ") + 1 for pair in pairs)
        assert about["target_words"] == sum(pair.target.count(" ") + 1 for pair in pairs)
        assert about["clauses"] == sum(len(pair.clauses) for pair in pairs)
        for name, checksum in about["sha256"].items():
            assert hashlib.sha256((corpus / name).read_bytes()).hexdigest() == checksum
            files.add(name)
    assert files == {path.name for path in corpus.iterdir()}


def test_other_sizes_and_broken_folders(tmp_path):
    parallel_grammar.write_corpus(tmp_path, seed=4, sentences={"test": 12})
    assert parallel_grammar.read_pairs(tmp_path) == generate_pairs(12, seed=4)
    with pytest.raises(FileNotFoundError):
        parallel_grammar.read_pairs(tmp_path, "train")
    (tmp_path / "test.en").write_text("One line.\n", encoding="utf-8")
    with pytest.raises(ValueError, match="12 sources, 1 targets and 12 lists of clauses"):
        parallel_grammar.read_pairs(tmp_path)


# Accuracy of clauses

INNER = "that sees him"
OUTER = "because the dog that sees him can wait"
NESTED = Pair("", "He waits because the dog that sees him can wait.", (OUTER, INNER))
TWICE = Pair("", "The cat that sees him helps the dog that sees him.", (INNER, INNER))
PLAIN = Pair("", "He waits.", ())


@pytest.mark.parametrize(
    ("hypotheses", "pairs", "expected"),
    [
        ([NESTED.target], [NESTED], (2, 1.0, 1.0, None)),
        (["I wait because the dog that sees him can wait."], [NESTED], (2, 1.0, 0.0, None)),
        (["He waits because the dog that sees him can eat."], [NESTED], (2, 0.5, 0.0, None)),
        (["He waits because that sees himself can wait."], [NESTED], (2, 0.0, 0.0, None)),
        (["He waits because the dog that sees him, can wait"], [NESTED], (2, 0.5, 0.0, None)),
        (["Because the dog that sees him can wait, he"], [NESTED], (2, 0.5, 0.0, None)),
        ([""], [NESTED], (2, 0.0, 0.0, None)),
        (["The cat that sees him helps."], [TWICE], (2, 0.5, 0.0, None)),
        (["That that sees him that sees him that sees him."], [TWICE], (2, 1.0, 0.0, None)),
        ([NESTED.target, "He waits.", "I wait."], [NESTED, PLAIN, PLAIN], (2, 1.0, 1.0, 0.5)),
        (["He.", "He waits."], [TWICE, PLAIN], (2, 0.0, 0.0, 1.0)),
    ],
)
def test_clause_accuracy(hypotheses, pairs, expected):
    assert clause_accuracy(hypotheses, pairs) == ClauseAccuracy(*expected)


def test_references_are_all_correct(sample):
    clauses = sum(len(pair.clauses) for pair in sample)
    expected = ClauseAccuracy(clauses, 1.0, 1.0, 1.0)
    assert clause_accuracy([pair.target for pair in sample], sample) == expected


@pytest.mark.parametrize(
    ("hypotheses", "pairs", "message"),
    [
        (["He waits."], [NESTED, TWICE], "1 hypotheses for 2 pairs"),
        (["He waits."], [PLAIN], "no reordered clause in 1 pairs"),
        ([], [], "no reordered clause in 0 pairs"),
    ],
)
def test_clause_accuracy_refuses(hypotheses, pairs, message):
    with pytest.raises(ValueError, match=message):
        clause_accuracy(hypotheses, pairs)
