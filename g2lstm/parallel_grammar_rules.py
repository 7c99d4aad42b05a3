"""The synchronous grammar of the embedded parallel corpus as data: weighted rules.

A rule gives both sides at once, "German | English"; without a bar they are alike. A symbol that
stands on both sides is one phrase in two languages. Capitals in brackets are variables; one that
stands only on the right-hand side is drawn with the weights in `FEATURES`. A symbol has the
alternatives of every left-hand side that matches it. Lower-case symbols with brackets are looked up
in the lexicon, all else is words.

`~see[...]` is a verb of the class "see". In English it stands where it is written. In German `&`
takes its finite form, and what is left (participle, infinitive, particle) stays at `~see`; a clause
without `&` is verb-final, all of it stays there. `^` marks a subordinate clause; at `MAX_DEPTH`
alternatives with `^` drop out.

No source sentence may have two translations. German "die", "das" and "sie" do not tell subject from
object, so the subject comes first, unless an accusative "den" or a dative says otherwise; object
pronouns are masculine or of the first person; and a relative clause is "strict" (its objects show
their case) where its pronoun does not show its own.
"""

MAX_DEPTH = 2
MAX_WORDS = 28
"""No sentence has more words on either side: longer ones are drawn again."""

FEATURES = {
    "A": {"person": 70, "animal": 30},  # kinds that act
    "E": {"person": 55, "animal": 45},  # the same, of a second noun
    "K": {"person": 1, "animal": 0, "thing": 0, "place": 0},  # any kind
    "G": {"m": 42, "f": 34, "n": 24},  # gender
    "H": {"m": 42, "f": 34, "n": 24},  # of a second noun
    "N": {"sg": 72, "pl": 28},  # number, and person of a noun's verb
    "M": {"sg": 72, "pl": 28},  # of a second noun
    "P": {"sg": 55, "pl": 15, "ich": 18, "wir": 12},  # person of a verb, by its pronoun
    "Q": {"sg": 45, "ich": 35, "wir": 20},  # persons with a pronoun that is never an object
    "C": {"nom": 1, "acc": 0, "dat": 0},  # case
    "D": {"the": 1, "this": 0, "a": 0, "my": 0, "no": 0, "many": 0},  # determiners
    "T": {"present": 42, "past": 30, "modal": 28},  # tense; the future is among the modals
    "U": {"present": 48, "past": 24, "modal": 28},  # of a clause within one in the present
    "I": {"present": 60, "past": 40},  # tenses without an infinitive
    "S": {"open": 1, "plain": 0, "strict": 0},  # predicates: plain ones have no adverbs, pronouns
    "Z": {"open": 1, "plain": 0},
    "X": {"open": 1, "strict": 0},
    "Y": {"yes": 1, "no": 0},  # polarity
}

RULES = {
    "Sentence": {
        "Clause[second,T] .": 27,
        "Time[T] Clause[inverted,T] .": 13,
        "Clause[topic,T] .": 5,
        "^Adverbial[T] , Clause[inverted,T] .": 15,
        "^Concession[T] , Clause[inverted,T] .": 3,
        "Clause[second,T] , ^Adverbial[T] . | Clause[second,T] ^Adverbial[T] .": 20,
        "Clause[second,T] , ^Concession[T] .": 3,
        "Clause[second,T] , aber Clause[second,U] . | Clause[second,T] , but Clause[second,U] .": 5,
    },
    # Clauses: the place of the finite verb. After another element pronouns would precede the
    # subject, so that predicate is plain.
    "Clause[second,T]": {
        "Subject[A,N,T] & Predicate[A,N,T,open]": 9,
        "Pronoun[P] & Predicate[person,P,T,open]": 4,
    },
    "Clause[second,I]": {"Subject[thing,N,I] & Predicate[thing,N,I,open]": 1},
    "Clause[inverted,T]": {
        "& Subject[A,N,T] Predicate[A,N,T,plain]": 9,
        "& Pronoun[P] Predicate[person,P,T,plain]": 3,
    },
    "Clause[inverted,I]": {"& Subject[thing,N,I] Predicate[thing,N,I,plain]": 1},
    "Clause[final,T]": {
        "Subject[A,N,T] Predicate[A,N,T,open]": 8,
        "Pronoun[P] Predicate[person,P,T,open]": 7,
    },
    "Clause[final,I]": {"Subject[thing,N,I] Predicate[thing,N,I,open]": 1},
    "Clause[topic,T]": {
        "NP[the,acc,E,m,sg] & Subject[A,N,T] ~see[T,N,yes] | "
        "Subject[A,N,T] ~see[T,N,yes] NP[the,acc,E,m,sg]": 3,
        "NP[the,acc,E,m,sg] & Pronoun[P] ~see[T,P,yes] | "
        "Pronoun[P] ~see[T,P,yes] NP[the,acc,E,m,sg]": 1,
        "NP[the,dat,E,G,M] & Subject[A,N,T] ~help[T,N,yes] | "
        "Subject[A,N,T] ~help[T,N,yes] NP[the,dat,E,G,M]": 2,
    },
    "Clause[relative,A,G,N,T]": {
        "Who[nom,A,G,N] Predicate[A,N,T,strict]": 9,
        "Who[acc,A,G,N] Nominative[Q] ~see[T,Q,yes]": 3,
        "Who[dat,A,G,N] Pronoun[P] ~help[T,P,yes]": 1,
        "Who[dat,A,G,N] NP[any,nom,E,H,M] ~help[T,M,yes]": 1,
    },
    "Clause[relative,A,m,sg,T]": {
        "Who[nom,A,m,sg] Predicate[A,sg,T,open]": 5,
        "Who[acc,A,m,sg] NP[any,nom,E,H,M] ~see[T,M,yes]": 4,
    },
    "Clause[relative,thing,G,N,T]": {
        "Who[acc,thing,G,N] Pronoun[P] ~buy[T,P,yes]": 4,
        "Who[acc,thing,G,N] NP[any,nom,person,H,M] ~buy[T,M,yes]": 4,
        "Who[nom,thing,G,N] Place ~be[present,N] | Who[nom,thing,G,N] ~be[present,N] Place": 3,
    },
    # Subordinate clauses, with a tense that goes with that of the clause around them
    "Adverbial[T]": {"weil Within[T] | because Within[T]": 8},
    "Adverbial[present]": {
        "wenn Clause[final,present] | if Clause[final,present]": 6,
        "während Clause[final,present] | while Clause[final,present]": 2,
    },
    "Adverbial[past]": {"als Clause[final,past] | when Clause[final,past]": 8},
    "Adverbial[modal]": {"wenn Clause[final,present] | if Clause[final,present]": 8},
    "Concession[T]": {"obwohl Within[T] | although Within[T]": 1},
    "That[T]": {"dass Within[T] | that Within[T]": 1},
    "Whether[T]": {"ob Within[T] | whether Within[T]": 1},
    "Relative[K,G,N,present]": {"Clause[relative,K,G,N,U]": 1},
    "Relative[K,G,N,past]": {"Clause[relative,K,G,N,past]": 1},
    "Relative[K,G,N,modal]": {"Clause[relative,K,G,N,present]": 1},
    "Within[present]": {"Clause[final,U]": 1},
    "Within[past]": {"Clause[final,past]": 1},
    "Within[modal]": {"Clause[final,present]": 2, "Clause[final,modal]": 1},
    # Predicates, in the order of a verb-final clause
    "Predicate[A,P,T,S]": {
        "~rest[T,P,yes]": 11,
        "nicht ~rest[T,P,no] | ~rest[T,P,no]": 4,
        "Place ~rest[T,P,yes] | ~rest[T,P,yes] Place": 8,
        "Seen[S,P] ~see[T,P,yes] | ~see[T,P,yes] Seen[S,P]": 14,
        "Known[S,P] nicht ~see[T,P,no] | ~see[T,P,no] Known[S,P]": 4,
        "Helped[S,P] ~help[T,P,yes] | ~help[T,P,yes] Helped[S,P]": 7,
        "auf Seen[S,P] ~wait[T,P,yes] | ~wait[T,P,yes] for Seen[S,P]": 3,
    },
    "Predicate[A,P,T,Z]": {
        "NP[head,acc,E,G,N] ~see[T,P,yes] , ^Relative[E,G,N,T] | "
        "~see[T,P,yes] NP[head,acc,E,G,N] ^Relative[E,G,N,T]": 5,
    },
    "Predicate[A,P,T,open]": {
        "Time[T] ~rest[T,P,yes] | ~rest[T,P,yes] Time[T]": 3,
        "Time[T] Place ~rest[T,P,yes] | ~rest[T,P,yes] Place Time[T]": 2,
    },
    "Predicate[A,P,I,open]": {
        "Often ~rest[I,P,yes]": 4,
        "Known[open,P] Often ~see[I,P,yes] | Often ~see[I,P,yes] Known[open,P]": 3,
    },
    "Predicate[A,P,I,Z]": {
        "NP[no,acc,E,G,N] ~see[I,P,yes] | ~see[I,P,yes] NP[no,acc,E,G,N]": 2,
    },
    "Predicate[A,P,I,S]": {
        "adjective[A] ~be[I,P] | ~be[I,P] adjective[A]": 7,
        "nicht adjective[A] ~be[I,P] | ~be[I,P] not adjective[A]": 2,
        "Place ~be[I,P] | ~be[I,P] Place": 3,
    },
    "Predicate[person,P,T,S]": {
        "NP[any,acc,thing,G,N] ~buy[T,P,yes] | ~buy[T,P,yes] NP[any,acc,thing,G,N]": 13,
        "NP[the,acc,thing,G,N] nicht ~buy[T,P,no] | ~buy[T,P,no] NP[the,acc,thing,G,N]": 4,
        "NP[head,acc,thing,G,N] ~buy[T,P,yes] , ^Relative[thing,G,N,T] | "
        "~buy[T,P,yes] NP[head,acc,thing,G,N] ^Relative[thing,G,N,T]": 5,
        "Helped[S,P] NP[any,acc,thing,G,N] ~give[T,P,yes] | "
        "~give[T,P,yes] Helped[S,P] NP[any,acc,thing,G,N]": 8,
        "mit NP[any,dat,E,G,N] ~play[T,P,yes] | ~play[T,P,yes] with NP[any,dat,E,G,N]": 5,
        "~say[T,P,yes] , ^That[T] | ~say[T,P,yes] ^That[T]": 12,
        "~ask[T,P,yes] , ^Whether[T] | ~ask[T,P,yes] ^Whether[T]": 2,
    },
    "Predicate[person,P,T,open]": {
        "Time[T] NP[any,acc,thing,G,N] ~buy[T,P,yes] | "
        "~buy[T,P,yes] NP[any,acc,thing,G,N] Time[T]": 5,
    },
    "Predicate[person,P,T,Z]": {
        "NP[any,acc,person,G,N] ~call[T,P,yes] | ~call[T,P,yes] NP[any,acc,person,G,N]": 4,
    },
    "Predicate[person,P,T,X]": {"Object[acc,P] ~call[T,P,yes] | ~call[T,P,yes] Object[acc,P]": 2},
    "Predicate[person,P,I,S]": {
        "NP[no,acc,thing,G,N] ~buy[I,P,yes] | ~buy[I,P,yes] NP[no,acc,thing,G,N]": 2,
    },
    "Predicate[thing,P,I,S]": {
        "adjective[thing] ~be[I,P] | ~be[I,P] adjective[thing]": 5,
        "nicht adjective[thing] ~be[I,P] | ~be[I,P] not adjective[thing]": 2,
        "Place ~be[I,P] | ~be[I,P] Place": 3,
    },
    # Noun phrases
    "Subject[K,N,T]": {
        "NP[any,nom,K,G,N]": 84,
        "NP[head,nom,K,G,N] , ^Relative[K,G,N,T] , | NP[head,nom,K,G,N] ^Relative[K,G,N,T]": 16,
    },
    "Seen[Z,P]": {"NP[any,acc,E,G,N]": 5},
    "Seen[strict,P]": {"NP[any,acc,E,m,sg]": 5},
    "Seen[X,P]": {"Object[acc,P]": 1},
    "Known[Z,P]": {"NP[the,acc,E,G,N]": 3},
    "Known[strict,P]": {"NP[the,acc,E,m,sg]": 3},
    "Known[X,P]": {"Object[acc,P]": 1},
    "Helped[S,P]": {"NP[any,dat,E,G,N]": 4},
    "Helped[X,P]": {"Object[dat,P]": 1},
    "NP[any,C,K,G,N]": {"NP[head,C,K,G,N]": 80, "NP[my,C,K,G,N]": 15, "NP[this,C,K,G,N]": 5},
    "NP[head,C,K,G,N]": {"NP[the,C,K,G,N]": 3},
    "NP[head,C,K,G,sg]": {"NP[a,C,K,G,sg]": 1},
    "NP[head,C,K,G,pl]": {"NP[many,C,K,G,pl]": 1},
    "NP[D,C,K,G,N]": {
        "determiner[D,C,G,N] noun[K,G,N,C]": 3,
        "determiner[D,C,G,N] adjective[K,D,C,G,N] noun[K,G,N,C]": 1,
    },
    "Pronoun[sg]": {"er | he": 5, "sie | she": 4},
    "Pronoun[pl]": {"sie | they": 1},
    "Pronoun[ich]": {"ich | I": 1},
    "Pronoun[wir]": {"wir | we": 1},
    "Nominative[sg]": {"er | he": 1},
    "Nominative[ich]": {"ich | I": 1},
    "Nominative[wir]": {"wir | we": 1},
    "Object[acc,P]": {"ihn | him": 1},
    "Object[acc,N]": {"mich | me": 0.8, "uns | us": 0.5},
    "Object[dat,P]": {"ihm | him": 1},
    "Object[dat,N]": {"mir | me": 0.8, "uns | us": 0.5},
    "Who[nom,person,G,N]": {"relative[nom,G,N] | who": 1},
    "Who[acc,person,G,N]": {"relative[acc,G,N] | whom": 1},
    "Who[dat,person,G,N]": {"relative[dat,G,N] | whom": 1},
    "Who[C,animal,G,N]": {"relative[C,G,N] | that": 1},
    "Who[C,thing,G,N]": {"relative[C,G,N] | that": 1},
    # Adverbials
    "Often": {"oft | often": 4, "nie | never": 3, "immer | always": 2, "selten | rarely": 1},
    "Time[present]": {
        "heute | today": 4,
        "jeden Morgen | every morning": 3,
        "am Abend | in the evening": 2,
    },
    "Time[past]": {
        "gestern | yesterday": 4,
        "letzte Nacht | last night": 2,
        "am Montag | on Monday": 2,
    },
    "Time[modal]": {"morgen | tomorrow": 4, "heute | today": 2, "bald | soon": 2},
    "Place": {
        "im noun[place,m,sg,dat] | in the noun[place,m,sg,dat]": 4,
        "im noun[place,n,sg,dat] | in the noun[place,n,sg,dat]": 4,
        "in der noun[place,f,sg,dat] | in the noun[place,f,sg,dat]": 4,
        "vor determiner[the,dat,G,sg] noun[place,G,sg,dat] | "
        "in front of determiner[the,dat,G,sg] noun[place,G,sg,dat]": 2,
        "hinter determiner[the,dat,G,sg] noun[place,G,sg,dat] | "
        "behind determiner[the,dat,G,sg] noun[place,G,sg,dat]": 2,
    },
}
