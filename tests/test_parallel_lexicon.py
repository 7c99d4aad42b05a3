"""Forms of German and English words against tables typed by hand."""

import itertools

import pytest

from g2lstm.parallel_lexicon import LEXICON, Verb, forms

# infinitive, with ich, with er, participle, auxiliary | base, with he, past
VERBS = """
schlafen schlafe schläft geschlafen hat | sleep sleeps slept
warten warte wartet gewartet hat | wait waits waited
singen singe singt gesungen hat | sing sings sang
auf_wachen auf_wache auf_wacht aufgewacht ist | wake_up wakes_up woke_up
laufen laufe läuft gelaufen ist | run runs ran
essen esse isst gegessen hat | eat eats ate
sehen sehe sieht gesehen hat | see sees saw
suchen suche sucht gesucht hat | look_for looks_for looked_for
hören höre hört gehört hat | hear hears heard
lieben liebe liebt geliebt hat | love loves loved
finden finde findet gefunden hat | find finds found
helfen helfe hilft geholfen hat | help helps helped
folgen folge folgt gefolgt ist | follow follows followed
danken danke dankt gedankt hat | thank thanks thanked
an_rufen an_rufe an_ruft angerufen hat | call calls called
ein_laden ein_lade ein_lädt eingeladen hat | invite invites invited
besuchen besuche besucht besucht hat | visit visits visited
kaufen kaufe kauft gekauft hat | buy buys bought
mit_bringen mit_bringe mit_bringt mitgebracht hat | bring brings brought
verkaufen verkaufe verkauft verkauft hat | sell sells sold
brauchen brauche braucht gebraucht hat | need needs needed
vergessen vergesse vergisst vergessen hat | forget forgets forgot
geben gebe gibt gegeben hat | give gives gave
zeigen zeige zeigt gezeigt hat | show shows showed
schicken schicke schickt geschickt hat | send sends sent
spielen spiele spielt gespielt hat | play plays played
tanzen tanze tanzt getanzt hat | dance dances danced
sagen sage sagt gesagt hat | say says said
glauben glaube glaubt geglaubt hat | believe believes believed
hoffen hoffe hofft gehofft hat | hope hopes hoped
denken denke denkt gedacht hat | think thinks thought
fragen frage fragt gefragt hat | ask asks asked
"""
VERBS = [[side.split() for side in line.split("|")] for line in VERBS.strip().splitlines()]
AUXILIARIES = {"hat": ("haben", "habe", "hat"), "ist": ("sind", "bin", "ist")}
BE = {
    "present": {"ich": "bin am", "sg": "ist is", "wir": "sind are", "pl": "sind are"},
    "past": {"ich": "war was", "sg": "war was", "wir": "waren were", "pl": "waren were"},
}
# with wir, with ich, with er | with I, with he, negated with I, negated with he
MODALS = {
    "werden werde wird": "will, will, will not, will not",
    "wollen will will": "want to, wants to, do not want to, does not want to",
    "können kann kann": "can, can, cannot, cannot",
    "müssen muss muss": "must, must, do not have to, does not have to",
    "sollen soll soll": "should, should, should not, should not",
}

NOUNS = """
m Bäcker Bäcker Bäckern baker bakers
m König Könige Königen king kings
m Lehrer Lehrer Lehrern teacher teachers
m Arzt Ärzte Ärzten doctor doctors
f Königin Königinnen Königinnen queen queens
f Schwester Schwestern Schwestern sister sisters
f Malerin Malerinnen Malerinnen painter painters
f Tante Tanten Tanten aunt aunts
n Kind Kinder Kindern child children
n Mädchen Mädchen Mädchen girl girls
m Hund Hunde Hunden dog dogs
m Vogel Vögel Vögeln bird birds
m Esel Esel Eseln donkey donkeys
f Katze Katzen Katzen cat cats
f Maus Mäuse Mäusen mouse mice
f Gans Gänse Gänsen goose geese
n Pferd Pferde Pferden horse horses
n Schaf Schafe Schafen sheep sheep
m Apfel Äpfel Äpfeln apple apples
m Brief Briefe Briefen letter letters
m Schlüssel Schlüssel Schlüsseln key keys
f Blume Blumen Blumen flower flowers
f Uhr Uhren Uhren clock clocks
f Tasche Taschen Taschen bag bags
n Buch Bücher Büchern book books
n Bild Bilder Bildern picture pictures
m Garten - - garden -
m Wald - - forest -
f Kirche - - church -
f Schule - - school -
n Haus - - house -
n Schloss - - castle -
"""
NOUNS = {row.split()[1]: row.split() for row in NOUNS.strip().splitlines()}

# masculine, feminine, neuter, plural; nominative, accusative, dative
DETERMINERS = {
    "the": "der die das die den die das die dem der dem den",
    "this": "dieser diese dieses diese diesen diese dieses diese diesem dieser diesem diesen",
    "a": "ein eine ein - einen eine ein - einem einer einem -",
    "my": "mein meine mein meine meinen meine mein meine meinem meiner meinem meinen",
    "our": "unser unsere unser unsere unseren unsere unser unsere unserem unserer unserem unseren",
    "no": "kein keine kein keine keinen keine kein keine keinem keiner keinem keinen",
    "many": "- - - viele - - - viele - - - vielen",
    "some": "- - - einige - - - einige - - - einigen",
    "relative": "der die das die den die das die dem der dem denen",
}
KINDS = {"our": "my", "some": "many"}  # of determiners, where not named like the word itself
ADJECTIVES = {
    "klein": "small",
    "alt": "old",
    "müd": "tired",
    "hungrig": "hungry",
    "traurig": "sad",
    "neu": "new",
    "schön": "beautiful",
    "schwer": "heavy",
}


def finite(row, person):
    return row[{"ich": 1, "sg": 2}.get(person, 0)]


def expected_forms(german, english, tense, person, negated):
    """[(in a main clause, at the end of a clause, English)]: the forms of a verb."""
    particle, _, infinitive = german[0].rpartition("_")
    base, third, past = (form.replace("_", " ") for form in english)
    if tense == "present":
        own = finite(german, person).rpartition("_")[2]
        plain = third if person == "sg" else base
        denied = f"does not {base}" if person == "sg" else f"do not {base}"
        return [((own, particle), [particle + own], denied if negated else plain)]
    if tense == "past":
        own = finite(AUXILIARIES[german[4]], person)
        denied = f"did not {base}"
        return [((own, german[3]), [german[3], own], denied if negated else past)]
    expected = []
    for modal, translations in MODALS.items():
        own, rest = finite(modal.split(), person), particle + infinitive
        translation = translations.split(", ")[2 * negated + (person == "sg")]
        expected.append(((own, rest), [rest, own], f"{translation} {base}"))
    return expected


def entries(prefix):
    """(symbol's name, entry) of every lexical symbol that begins so."""
    for pattern, words in LEXICON.items():
        if pattern.startswith(prefix):
            yield from ((pattern, entry) for entry in words.split())


def test_verbs():
    table = {german[0]: (german, english) for german, english in VERBS}
    seen = set()
    persons = ("ich", "sg", "wir", "pl")
    for pattern, entry in entries("~"):
        name = pattern.partition("[")[0]
        if name == "~be":
            continue
        infinitive = entry.partition("/")[0]
        seen.add(infinitive)
        for tense, person, polarity in itertools.product(
            ("present", "past", "modal"), persons, ("yes", "no")
        ):
            found = []
            for verb, target in forms(name, [tense, person, polarity], entry):
                whole = verb.rest + verb.finite if verb.joined else f"{verb.rest} {verb.finite}"
                found.append(((verb.finite, verb.rest), whole.split(), target))
            assert found == expected_forms(*table[infinitive], tense, person, polarity == "no")
    assert seen == set(table)


def test_to_be():
    found = {pattern: list(forms("~be", ["", ""], entry)) for pattern, entry in entries("~be")}
    assert found == {
        f"~be[{tense},{person}]": [(Verb(pair.split()[0], "", False), pair.split()[1])]
        for tense, persons in BE.items()
        for person, pair in persons.items()
    }


def test_nouns():
    seen = set()
    for pattern, entry in entries("noun"):
        kind, gender = pattern[5:].split(",")[:2]
        singular = entry.replace("=", "/").split("/")[0]
        seen.add(singular)
        row = NOUNS[singular]
        assert gender == row[0]
        for case in ("nom", "acc", "dat"):
            assert list(forms("noun", [kind, gender, "sg", case], entry)) == [(row[1], row[4])]
            if kind != "place":
                plural = row[3] if case == "dat" else row[2]
                assert list(forms("noun", [kind, gender, "pl", case], entry)) == [(plural, row[5])]
    assert seen == set(NOUNS)


@pytest.mark.parametrize("word", DETERMINERS)
def test_determiners(word):
    kind = KINDS.get(word, word)
    places = itertools.product(("nom", "acc", "dat"), ("m", "f", "n", "pl"))
    for form, (case, gender) in zip(DETERMINERS[word].split(), places, strict=True):
        if form == "-":
            continue
        number = "pl" if gender == "pl" else "sg"
        features = [case, "f" if gender == "pl" else gender, number]
        target = {"relative": "", "this": "these" if number == "pl" else "this"}.get(word, word)
        found = []
        for pattern, entry in entries("relative" if word == "relative" else f"determiner[{kind},"):
            if pattern.endswith(number + "]") or pattern.endswith("N]"):
                found += forms(pattern.partition("[")[0], features, entry)
        assert (form, target) in found


def adjective_ending(determiner, case, gender):
    """The school rule, of a form of the determiner: who shows gender and case, who does not."""
    if determiner in ("viele", "einige", "ein", "mein", "unser", "kein"):
        return {"m": "er", "n": "es", "pl": "e"}[gender]
    singular_plain = gender != "pl" and (case == "nom" or (case == "acc" and gender != "m"))
    return "e" if singular_plain else "en"


@pytest.mark.parametrize("word", [word for word in DETERMINERS if word != "relative"])
def test_adjectives(word):
    places = itertools.product(("nom", "acc", "dat"), ("m", "f", "n", "pl"))
    for determiner, (case, gender) in zip(DETERMINERS[word].split(), places, strict=True):
        if determiner == "-":
            continue
        ending = adjective_ending(determiner, case, gender)
        number = "pl" if gender == "pl" else "sg"
        features = [KINDS.get(word, word), case, "m" if gender == "pl" else gender, number]
        for pattern, entry in entries("adjective"):
            kind = pattern[10:].rstrip("]").split(",")[0]
            stem = entry.partition("=")[0].removesuffix("e")
            expected = [(stem + ending, ADJECTIVES[stem])]
            assert list(forms("adjective", [kind, *features], entry)) == expected
            assert list(forms("adjective", [kind], entry)) == [
                (entry.partition("=")[0], ADJECTIVES[stem])
            ]
