"""The grammar of the embedded corpus as data: weighted rules and a lexicon.

`Name[K,N]` is a symbol with features. A capital in the brackets is a variable; one that stands only
on the right-hand side is drawn with the weights in `FEATURES`. A symbol has the alternatives of
every left-hand side that matches it, chosen by weight. `|` marks a symbol whose first token opens a
clause inside the sentence, `^` one that lies a level deeper; at `MAX_DEPTH` alternatives with `^`
drop out, which bounds recursion. Lower-case symbols are word classes, looked up in `LEXICON`: words
from frequent to rare, weighted 1/rank (Zipf's law), a noun as singular/plural and a verb as
base/third person where these differ by more than "s".

The grammar must stay unambiguous, else its entropy is no longer exact: each modifier may attach to
one place only. A noun takes a prepositional phrase or a relative clause, not both; nouns and verbs
have different prepositions; only verbs without an object take a setting; clauses are joined at the
top only. Nouns and their adjectives begin with a consonant sound, so that "a" is always right.
"""

MAX_DEPTH = 3

FEATURES = {
    "K": {"person": 46, "animal": 34, "thing": 20},  # kind of a noun
    "A": {"person": 58, "animal": 42},  # kinds that act and feel
    "N": {"sg": 55, "pl": 45, "base": 0},  # number; "base" is the verb form after an auxiliary
    "M": {"sg": 55, "pl": 45},  # number of a second noun
    "F": dict.fromkeys(  # frame of a verb: who does it / to what
        ("person/animate", "animal/animate", "thing/animate", "person/thing", "animal/thing"), 1
    ),
}

RULES = {
    "Sentence": {
        "Clause .": 42,
        "Clause , |conjunction[clause] Clause .": 16,
        "Clause |^Adverbial .": 14,
        "^Adverbial , |Clause .": 10,
        "^Condition , |adverb[then] Clause .": 5,
        "conjunction[either] Clause , |conjunction[or] Clause .": 4,
        "Question ?": 9,
    },
    "Clause": {"Subject[K,N] Predicate[K,N]": 1},
    "Adverbial": {"subordinator Clause": 1},
    "Condition": {"subordinator[if] Clause": 1},
    "Complement": {"complementiser Clause": 1},
    "Question": {
        "auxiliary[do,N] Subject[A,N] Action[A,base]": 4,
        "auxiliary[modal] Subject[A,N] Action[A,base]": 2,
        "interrogative auxiliary[do,N] Subject[A,N] Action[A,base]": 4,
    },
    # Noun phrases
    "Subject[K,N]": {
        "Plain[K,N]": 48,
        "Plain[K,N] |^Relative[K,N]": 30,
        "Plain[K,N] Attribute[K]": 14,
    },
    "Subject[person,pl]": {"Definite[person,N] conjunction[and] Definite[animal,M]": 12},
    "Subject[animal,pl]": {"Definite[animal,N] conjunction[and] Definite[person,M]": 12},
    "Object[K]": {
        "Plain[K,N]": 68,
        "Plain[K,N] |^Relative[K,N]": 18,
        "Plain[K,N] Attribute[K]": 12,
    },
    "Agent[K,N]": {"Plain[K,N]": 8, "Plain[K,N] Attribute[K]": 1},
    "Plain[K,N]": {
        "determiner[N] noun[K,N]": 60,
        "determiner[N] adjective[K] noun[K,N]": 30,
        "determiner[N] adverb[degree] adjective[K] noun[K,N]": 3,
    },
    "Plain[person,sg]": {"pronoun": 9},
    "Definite[K,N]": {"determiner[definite] noun[K,N]": 1},
    "Attribute[A]": {"preposition[with] Plain[thing,N]": 2, "preposition[from] Place": 1},
    "Attribute[thing]": {"preposition[for] Definite[A,N]": 1},
    "Place": {
        "determiner[place] noun[place]": 3,
        "determiner[place] adjective[place] noun[place]": 1,
    },
    # A relative clause lacks its subject (Predicate) or its object (Gapped).
    "Relative[K,N]": {"relative[K] Predicate[K,N]": 5, "relative[K] Gapped[K]": 4},
    "Gapped[A]": {
        "Agent[person,N] Deed[person/animate,N]": 5,
        "Agent[animal,N] Deed[animal/animate,N]": 3,
        "Agent[thing,N] Deed[thing/animate,N]": 1,
    },
    "Gapped[thing]": {
        "Agent[person,N] Deed[person/thing,N]": 5,
        "Agent[animal,N] Deed[animal/thing,N]": 3,
    },
    "Deed[F,N]": {
        "verb[F,N]": 8,
        "adverb[frequency] verb[F,N]": 1,
        "auxiliary[do,N] negation verb[F,base]": 1,
    },
    # Verb phrases
    "Predicate[K,N]": {
        "Action[K,N]": 56,
        "adverb[frequency] Action[K,N]": 9,
        "auxiliary[do,N] negation Action[K,base]": 8,
        "auxiliary[modal] Action[K,base]": 6,
        "auxiliary[be,N] Quality[K]": 15,
        "auxiliary[be,N] preposition[place] Place": 6,
    },
    "Action[person,N]": {
        "verb[person,N]": 10,
        "verb[person,N] adverb[manner]": 7,
        "verb[person,N] Setting": 10,
        "verb[person/animate,N] Object[A]": 26,
        "verb[person/thing,N] Object[thing]": 22,
        "verb[person/placed,N] Plain[thing,M] preposition[place] Place": 8,
        "verb[person/clause,N] |^Complement": 14,
    },
    "Action[animal,N]": {
        "verb[animal,N]": 12,
        "verb[animal,N] adverb[manner]": 7,
        "verb[animal,N] Setting": 14,
        "verb[animal/animate,N] Object[A]": 32,
        "verb[animal/thing,N] Object[thing]": 22,
        "verb[animal/clause,N] |^Complement": 6,
    },
    "Action[thing,N]": {
        "verb[thing,N]": 5,
        "verb[thing,N] Setting": 5,
        "verb[thing/animate,N] Object[A]": 7,
    },
    "Quality[K]": {"adjective[K]": 3, "adverb[degree] adjective[K]": 1},
    "Setting": {
        "preposition[place] Place": 3,
        "preposition[during] determiner[event] noun[event]": 1,
    },
}

_ANIMATE = "hungry clever sleepy proud shy grumpy tall lonely cheerful brave jealous polite"

LEXICON = {
    "noun[person,N]": "baker pirate king sailor farmer queen doctor painter thief/thieves poet "
    "wizard dentist barber drummer grandmother juggler",
    "noun[animal,N]": "fox/foxes dog cat goose/geese wolf/wolves rabbit donkey bear parrot "
    "hedgehog mouse/mice penguin",
    "noun[thing,N]": "lantern teapot key violin book ladder clock trumpet boat letter hat candle "
    "mirror carpet suitcase bicycle",
    "noun[place]": "garden kitchen castle forest barn market library tower cellar museum",
    "noun[event]": "storm feast concert parade wedding rehearsal",
    "adjective[person]": _ANIMATE,
    "adjective[animal]": _ANIMATE,
    "adjective[thing]": "rusty golden broken dusty heavy tiny wooden precious crooked mysterious",
    "adjective[place]": "dark quiet ruined famous draughty",
    "verb[person,N]": "laugh sing dance whistle sneeze yawn blush/blushes grumble",
    "verb[animal,N]": "sleep run doze sulk shiver wander stretch/stretches jump",
    "verb[thing,N]": "shine rattle creak wobble vanish/vanishes fall gleam",
    "verb[person/animate,N]": "greet admire tease invite thank tickle trust envy/envies scold",
    "verb[animal/animate,N]": "chase follow bite watch/watches lick guard ignore outwit",
    "verb[thing/animate,N]": "please puzzle frighten surprise annoy bore",
    "verb[person/thing,N]": "paint polish/polishes repair steal borrow sell carry/carries lose",
    "verb[animal/thing,N]": "chew break find drag swallow hoard",
    "verb[person/placed,N]": "hide leave keep store",
    "verb[person/clause,N]": "think say know believe hope claim insist",
    "verb[animal/clause,N]": "dream suspect",
    "auxiliary[do,N]": "do/does",
    "auxiliary[be,sg]": "is",
    "auxiliary[be,pl]": "are",
    "auxiliary[modal]": "will can must should",
    "negation": "not",
    "determiner[sg]": "the a every my our no",
    "determiner[pl]": "the some many our two my three",
    "determiner[definite]": "the our my",
    "determiner[place]": "the our",
    "determiner[event]": "the every",
    "pronoun": "somebody nobody everybody",
    "relative[person]": "who",
    "relative[animal]": "that",
    "relative[thing]": "that which",
    "complementiser": "that",
    "subordinator": "because while when although until whenever unless",
    "subordinator[if]": "if",
    "conjunction[clause]": "and but so",
    "conjunction[and]": "and",
    "conjunction[either]": "either",
    "conjunction[or]": "or",
    "interrogative": "why when where how",
    "preposition[place]": "in near behind beside outside",
    "preposition[during]": "during",
    "preposition[with]": "with",
    "preposition[from]": "from",
    "preposition[for]": "for",
    "adverb[frequency]": "never always often rarely still secretly",
    "adverb[manner]": "quietly loudly happily badly slowly twice",
    "adverb[degree]": "very rather quite truly",
    "adverb[then]": "then",
}
