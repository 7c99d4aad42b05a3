"""The generated language: its grammar, its ground truth and its entropy, against own oracles.

The oracles below read the grammar's data by themselves (with string replacement instead of the
package's expansion), so that they do not share its mistakes.
"""

import functools
import hashlib
import itertools
import json
import math
import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2lstm import grammar
from g2lstm.grammar_rules import FEATURES, LEXICON, MAX_DEPTH, RULES

PLURAL, SINGULAR, THIRD, BASE = set(), set(), {"is"}, {"are"}
for _slot, _entries in LEXICON.items():
    for _entry in _entries.split() if _slot.endswith("N]") else ():
        _plain, _marked = _entry.split("/") if "/" in _entry else (_entry, _entry + "s")
        if _slot.startswith("noun"):
            SINGULAR.add(_plain)
            PLURAL.add(_marked)
        else:
            BASE.add(_plain)
            THIRD.add(_marked)


def assignments(names):
    """Every way to give the variables values, with its probability."""
    for values in itertools.product(*(FEATURES[name] for name in names)):
        share = math.prod(
            FEATURES[n][v] / sum(FEATURES[n].values()) for n, v in zip(names, values, strict=True)
        )
        yield dict(zip(names, values, strict=True)), share


def ground(text, values):
    """A rule's text with the variables in brackets replaced."""
    return re.sub(r"\[[^]]*\]", lambda m: re.sub(r"\b[A-Z]\b", lambda v: values[v[0]], m[0]), text)


def variables(text):
    return sorted(
        {v for group in re.findall(r"\[[^]]*\]", text) for v in re.findall(r"\b[A-Z]\b", group)}
    )


def ground_rules():
    """{symbol: [(weight, right-hand side), ...]} without variables, and {slot: words}."""
    rules, words = defaultdict(list), {}
    for left, alternatives in RULES.items():
        for values, _ in assignments(variables(left)):
            for right, weight in alternatives.items():
                free = [v for v in variables(right) if v not in values]
                for more, share in assignments(free):
                    if share:
                        rules[ground(left, values)].append(
                            (weight * share, ground(right, values | more).split())
                        )
    for left, entries in LEXICON.items():
        for values, _ in assignments(variables(left)):
            slot = ground(left, values)
            ending = slot.endswith("pl]") if left.startswith("noun") else slot.endswith("sg]")
            pairs = [e.split("/") if "/" in e else [e, e + "s"] for e in entries.split()]
            words[slot] = (
                [pair[ending] for pair in pairs] if left.endswith("N]") else entries.split()
            )
    return rules, words | {mark: [mark] for mark in ".,?"}


GROUND, WORDS = ground_rules()


def weighted(symbol, depth):
    """[(probability, word or right-hand side)] of a symbol."""
    if symbol in WORDS:
        options = [(1 / rank, word) for rank, word in enumerate(WORDS[symbol], 1)]
    else:
        options = [
            (w, right)
            for w, right in GROUND[symbol]
            if depth < MAX_DEPTH or not any("^" in part for part in right)
        ]
    total = sum(w for w, _ in options)
    return [(w / total, outcome) for w, outcome in options]


def inside(tokens):
    """Probability and number of all derivations of a token string: a chart over (symbol, start)."""
    memo = {}

    def spans(symbol, depth, start):
        """{end: (probability, derivations)} of the symbol from this token on."""
        key = symbol, depth, start
        if key not in memo:
            found = defaultdict(lambda: (0.0, 0))
            for p, outcome in weighted(symbol, depth):
                if isinstance(outcome, str):
                    ends = {start + 1: (1.0, 1)} if tokens[start : start + 1] == [outcome] else {}
                else:
                    ends = {start: (1.0, 1)}
                    for part in outcome:
                        ends = chain(ends, part.lstrip("|^"), depth + ("^" in part))
                for end, (q, count) in ends.items():
                    found[end] = (found[end][0] + p * q, found[end][1] + count)
            memo[key] = dict(found)
        return memo[key]

    def chain(ends, symbol, depth):
        result = defaultdict(lambda: (0.0, 0))
        for middle, (p, count) in ends.items():
            for end, (q, more) in spans(symbol, depth, middle).items():
                result[end] = (result[end][0] + p * q, result[end][1] + count * more)
        return result

    return spans("Sentence", 0, 0).get(len(tokens), (0.0, 0))


def strings(symbol, depth):
    """Every token string of a symbol with its probability, one entry per derivation."""
    for p, outcome in weighted(symbol, depth):
        if isinstance(outcome, str):
            yield p, (outcome,)
            continue
        parts = [list(strings(part.lstrip("|^"), depth + ("^" in part))) for part in outcome]
        for choice in itertools.product(*parts):
            yield p * math.prod(q for q, _ in choice), sum((t for _, t in choice), ())


@pytest.fixture(scope="module")
def sample():
    return grammar.generate(4_000, seed=5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grammar")
    grammar.write_corpus(folder)
    return folder


@functools.cache
def leftmost(symbol, depth, limit):
    """(word class, what is to follow) for every way to expand a symbol down to its first word."""
    if symbol in WORDS:
        return ((symbol, ()),)
    return tuple(
        (first, rest + body[1:])
        for body in (
            tuple((part.lstrip("|^"), depth + ("^" in part)) for part in right)
            for _, right in GROUND[symbol]
            if depth < limit or not any("^" in part for part in right)
        )
        for first, rest in leftmost(*body[0], limit)
    )


@functools.cache
def common_words(one, other, limit):
    """The pairs of ways in which two symbols can begin with the same word."""
    return [
        (i, j, rest, other_rest)
        for i, (first, rest) in enumerate(leftmost(*one, limit))
        for j, (other_first, other_rest) in enumerate(leftmost(*other, limit))
        if not set(WORDS[first]).isdisjoint(WORDS[other_first])
    ]


def ambiguous(limit):
    """Whether some string has two derivations, clauses embedded at most this deep: a proof.

    Two leftmost derivations read the same words side by side; what either still has to derive is a
    tuple of symbols, of which there are finitely many. The grammar is ambiguous if and only if two
    derivations that have parted can come to the same remainder.
    """
    start = (("Sentence", 0),)
    seen, todo = {(start, start, False)}, [(start, start, False)]
    while todo:
        one, other, parted = todo.pop()
        if not one or not other:
            continue
        for i, j, rest, other_rest in common_words(one[0], other[0], limit):
            left, right = rest + one[1:], other_rest + other[1:]
            apart = parted or i != j
            if apart and left == right:
                return True
            pair = (min(left, right), max(left, right), apart)
            if pair not in seen:
                seen.add(pair)
                todo.append(pair)
    return False


def test_no_sentence_has_two_derivations():
    assert not ambiguous(limit=2)  # MAX_DEPTH holds too, in 10 s


def test_the_proof_finds_an_attachment_to_two_places(monkeypatch):
    action = GROUND["Action[person,sg]"]
    either = (1, ["verb[person/animate,sg]", "Object[person]", "Setting"])
    monkeypatch.setitem(GROUND, "Action[person,sg]", [*action, either])
    leftmost.cache_clear()
    common_words.cache_clear()
    assert ambiguous(limit=1)
    leftmost.cache_clear()
    common_words.cache_clear()


def test_a_sentence_has_one_derivation_whose_probability_is_its_own(sample):
    for sentence in sample[:250]:
        probability, derivations = inside(list(sentence.tokens))
        assert derivations == 1, " ".join(sentence.tokens)
        assert sentence.log_probability == pytest.approx(math.log(probability), rel=1e-12)


def test_the_oracle_rejects_what_is_not_of_the_language():
    assert inside(["the", "fox", "sleeps", "."])[1] == 1
    for text in (
        "the fox sleep .",  # number
        "the foxes that the king admires sings .",  # number over a relative clause
        "the fox that the king admires the dog sleeps .",  # the gap is filled
        "the king who the fox chases .",  # the main clause does not go on
        "either the fox sleeps , and the dog sleeps .",
        "if the fox sleeps , the dog sleeps .",
        "does the fox sleep .",
        "the lantern sleeps .",  # kind
    ):
        assert inside(text.split()) == (0.0, 0), text


def test_entropy_rate_against_the_mean_surprise_of_a_sample(sample):
    surprise = [-s.log_probability for s in sample]
    lengths = [len(s.tokens) + 1 for s in sample]
    rate, mean = grammar.entropy_rate(), sum(lengths) / len(lengths)
    excess = [h - rate * n for h, n in zip(surprise, lengths, strict=True)]
    error = math.sqrt(sum(e * e for e in excess)) / len(excess) / mean
    assert abs(sum(surprise) / sum(lengths) - rate) < 3 * error
    assert error < 0.01 * rate
    assert grammar.cross_entropy(sample) == pytest.approx(sum(surprise) / sum(lengths))


@pytest.mark.parametrize(
    ("symbol", "depth"),
    [
        ("Setting", 0),
        ("Attribute[thing]", 1),
        ("Plain[person,sg]", 0),
        ("Deed[animal/thing,pl]", 2),
        ("Quality[animal]", MAX_DEPTH),
    ],
)
def test_entropy_of_a_phrase_against_enumeration(symbol, depth):
    found = list(strings(symbol, depth))
    assert sum(p for p, _ in found) == pytest.approx(1)
    assert len({tokens for _, tokens in found}) == len(found)
    nats, length = grammar._moments(symbol, depth)
    assert nats == pytest.approx(-sum(p * math.log(p) for p, _ in found))
    assert length == pytest.approx(sum(p * len(tokens) for p, tokens in found))


def clauses(sentence):
    """The clauses of a sentence as lists of positions, by boundaries and depths alone."""
    found, open_at = [], {}
    for position, depth in enumerate(sentence.depths):
        if sentence.word_classes[position] == "punctuation":
            continue
        if sentence.clause_boundaries[position] or depth not in open_at:
            open_at[depth] = len(found)
            found.append([])
        found[open_at[depth]].append(position)
    return found


def number_of_subject(sentence, clause, question):
    """ "sg" or "pl", and the position of the subject's noun, from the clause's words alone."""
    words, classes = sentence.tokens, sentence.word_classes
    nouns = [p for p in clause if classes[p] in ("noun", "pronoun")]
    head = nouns[0] if nouns else None
    verbs = [p for p in clause if classes[p] in ("verb", "auxiliary")]
    verb = verbs[1] if question else verbs[0]
    if classes[clause[0]] == "relative" and (head is None or head > verb):
        head = clause[0] - 1  # the relative pronoun is the subject: its antecedent precedes it
        return ("pl" if words[head] in PLURAL else "sg"), head
    joined = [
        p
        for p in clause
        if head < p < verb and words[p] == "and" and not sentence.clause_boundaries[p]
    ]
    return ("pl" if joined or words[head] in PLURAL else "sg"), head


def check_agreement(sentence):
    """Asserts that the finite verb of each clause agrees with its subject; the widest distance."""
    widest = 0
    for number, clause in enumerate(clauses(sentence)):
        question = number == 0 and sentence.tokens[-1] == "?"
        subject, head = number_of_subject(sentence, clause, question)
        finite = next(p for p in clause if sentence.word_classes[p] in ("verb", "auxiliary"))
        word = sentence.tokens[finite]
        if word in WORDS["auxiliary[modal]"]:
            continue
        assert word in (THIRD if subject == "sg" else BASE), " ".join(sentence.tokens)
        widest = max(widest, finite - head)
    return widest


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40))
def test_verbs_agree_with_their_subjects(seed):
    for sentence in grammar.generate(5, seed):
        check_agreement(sentence)


def test_agreement_spans_long_distances(sample):
    assert sum(check_agreement(s) >= 6 for s in sample) > 0.15 * len(sample)


def test_the_agreement_check_sees_a_wrong_verb():
    sentence = next(s for s in grammar.generate(100, 0) if "chases" in s.tokens)
    wrong = tuple("chase" if token == "chases" else token for token in sentence.tokens)
    with pytest.raises(AssertionError):
        check_agreement(grammar.Sentence(wrong, *list(vars(sentence).values())[1:]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**40))
def test_ground_truth_of_each_token(seed):
    for s in grammar.generate(5, seed):
        assert len(s.tokens) == len(s.word_classes) == len(s.clause_boundaries) == len(s.depths)
        assert s.depths[0] == (s.word_classes[0] == "subordinator")
        assert not s.clause_boundaries[0]
        assert max(s.depths) <= MAX_DEPTH
        assert s.tokens[-1] in (".", "?")
        assert s.log_probability < 0
        for i in range(1, len(s.tokens)):
            before, word, kind = s.tokens[i - 1], s.tokens[i], s.word_classes[i]
            opener = kind in ("relative", "complementiser", "subordinator") or before == ","
            assert s.clause_boundaries[i] == opener
            if kind in ("relative", "complementiser"):
                assert s.depths[i] == s.depths[i - 1] + 1
            if before == "a":
                assert word[0] not in "aeiou"


def test_a_sentence_annotated_by_hand():
    by_hand = (  # | opens a clause; the figure is the depth from there on
        "if 1 our pirates who| 2 are grumpy 1 never insist that| 2 many clever bakers who| 3 are "
        "lonely 2 leave every teapot beside the kitchen 0 , then| some bakers from the garden "
        "think that| 1 no goose that| 2 the fox bites 1 does not swallow our precious key for our "
        "poets 0 ."
    )
    sentence = grammar.generate(1, seed=0)[0]
    opens, depths, depth = [], [], 0
    for part in by_hand.split():
        if part.isdigit():
            depth = int(part)
            if opens[-1] or len(opens) == 1:  # the opener lies in the clause it opens
                depths[-1] = depth
        else:
            opens.append(part.endswith("|"))
            depths.append(depth)
    assert " ".join(sentence.tokens) == re.sub(r"[|] \d| \d|[|]", "", by_hand)
    assert sentence.clause_boundaries == tuple(opens)
    assert sentence.depths == tuple(depths)
    assert Counter(sentence.word_classes) == {
        "noun": 10, "determiner": 10, "verb": 5, "auxiliary": 3, "adjective": 4, "preposition": 3,
        "relative": 3, "complementiser": 2, "adverb": 2, "negation": 1, "subordinator": 1,
        "punctuation": 2,
    }  # fmt: skip


def test_words_belong_to_one_class():
    classes = defaultdict(set)
    for slot, words in WORDS.items():
        assert len(set(words)) == len(words)
        for word in words:
            classes[word].add(slot.split("[")[0])
    shared = {word: found for word, found in classes.items() if len(found) > 1}
    assert shared == {
        "that": {"relative", "complementiser"},
        "when": {"subordinator", "interrogative"},
    }
    assert not SINGULAR & PLURAL
    assert not BASE & THIRD
    assert 200 <= len(classes) <= 350


def test_same_seed_same_text_on_every_machine():
    text = "\n".join(" ".join(s.tokens) for s in grammar.generate(1_000, seed=0))
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == "108075bca96bd7cba6ddb93909eebde5ed1ff03418fbb0a0cc615cdbb78fb387"
    assert grammar.generate(20, seed=1) == grammar.generate(20, seed=1)
    assert grammar.generate(20, seed=1) == grammar.generate(40, seed=1)[:20]
    assert grammar.generate(20, seed=1) != grammar.generate(20, seed=2)
    assert grammar.generate(0) == []


def test_a_negative_number_of_sentences_is_refused():
    with pytest.raises(ValueError, match="-3"):
        grammar.generate(-3)


def test_a_symbol_without_rule_or_words_is_named():
    with pytest.raises(KeyError, match="adjective\\[cloud\\]"):
        grammar._expand("adjective[cloud]", 0)


def test_corpus_is_far_from_unigram_and_its_vocabulary_closed(corpus):
    text = {split: (corpus / f"{split}.txt").read_text().split("\n") for split in grammar.SENTENCES}
    counts = Counter(w for line in text["train"][:-1] for w in (*line.split(), "<eos>"))
    total = sum(counts.values())
    assert 200_000 < total < 300_000
    assert min(counts.values()) >= 10
    assert set(counts) == {w for words in WORDS.values() for w in words} | {"<eos>"}
    test = [w for line in text["test"][:-1] for w in (*line.split(), "<eos>")]
    unigram = -sum(math.log(counts[w] / total) for w in test) / len(test)
    floor = json.loads((corpus / "floor.json").read_text())
    assert math.exp(unigram) > 8 * math.exp(floor["splits"]["test"]["cross_entropy"])


def test_written_corpus_holds_the_text_its_annotations_and_the_floor(corpus):
    floor = json.loads((corpus / "floor.json").read_text())
    assert floor["entropy_rate"] == pytest.approx(grammar.entropy_rate(), abs=1e-12)
    for split, size in grammar.SENTENCES.items():
        data = (corpus / f"{split}.txt").read_bytes()
        assert hashlib.sha256(data).hexdigest() == floor["splits"][split]["sha256"]
        sentences = grammar.read_annotations(corpus, split)
        assert len(sentences) == size
        assert [" ".join(s.tokens) for s in sentences] == data.decode().split("\n")[:-1]
        tokens = sum(len(s.tokens) + 1 for s in sentences)
        assert floor["splits"][split]["tokens"] == tokens
        nats = -sum(s.log_probability for s in sentences) / tokens
        assert floor["splits"][split]["cross_entropy"] == pytest.approx(nats, abs=1e-8)
        assert nats == pytest.approx(grammar.entropy_rate(), rel=0.02)
    assert sorted(p.suffix for p in corpus.iterdir()) == [".json"] + [".jsonl"] * 3 + [".txt"] * 3


def test_annotations_survive_writing(tmp_path):
    grammar.write_corpus(tmp_path, seed=3, sentences={"train": 30, "valid": 5, "test": 5})
    drawn = grammar.generate(40, seed=3)
    for part, split in ((drawn[:30], "train"), (drawn[30:35], "valid"), (drawn[35:], "test")):
        read = grammar.read_annotations(tmp_path, split)
        for ours, theirs in zip(part, read, strict=True):
            assert theirs.log_probability == pytest.approx(ours.log_probability, abs=1e-8)
            assert list(vars(ours).values())[:4] == list(vars(theirs).values())[:4]
    with pytest.raises(FileNotFoundError):
        grammar.read_annotations(tmp_path / "nowhere")
