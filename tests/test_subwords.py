"""Subwords: exact text back, greedy merges (against a naive learner), specials, files."""

import itertools
import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from g2lstm.subwords import END, PAD, SPECIALS, UNKNOWN, Subwords, learn_subwords

GERMAN = [
    "Der Hund, der im Garten schläft, gehört mir.",
    "Die Hunde schlafen im Garten.",
    "Gehört der Garten dir?",
    "Ich weiß, dass der Hund schläft.",
]
ENGLISH = [
    "The dog that sleeps in the garden is mine.",
    "The dogs sleep in the garden.",
    "Is the garden yours?",
    "I know that the dog sleeps; it&apos;s mine, isn &apos;t it?",
]
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)


def words(sentence):
    """A space belongs to what comes after it; punctuation stands alone, but for escapes."""
    found = []
    for chunk in sentence.split():
        first, *others = re.findall(r"&(?:\w+|#\d+);|\w+|\W", chunk) or [""]
        found += [f" {first}", *others]
    return found


def apply(pieces, pair):
    """`pieces` with every occurrence of `pair` joined, from the left."""
    joined, i = [], 0
    while i < len(pieces):
        step = 2 if tuple(pieces[i : i + 2]) == pair else 1
        joined.append("".join(pieces[i : i + step]))
        i += step
    return joined


# Exact text


@settings(max_examples=100)
@given(st.lists(TEXT, min_size=1, max_size=6), st.integers(0, 60), st.data())
def test_text_of_training_characters_comes_back_exactly(sentences, merges, data):
    sentences = [" ".join(f"a{sentence}".split()) for sentence in sentences]
    sentences = [unicodedata.normalize("NFC", sentence) for sentence in sentences]
    subwords, _ = learn_subwords((sentences, ["a"]), merges, joint=False)
    alphabet = sorted(set("".join(sentences)) | {" "})
    new = data.draw(st.lists(st.text(st.sampled_from(alphabet), max_size=20), max_size=5))
    new = [" ".join(s.split()) for s in new if unicodedata.is_normalized("NFC", s)]
    for texts in (sentences, new):
        indices = subwords.encode(texts)
        assert subwords.decode(indices) == texts
        assert all(END < i < len(subwords) for row in indices for i in row)


@pytest.mark.parametrize(
    "text",
    [*SPECIALS, "<s>Der Hund</s>", "zwei Leerzeichen", "▁Hund", "", "&#91; &quot;", "a_b"],
)
def test_odd_text_comes_back_exactly(text):
    subwords, _ = learn_subwords(([*GERMAN, text], ENGLISH), 50, joint=False)
    (row,) = subwords.encode([text])
    assert subwords.decode([row]) == [text]
    assert all(i > END for i in row)


SPACES = [chr(n) for n in range(sys.maxunicode) if chr(n).isspace()]


@given(st.lists(st.text(st.sampled_from(SPACES), min_size=1, max_size=3), min_size=5, max_size=5))
def test_any_white_space_counts_as_a_single_blank(spaces):
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 20, joint=False)
    before, *between, after = spaces
    parts = ["Die", "Hunde", "schlafen", "im"]
    text = before + "".join(map("".join, zip(parts, [*between, ""], strict=True))) + after
    assert subwords.encode([text]) == subwords.encode(["Die Hunde schlafen im"])
    # Text to learn from is taken in the same way.
    learnt, _ = learn_subwords(([text, *GERMAN], ENGLISH), 20, joint=False)
    plain, _ = learn_subwords((["Die Hunde schlafen im", *GERMAN], ENGLISH), 20, joint=False)
    assert (learnt.pieces, learnt.merges, learnt.words) == (
        plain.pieces, plain.merges, plain.words,
    )  # fmt: skip


def test_half_a_character_is_refused():
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 20, joint=False)
    with pytest.raises(ValueError, match=r"'a\\ud83d b' holds a lone surrogate"):
        subwords.encode(["ab", "a\ud83d b"])


def test_words_that_the_training_text_lacks(tmp_path):
    subwords, english = learn_subwords((GERMAN, ENGLISH), 20, joint=False)
    text = "Die hunde-Hunde schlafen, scho\u0308n im\u00a0Garten."
    assert subwords.unseen_words(text) == ["hunde", "schön"]
    assert "Hunde" in english.unseen_words(text)
    subwords.save(tmp_path / "new")
    assert Subwords.load(tmp_path / "new").unseen_words(text) == ["hunde", "schön"]
    # A file of an earlier version holds no words: nothing is known.
    Subwords(subwords.pieces, subwords.merges).save(tmp_path / "old")
    assert Subwords.load(tmp_path / "old").unseen_words(text) == []


def test_composed_and_decomposed_letters_are_one():
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 20, joint=False)
    decomposed = unicodedata.normalize("NFD", "schläft")
    assert subwords.encode([decomposed]) == subwords.encode(["schläft"])
    assert subwords.decode(subwords.encode([decomposed])) == ["schläft"]


def test_a_character_not_met_in_training_is_unknown():
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 20, joint=False)
    (row,) = subwords.encode(["Hund猫猫."])
    assert row.count(UNKNOWN) == 2
    assert subwords.decode([row]) == ["Hund."]
    assert subwords.tokens("猫")[-1] == "<unk>"


def test_specials_are_left_out_of_decoded_text():
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 20, joint=False)
    assert [subwords.pieces[i] for i in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]
    (row,) = subwords.encode(["im Garten"])
    assert subwords.decode([[2, *row, UNKNOWN, END, PAD, PAD], []]) == ["im Garten", ""]


def test_tokens_are_for_people():
    subwords, _ = learn_subwords((GERMAN * 2, ENGLISH), 1000, joint=False)
    assert subwords.tokens("der Hund, im Garten.") == ["▁der", "▁Hund", ",", "▁im", "▁Garten", "."]
    _, english = learn_subwords((GERMAN, ENGLISH * 2), 1000, joint=False)
    assert english.tokens("it &apos;s")[1:] == ["▁&apos;", "s"]


# Learning


@pytest.mark.parametrize("merges", [0, 1, 25])
def test_vocabulary_is_specials_characters_and_merges(merges):
    source, target = learn_subwords((GERMAN, ENGLISH), merges, joint=False)
    for subwords, sentences in ((source, GERMAN), (target, ENGLISH)):
        characters = set(" ".join(sentences))
        assert len(subwords.merges) == merges
        assert subwords.pieces[: len(SPECIALS)] == list(SPECIALS)
        assert set(subwords.pieces[4 : 4 + len(characters)]) == characters
        assert subwords.pieces[4 + len(characters) :] == ["".join(m) for m in subwords.merges]
        assert len(subwords) == 4 + len(characters) + merges


def test_merges_join_the_most_frequent_pair_within_words():
    sentences = GERMAN + ENGLISH
    subwords, _ = learn_subwords((sentences, ["a"]), 10_000, joint=False)
    split = [list(word) for sentence in sentences for word in words(sentence)]
    for merge in subwords.merges:
        counts = Counter(pair for pieces in split for pair in itertools.pairwise(pieces))
        assert counts[merge] == max(counts.values()) >= 2
        split = [apply(pieces, merge) for pieces in split]
    assert max(Counter(p for pieces in split for p in itertools.pairwise(pieces)).values()) == 1


@given(st.text(st.sampled_from(" Hundergat.,&posr;<>_"), max_size=30))
def test_encoding_applies_the_merges_in_their_order(sentence):
    subwords, _ = learn_subwords((GERMAN + ENGLISH + [sentence], ["a"]), 80, joint=False)
    expected = []
    for word in words(sentence):
        pieces = list(word)
        for merge in subwords.merges:
            pieces = apply(pieces, merge)
        expected += pieces
    assert subwords.tokens(sentence) == [piece.replace(" ", "▁") for piece in expected]


def test_joint_subwords_are_one_object_learnt_from_both_sides():
    source, target = learn_subwords((GERMAN, ENGLISH), 40, joint=True)
    assert source is target
    alone, _ = learn_subwords((GERMAN + ENGLISH, ENGLISH), 40, joint=False)
    assert (source.pieces, source.merges) == (alone.pieces, alone.merges)
    assert UNKNOWN not in itertools.chain(*source.encode(GERMAN + ENGLISH))


def test_learning_is_the_same_in_every_process():
    code = (
        "import json, sys; from g2lstm.subwords import learn_subwords;"
        "s, _ = learn_subwords((json.loads(sys.argv[1]), ['a']), 60, False);"
        "print(json.dumps([s.pieces, s.merges]))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code, json.dumps(GERMAN + ENGLISH)],
            env=os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            check=True,
        ).stdout
        for seed, parallel in (("0", "true"), ("1", "false"))
    }
    here, _ = learn_subwords((GERMAN + ENGLISH, ["a"]), 60, joint=False)
    (output,) = outputs
    assert json.loads(output) == json.loads(json.dumps([here.pieces, here.merges]))


def test_a_fork_after_use_neither_hangs_nor_warns():
    code = """if True:
        import os
        from g2lstm.subwords import learn_subwords
        subwords, _ = learn_subwords((["a b"] * 1000, ["a b"]), 2, False)
        before = subwords.encode(["a b"] * 1000)
        if child := os.fork():
            raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os._exit(subwords.encode(["a b"] * 1000) != before)
    """
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# Errors


@pytest.mark.parametrize("merges", [-1, 2.0, "5", True, None])
def test_number_of_merges_that_is_none(merges):
    with pytest.raises(ValueError, match=re.escape(f"merges is {merges!r}")):
        learn_subwords((GERMAN, ENGLISH), merges, joint=True)


@pytest.mark.parametrize("empty", [[], [""], [" ", "  "]])
def test_no_text_to_learn_from(empty):
    with pytest.raises(ValueError, match=r"no text .* on the target side"):
        learn_subwords((GERMAN, empty), 5, joint=False)
    with pytest.raises(ValueError, match=r"no text .* on the source and target side"):
        learn_subwords((empty, empty), 5, joint=True)


def test_a_string_is_not_a_list_of_sentences():
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 5, joint=True)
    with pytest.raises(TypeError, match="Der Hund"):
        subwords.encode("Der Hund")


@pytest.mark.parametrize(
    ("pieces", "merges", "message"),
    [
        (["a", *SPECIALS], [], "subwords start with <pad> <unk> <s> </s>"),
        ([*SPECIALS, "a", "a"], [], "'a' appears twice"),
        ([*SPECIALS, "a", "b"], [("a", "b")], "'a' and 'b' is not among the pieces"),
        ([*SPECIALS, "ab", "a"], [("a", "b")], "'a' and 'b' is not among the pieces"),
    ],
)
def test_subwords_that_do_not_fit_together(pieces, merges, message):
    with pytest.raises(ValueError, match=message):
        Subwords(pieces, merges)


# Files


def test_a_file_gives_the_same_subwords(tmp_path):
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 40, joint=True)
    subwords.save(tmp_path / "folder" / "subwords.json")
    loaded = Subwords.load(tmp_path / "folder" / "subwords.json")
    assert (loaded.pieces, loaded.merges) == (subwords.pieces, subwords.merges)
    text = [*GERMAN, *ENGLISH, "neuer Text 猫"]
    assert loaded.encode(text) == subwords.encode(text)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["subwords.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace("g2lstm subwords 1", "another"),
        lambda text: text.replace('"pieces"', '"others"'),
        lambda text: text.replace('"<unk>"', '"unk"'),
        lambda text: json.dumps(json.loads(text) | {"merges": [["a"]]}),
        lambda text: json.dumps(json.loads(text) | {"pieces": 5}),
        lambda text: json.dumps(json.loads(text) | {"words": 5}),
        lambda text: json.dumps(json.loads(text) | {"words": "Hund"}),
        lambda text: json.dumps(json.loads(text) | {"words": [["Hund"]]}),
        lambda text: json.dumps(json.loads(text) | {"pieces": [*SPECIALS, "\ud83d"]}),
        lambda text: '{"format":' + "[" * 100_000,
        lambda text: json.dumps(json.loads(text) | {"pieces": [*SPECIALS, 5]}),
        lambda text: "[]",
        lambda text: "",
    ],
)
def test_a_damaged_file_is_named(tmp_path, change):
    path = tmp_path / "subwords.json"
    subwords, _ = learn_subwords((GERMAN, ENGLISH), 5, joint=True)
    subwords.save(path)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=r"subwords\.json is not a file of subwords.*learn them"):
        Subwords.load(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        Subwords.load(tmp_path / "nothing.json")
