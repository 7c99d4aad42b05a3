"""The forest plot: places, arrows and words."""

import pytest
from matplotlib import colors

from g2lstm.forest import COLOURS, LIMITS, plot_forest
from g2lstm.verdict_rule import NO_PAPER, NOT_MEASURED, OPEN


def row(corpus="ptb", noise=0.2, share=0.5, interval=(0.4, 0.6), paper=2.0, **changes):
    return {
        "number": 1, "name": "accuracy", "corpus": corpus, "noise": noise, "paper": paper,
        "share": share, "interval": [end * paper for end in interval] if interval else None,
        "seeds": [[1, 2], [1, 2, 3]], "verdict": "weaker", "seeds_needed": None,
    } | changes  # fmt: skip


def drawn(rows):
    figure = plot_forest(rows, "small")
    figure.canvas.draw()
    (axis,) = figure.axes
    return figure, axis


def lines_of(axis, colour):
    return [line for line in axis.lines if line.get_color() == colour and len(line.get_xdata())]


def test_effects_are_shares_of_the_papers_also_where_that_is_negative():
    for paper in (2.0, -2.0):
        _, axis = drawn([row(paper=paper)])
        bar, point = lines_of(axis, COLOURS[0])
        assert list(bar.get_xdata()) == pytest.approx([0.4, 0.6])
        assert list(point.get_xdata()) == [0.5]


def test_a_row_a_statistic_and_p_a_colour_a_corpus():
    rows = [row(c, p) for c in ("ptb", "other") for p in (0.2, 1.0)]
    rows += [row("ptb", number=2, name="gone", verdict=NOT_MEASURED)]
    rows += [row("other", number=2, name="gone", verdict=NOT_MEASURED)]
    rows[3] |= {"verdict": NOT_MEASURED}
    figure, axis = drawn(rows)
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        "accuracy\np = 0.2", "accuracy\np = 1"
    ]  # fmt: skip
    assert len(lines_of(axis, COLOURS[0])) == 2 * len(lines_of(axis, COLOURS[1])) == 4
    words = [text.get_text() for text in axis.texts]
    assert {"as in the paper", "opposite"} <= set(words)
    assert words.count(NOT_MEASURED) == 1
    (legend,) = figure.legends
    assert "small" in legend.get_title().get_text()
    assert [text.get_text() for text in legend.get_texts()] == [
        "ptb, 2 or 3 seeds a model", "other, 2 or 3 seeds a model"
    ]  # fmt: skip


def test_what_lies_beyond_the_axis_is_an_arrow():
    _, axis = drawn([row(share=-9.0, interval=(-10.0, -8.0)), row("b", interval=(-5.0, 7.0))])
    (arrow,) = [line for line in lines_of(axis, COLOURS[0]) if line.get_marker() == "<"][:1]
    assert list(arrow.get_xdata()) == [LIMITS[0]]
    assert "-9.0" in [text.get_text() for text in axis.texts]
    markers = [line.get_marker() for line in lines_of(axis, COLOURS[1])]
    assert {"<", ">"} <= set(markers)
    bar = next(line for line in lines_of(axis, COLOURS[1]) if len(line.get_xdata()) == 2)
    assert tuple(bar.get_xdata()) == LIMITS


def test_one_seed_is_a_point_without_interval():
    _, axis = drawn([row(interval=None, verdict=OPEN)])
    assert len(lines_of(axis, COLOURS[0])) == 1


def test_corpora_are_told_apart_in_colour_and_not_too_many():
    assert len({colors.to_hex(colour) for colour in COLOURS}) == len(COLOURS)
    with pytest.raises(ValueError, match="at most 3 corpora"):
        plot_forest([row(str(n)) for n in range(4)], "small")


def test_a_statistic_that_the_paper_lacks_for_a_corpus_is_not_drawn_there():
    _, axis = drawn(
        [row(), row("other", paper=None, interval=None, verdict=NO_PAPER), row("other", noise=1.0)]
    )
    assert len(axis.get_yticklabels()) == 2
    assert len(lines_of(axis, COLOURS[0])) == len(lines_of(axis, COLOURS[1])) == 2


@pytest.mark.parametrize("rows", [[], [row(verdict=NOT_MEASURED)], [row(verdict=NO_PAPER)]])
def test_nothing_to_draw_is_an_error(rows):
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_forest(rows, "small")
