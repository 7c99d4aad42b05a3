import pytest

from g2lstm.grammar_symbols import match, split_symbol

VARIABLES = {"N": {"sg": 2, "pl": 1}, "K": {"person": 1, "thing": 0}}


def test_symbols_fall_into_name_and_features():
    assert split_symbol("Noun[K,sg]") == ("Noun", ["K", "sg"])
    assert split_symbol("Noun") == ("Noun", [])


@pytest.mark.parametrize(
    ("pattern", "symbol", "binding"),
    [
        ("Noun[K,N]", "Noun[thing,pl]", {"K": "thing", "N": "pl"}),
        ("Noun[person,N]", "Noun[person,sg]", {"N": "sg"}),
        ("Noun[person,N]", "Noun[thing,sg]", None),
        ("Noun[N]", "Noun[dual]", None),
        ("Noun[N]", "Verb[sg]", None),
        ("Noun[K,N]", "Noun[sg]", None),
        ("Noun", "Noun", {}),
    ],
)
def test_a_pattern_matches_the_symbols_its_variables_can_make(pattern, symbol, binding):
    assert match(pattern, symbol, VARIABLES) == binding
