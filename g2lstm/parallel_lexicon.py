"""The words of the embedded parallel corpus, German-like and English-like, and their forms.

`LEXICON` has the entries of each lexical symbol, from frequent to rare, "German=English"; `forms`
inflects one for the features of its symbol.
"""

from collections.abc import Iterator
from typing import NamedTuple

_ANIMATE = "klein=small alt=old müde=tired hungrig=hungry traurig=sad"
_THING = "neu=new alt=old schön=beautiful schwer=heavy"

LEXICON = {
    # singular/plural=singular/plural; the English plural only where it does not just add "s"
    "noun[person,m,N,C]": "Bäcker/Bäcker=baker König/Könige=king Lehrer/Lehrer=teacher "
    "Arzt/Ärzte=doctor",
    "noun[person,f,N,C]": "Königin/Königinnen=queen Schwester/Schwestern=sister "
    "Malerin/Malerinnen=painter Tante/Tanten=aunt",
    "noun[person,n,N,C]": "Kind/Kinder=child/children Mädchen/Mädchen=girl",
    "noun[animal,m,N,C]": "Hund/Hunde=dog Vogel/Vögel=bird Esel/Esel=donkey",
    "noun[animal,f,N,C]": "Katze/Katzen=cat Maus/Mäuse=mouse/mice Gans/Gänse=goose/geese",
    "noun[animal,n,N,C]": "Pferd/Pferde=horse Schaf/Schafe=sheep/sheep",
    "noun[thing,m,N,C]": "Apfel/Äpfel=apple Brief/Briefe=letter Schlüssel/Schlüssel=key",
    "noun[thing,f,N,C]": "Blume/Blumen=flower Uhr/Uhren=clock Tasche/Taschen=bag",
    "noun[thing,n,N,C]": "Buch/Bücher=book Bild/Bilder=picture",
    "noun[place,m,sg,dat]": "Garten=garden Wald=forest",
    "noun[place,f,sg,dat]": "Kirche=church Schule=school",
    "noun[place,n,sg,dat]": "Haus=house Schloss=castle",
    # nominative without an ending=English
    "adjective[person]": _ANIMATE,
    "adjective[animal]": _ANIMATE,
    "adjective[thing]": _THING,
    "adjective[person,D,C,G,N]": _ANIMATE,
    "adjective[animal,D,C,G,N]": _ANIMATE,
    "adjective[thing,D,C,G,N]": _THING,
    # stem, its endings in ENDINGS=singular/plural
    "determiner[the,C,G,N]": "d/der=the",
    "determiner[this,C,G,N]": "dies/dieser=this/these",
    "determiner[a,C,G,sg]": "ein/ein=a",
    "determiner[my,C,G,N]": "mein/ein=my unser/ein=our",
    "determiner[no,C,G,N]": "kein/ein=no",
    "determiner[many,C,G,pl]": "viel/dieser=many einig/dieser=some",
    "relative[C,G,N]": "d/relative=",
    # infinitive/third person/participle=base/past; "auf_" comes off, "+" takes "ist", not "hat"
    "~rest[T,P,Y]": "schlafen/schläft/geschlafen=sleep/slept warten/wartet/gewartet=wait "
    "singen/singt/gesungen=sing/sang auf_wachen/wacht/+gewacht=wake_up/woke_up "
    "laufen/läuft/+gelaufen=run/ran essen/isst/gegessen=eat/ate",
    "~see[T,P,Y]": "sehen/sieht/gesehen=see/saw suchen/sucht/gesucht=look_for "
    "hören/hört/gehört=hear/heard lieben/liebt/geliebt=love finden/findet/gefunden=find/found",
    "~help[T,P,Y]": "helfen/hilft/geholfen=help folgen/folgt/+gefolgt=follow "
    "danken/dankt/gedankt=thank",
    "~wait[T,P,Y]": "warten/wartet/gewartet=wait",
    "~call[T,P,Y]": "an_rufen/ruft/gerufen=call ein_laden/lädt/geladen=invite "
    "besuchen/besucht/besucht=visit",
    "~buy[T,P,Y]": "kaufen/kauft/gekauft=buy/bought suchen/sucht/gesucht=look_for "
    "mit_bringen/bringt/gebracht=bring/brought verkaufen/verkauft/verkauft=sell/sold "
    "brauchen/braucht/gebraucht=need vergessen/vergisst/vergessen=forget/forgot",
    "~give[T,P,Y]": "geben/gibt/gegeben=give/gave zeigen/zeigt/gezeigt=show "
    "schicken/schickt/geschickt=send/sent",
    "~play[T,P,Y]": "spielen/spielt/gespielt=play tanzen/tanzt/getanzt=dance",
    "~say[T,P,Y]": "sagen/sagt/gesagt=say/said glauben/glaubt/geglaubt=believe "
    "hoffen/hofft/gehofft=hope denken/denkt/gedacht=think/thought",
    "~ask[T,P,Y]": "fragen/fragt/gefragt=ask",
    "~be[present,ich]": "bin=am",
    "~be[present,sg]": "ist=is",
    "~be[present,wir]": "sind=are",
    "~be[present,pl]": "sind=are",
    "~be[past,ich]": "war=was",
    "~be[past,sg]": "war=was",
    "~be[past,wir]": "waren=were",
    "~be[past,pl]": "waren=were",
}

MODALS = {
    # plural/third person/first person: English affirmative and negated, third person/others
    "werden/wird/werde": ("will", "will not"),
    "wollen/will/will": ("wants to/want to", "does not want to/do not want to"),
    "können/kann/kann": ("can", "cannot"),
    "müssen/muss/muss": ("must", "does not have to/do not have to"),
    "sollen/soll/soll": ("should", "should not"),
}

PERFECT = {  # plural/third person/first person
    "hat": "haben/hat/habe",
    "ist": "sind/ist/bin",
}

ENDINGS = {
    # masculine, feminine, neuter, plural: nominative, then accusative, then dative
    "der": "er ie as ie  en ie as ie  em er em en",
    "relative": "er ie as ie  en ie as ie  em er em enen",
    "dieser": "er e es e  en e es e  em er em en",
    "ein": "- e - e  en e - e  em er em en",
    # of an adjective after each kind of determiner
    "the": "e e e en  en e e en  en en en en",
    "this": "e e e en  en e e en  en en en en",
    "a": "er e es en  en e es en  en en en en",
    "no": "er e es en  en e es en  en en en en",
    "my": "er e es en  en e es en  en en en en",
    "many": "er e es e  en e es e  em er em en",
}


class Verb(NamedTuple):
    """A German verb in its clause: "sieht" + "", "hat" + "gesehen", "will" + "sehen"."""

    finite: str
    rest: str
    joined: bool  # in a verb-final clause one word: "ruft" + "an" gives "anruft"


def _ending(paradigm: str, case: str, gender: str, number: str) -> str:
    column = 3 if number == "pl" else "mfn".index(gender)
    return ENDINGS[paradigm].split()[4 * ("nom", "acc", "dat").index(case) + column].strip("-")


def _finite(forms: str, person: str) -> str:
    """The present of "plural/third person/first person" for a person."""
    plural, third, first = forms.split("/")
    return {"sg": third, "ich": first}.get(person, plural)


def _english_verb(forms: str, tense: str, person: str, negated: bool) -> str:
    base, _, past = forms.replace("_", " ").partition("/")
    if negated:
        return f"{'did' if tense == 'past' else 'does' if person == 'sg' else 'do'} not {base}"
    verb, space, particle = base.partition(" ")
    if tense == "past":
        return past or verb.removesuffix("e") + "ed" + space + particle
    return (verb + "s" if person == "sg" else verb) + space + particle


def _verb_forms(entry: str, tense: str, person: str, polarity: str = "yes") -> Iterator[tuple]:
    source, _, target = entry.partition("=")
    if "/" not in source:
        yield Verb(source, "", False), target
        return
    infinitive, third, participle = source.split("/")
    particle, _, stem = infinitive.rpartition("_")
    english = _english_verb(target, tense, person, polarity == "no")
    if tense == "present":
        finite = _finite(f"{stem}/{third}/{stem.removesuffix('n')}", person)
        yield Verb(finite, particle, bool(particle)), english
    elif tense == "past":
        auxiliary = PERFECT["ist" if participle.startswith("+") else "hat"]
        yield Verb(_finite(auxiliary, person), particle + participle.lstrip("+"), False), english
    else:
        base = _english_verb(target, "present", "pl", False)
        for modal, translations in MODALS.items():
            translation = translations[polarity == "no"].split("/")[0 if person == "sg" else -1]
            yield Verb(_finite(modal, person), particle + stem, False), f"{translation} {base}"


def forms(name: str, features: list[str], entry: str) -> Iterator[tuple[str | Verb, str]]:
    """German and English form of an entry of `LEXICON`.

    Args:
        name: of the lexical symbol: "noun", "adjective", "determiner", "relative" or "~..." (verb).
        features: of the symbol, without variables.
        entry: as in `LEXICON`.

    Yields:
        One pair; of a verb in the tense "modal" one for each of `MODALS`, from frequent to rare.
    """
    source, _, target = entry.partition("=")
    if name.startswith("~"):
        yield from _verb_forms(entry, *features)
    elif name == "noun":
        _, _, number, case = features
        singular, _, plural = source.partition("/")
        one, _, many = target.partition("/")
        if case == "dat" and plural[-1:] not in ("n", "s"):
            plural += "n"
        yield (singular, one) if number == "sg" else (plural, many or one + "s")
    elif name == "adjective":
        inflected = features[1:]
        yield source.removesuffix("e") + _ending(*inflected) if inflected else source, target
    else:
        stem, paradigm = source.split("/")
        singular, _, plural = target.partition("/")
        form = stem + _ending(paradigm, *features[-3:])
        yield form, plural if plural and features[-1] == "pl" else singular
