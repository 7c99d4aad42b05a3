"""Symbols of a grammar with features, such as `Name[K,sg]`, and how they match."""

from collections.abc import Mapping


def split_symbol(symbol: str) -> tuple[str, list[str]]:
    """Name and features of a symbol: `("Name", ["K", "sg"])`."""
    name, _, rest = symbol.partition("[")
    return name, rest.rstrip("]").split(",") if rest else []


def match(
    pattern: str, symbol: str, variables: Mapping[str, Mapping[str, float]]
) -> dict[str, str] | None:
    """The values of the pattern's variables that make it the symbol, None where there are none.

    Args:
        pattern: a symbol some of whose features may be variables.
        symbol: one without variables.
        variables: the values of each variable, with their weights.
    """
    (name, wanted), (other, given) = split_symbol(pattern), split_symbol(symbol)
    if name != other or len(wanted) != len(given):
        return None
    binding = {}
    for want, value in zip(wanted, given, strict=True):
        if value in variables.get(want, ()):
            binding[want] = value
        elif want != value:
            return None
    return binding
