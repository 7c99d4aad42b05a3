"""Reading model cards, for tests."""


def card_metrics(text):
    """The metrics that a card states, by name."""
    table = text.split("## Metrics\n\n")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: value for name, value in rows[2:]}
