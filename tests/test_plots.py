"""Figures say what the frames say, saved files say what they were made from."""

import io
import itertools
import json
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from g2lstm import plots
from g2lstm.gates import GATES

PROVENANCE = {"notebook": "02", "seeds": [1, 2, 3], "corpus": "grammar"}


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context():
        plots.use_style()
        yield


@pytest.fixture
def runs():
    """Gates out of order; perplexities with a known mean and range over the seeds."""
    rows = [
        {"gate": gate, "seed": seed, "epoch": epoch, "perplexity": base + seed + 100 / epoch}
        for gate, base in (("gumbel", 20.0), ("sharpened", 40.0), ("sigmoid", 30.0))
        for seed in (1, 2, 6)
        for epoch in (1, 2, 4)
    ]
    frame = pd.DataFrame(rows)
    frame["valid_perplexity"] = frame["test_perplexity"] = frame["perplexity"]
    return frame


def densities():
    value = np.linspace(0.01, 0.99, 50)
    return pd.concat(
        pd.DataFrame({"a": a, "temperature": tau, "value": value, "density": tau * value + a})
        for a in (3.0, 0.0)
        for tau in (0.9, 0.1)
    )


def proposition():
    a = np.linspace(-2, 2, 5)
    upper = 1 / (1 + np.exp(-a))
    return pd.concat(
        pd.DataFrame(
            {"a": a, "temperature": t, "probability": upper - t, "lower": upper - 2 * t}
        ).assign(upper=upper)
        for t in (0.2, 0.1)
    )


SHARES = {
    "sigmoid": {"input": np.full(10, 0.1), "forget": np.eye(10)[3]},
    "gumbel": {"input": np.eye(10)[9], "forget": np.r_[0.6, np.zeros(8), 0.4]},
}


METRIC = {"y": "test_perplexity", "ylabel": "test perplexity"}
ATTENTION = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]]), ["▁Hund", "e", "</s>"], ["▁dogs", "</s>"]


def every_figure(runs):
    grid = np.linspace(0.01, 0.99, 99)
    last = runs[runs["epoch"] == 4]
    yield plots.plot_gate_densities(densities())
    yield plots.plot_gate_sample(np.array([0.01, 0.5, 0.999]), grid, grid, title="a = 1")
    yield plots.plot_proposition(proposition())
    yield plots.plot_gate_histograms(SHARES)
    yield plots.plot_gate_curves(runs, x="epoch", y="perplexity", xlabel="x", ylabel="y")
    yield plots.plot_learning_curves(runs, floor=15.0)
    yield plots.plot_learning_curves(last[last["seed"] == 1])
    yield plots.plot_test_metric(last, **METRIC, floor=15.0)
    yield plots.plot_test_metric(last[last["seed"] == 1], **METRIC)
    yield plots.plot_attention(*ATTENTION)


def test_axes_are_labelled_and_nothing_is_cut_off(runs):
    for figure in every_figure(runs):
        figure.draw_without_rendering()
        for axis in figure.axes:
            place = axis.get_subplotspec()
            if place is None:  # of a colour bar
                assert axis.get_ylabel()
                continue
            assert axis.get_xlabel() or not place.is_last_row()
            assert axis.get_ylabel() or not place.is_first_col()
        box = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height


def test_pyplot_does_not_keep_the_figures(runs):
    assert len(list(every_figure(runs))) == 10
    assert plt.get_fignums() == []


def test_densities_have_a_panel_per_a_and_a_line_per_temperature():
    frame = densities()
    figure = plots.plot_gate_densities(frame)
    assert [axis.get_title() for axis in figure.axes] == ["a = 3", "a = 0"]
    for axis, a in zip(figure.axes, (3.0, 0.0), strict=True):
        assert [line.get_label() for line in axis.lines] == ["τ = 0.1", "τ = 0.9"]
        for line, tau in zip(axis.lines, (0.1, 0.9), strict=True):
            np.testing.assert_allclose(line.get_ydata(), tau * line.get_xdata() + a)


def test_sample_histogram_is_a_density_and_names_the_highest_bin():
    values = np.r_[np.full(75, 0.301), np.full(25, 0.999)]
    figure = plots.plot_gate_sample(values, np.array([0, 1]), np.array([1, 1]), title="")
    areas = [bar.get_width() * bar.get_height() for bar in figure.axes[0].patches]
    assert sum(areas) == pytest.approx(1)
    assert max(areas) == pytest.approx(0.75)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "sample (highest bin: 75%)" in labels


def test_proposition_points_lie_in_the_band():
    figure = plots.plot_proposition(proposition().sample(frac=1, random_state=1))
    assert [axis.get_title() for axis in figure.axes] == ["τ = 0.1", "τ = 0.2"]
    for axis, tau in zip(figure.axes, (0.1, 0.2), strict=True):
        (points,) = axis.lines
        np.testing.assert_allclose(points.get_xdata(), np.linspace(-2, 2, 5))
        upper = 1 / (1 + np.exp(-points.get_xdata()))
        np.testing.assert_allclose(points.get_ydata(), upper - tau)
        band = axis.collections[0].get_paths()[0]
        assert band.contains_points(points.get_xydata()[1:-1]).all()


def test_histograms_show_the_shares_in_the_colour_of_the_gate():
    figure = plots.plot_gate_histograms(SHARES)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["input gate", "forget gate"]
    for axis, (model, kind) in zip(
        figure.axes, itertools.product(SHARES, SHARES["gumbel"]), strict=True
    ):
        heights = [bar.get_height() for bar in axis.patches]
        np.testing.assert_allclose(heights, SHARES[model][kind])
        assert axis.patches[0].get_x() == 0
        assert axis.patches[-1].get_x() + axis.patches[-1].get_width() == pytest.approx(1)
        assert to_hex(axis.patches[0].get_facecolor()).upper() == plots.GATE_COLOURS[model]


def test_histogram_refuses_values_in_place_of_shares():
    with pytest.raises(ValueError, match="shares of gumbel, input sum to 5"):
        plots.plot_gate_histograms({"gumbel": {"input": np.full(10, 0.5)}})


def test_learning_curves_show_mean_and_range_over_seeds(runs):
    axis = plots.plot_learning_curves(runs, floor=15.0).axes[0]
    *lines, floor = axis.lines
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == [plots.GATE_LABELS[gate] for gate in GATES]
    for line, band, base in zip(lines, axis.collections, (30, 40, 20), strict=True):
        epoch = line.get_xdata()
        np.testing.assert_allclose(line.get_ydata(), base + 3 + 100 / epoch)
        corners = band.get_paths()[0].vertices
        assert corners[:, 1].max() == pytest.approx(base + 6 + 100)
        assert corners[:, 1].min() == pytest.approx(base + 1 + 25)
    assert list(floor.get_ydata()) == [15.0, 15.0]
    assert axis.get_yscale() == "log"
    assert axis.get_ylabel() == "validation perplexity"


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_log_axis_has_several_labelled_ticks(runs, scale):
    # A logarithmic axis within one decade is where matplotlib's own ticks run out.
    runs["valid_perplexity"] = 100 + scale * runs["valid_perplexity"]
    axis = plots.plot_learning_curves(runs).axes[0]
    low, high = axis.get_ylim()
    shown = [t for t in axis.get_yticks() if low <= t <= high]
    assert 2 <= len(shown) <= 10


def test_test_perplexity_shows_every_seed_and_the_mean(runs):
    last = runs[runs["epoch"] == 4]
    axis = plots.plot_test_metric(last, **METRIC).axes[0]
    assert [t.get_text() for t in axis.get_xticklabels()] == [*plots.GATE_LABELS.values()]
    assert [t.get_text() for t in axis.texts] == ["58.00", "68.00", "48.00"]
    for points, base in zip(axis.lines, (30, 40, 20), strict=True):
        np.testing.assert_allclose(points.get_ydata(), base + 25 + np.array([1, 2, 6]))
        assert len(set(points.get_xdata())) == 3


def test_attention_shows_a_row_a_target_subword():
    weights, source, target = ATTENTION
    axis = plots.plot_attention(weights, source, target).axes[0]
    np.testing.assert_array_equal(axis.images[0].get_array(), weights)
    assert [label.get_text() for label in axis.get_xticklabels()] == source
    assert [label.get_text() for label in axis.get_yticklabels()] == target
    with pytest.raises(
        ValueError, match=r"weights are \(2, 3\), but there are 3 target and 2 source"
    ):
        plots.plot_attention(weights, target, source)


def test_lines_besides_the_gates_get_colours_of_their_own(runs):
    runs["gate"] = runs["gate"].replace({"sharpened": "no noise", "gumbel": "p = 1"})
    labels = {"xlabel": "epoch", "ylabel": "perplexity"}
    axis = plots.plot_gate_curves(runs, x="epoch", y="perplexity", **labels).axes[0]
    assert [line.get_label() for line in axis.lines] == ["LSTM", "p = 1", "no noise"]
    assert len({line.get_color() for line in axis.lines}) == 3

    many = pd.DataFrame({"gate": list("abcdef"), "epoch": 1, "perplexity": 1.0})
    with pytest.raises(ValueError, match="at most 4 lines"):
        plots.plot_gate_curves(many, x="epoch", y="perplexity", **labels)


def perceived(colour, vision):
    """CIE L*a*b* of a colour as a viewer sees it whose vision is a matrix on linear sRGB."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ np.clip(np.array(vision) @ linear, 0, 1) / [0.9505, 1, 1.089]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Machado, Oliveira and Fernandes 2009, severity 1; colour differences above 25 are plain to see.
@pytest.mark.parametrize(
    "vision",
    [
        np.eye(3),
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
        [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
    ],
    ids=["trichromat", "protanope", "deuteranope", "tritanope"],
)
def test_gate_colours_are_distinct_for_every_vision(vision):
    seen = [perceived(colour, vision) for colour in plots.GATE_COLOURS.values()]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) > 25


def test_gate_colours_differ_in_grey_print():
    greys = [perceived(colour, np.eye(3))[0] for colour in plots.GATE_COLOURS.values()]
    assert min(abs(one - other) for one, other in itertools.combinations(greys, 2)) > 10


def test_every_gate_has_a_colour_a_label_and_a_marker():
    for of_gate in (plots.GATE_COLOURS, plots.GATE_LABELS, plots.GATE_MARKERS):
        assert tuple(of_gate) == GATES
        assert len(set(of_gate.values())) == len(GATES)


def test_saved_figure_is_complete_and_carries_its_provenance(tmp_path, runs):
    path = tmp_path / "figures" / "curves-tau-0.9"
    plots.save_figure(plots.plot_learning_curves(runs), path, PROVENANCE)
    names = {f"curves-tau-0.9{end}" for end in (".png", ".svg", ".provenance.json")}
    assert {file.name for file in path.parent.iterdir()} == names
    assert json.loads((path.parent / f"{path.name}.provenance.json").read_text()) == PROVENANCE
    with Image.open(f"{path}.png") as image:
        assert json.loads(image.text["provenance"]) == PROVENANCE
        assert image.size == (930, 570)  # 6.2 x 3.8 inches at 150 dpi
    assert ET.parse(f"{path}.svg").getroot().tag.endswith("svg")


def test_the_same_figure_gives_the_same_svg(tmp_path, runs):
    for name in ("one", "two"):
        plots.save_figure(plots.plot_learning_curves(runs), tmp_path / name, PROVENANCE)
    one = (tmp_path / "one.svg").read_bytes()
    assert one == (tmp_path / "two.svg").read_bytes()
    assert b"<dc:date>" not in one


def test_a_failed_save_leaves_the_old_files(tmp_path, runs, monkeypatch):
    figure = plots.plot_learning_curves(runs)
    plots.save_figure(figure, tmp_path / "curves", PROVENANCE)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(file, **_):
        file.write_bytes(b"half a picture")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="disk full"):
        plots.save_figure(figure, tmp_path / "curves", PROVENANCE)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_provenance_that_is_no_json_is_refused_before_anything_is_written(tmp_path, runs):
    with pytest.raises(TypeError):
        plots.save_figure(plots.plot_learning_curves(runs), tmp_path / "a", {"gates": {1, 2}})
    with pytest.raises(ValueError, match="JSON"):
        plots.save_table(runs, tmp_path / "a", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_saved_table_keeps_every_digit_in_csv_and_reads_well_in_markdown(tmp_path):
    frame = pd.DataFrame({"model": ["LSTM", "G2-LSTM"], "perplexity": [100 / 3, 20.0], "runs": 3})
    frame["paper"] = ["52.8", "52.1"]
    path = tmp_path / "tables" / "test-0.9"
    plots.save_table(frame, path, PROVENANCE)
    csv = (path.parent / "test-0.9.csv").read_text()
    stored = pd.read_csv(io.StringIO(csv), dtype={"paper": str})
    pd.testing.assert_frame_equal(stored, frame, check_exact=True)
    lines = (path.parent / "test-0.9.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["model", "perplexity", "runs", "paper"]
    assert set("".join(cells[1])) <= set(":-")
    assert cells[2:] == [["LSTM", "33.33", "3", "52.8"], ["G2-LSTM", "20.00", "3", "52.1"]]
    assert json.loads((path.parent / "test-0.9.provenance.json").read_text()) == PROVENANCE


def test_a_notebook_shows_a_figure_without_any_magic(runs):
    from IPython.core.formatters import DisplayFormatter

    figure = plots.plot_learning_curves(runs)
    shown, _ = DisplayFormatter().format(figure)
    with Image.open(io.BytesIO(shown["image/png"])) as image:
        assert image.size == (620, 380)


def test_a_table_without_rows_is_saved_as_its_header(tmp_path):
    plots.save_table(pd.DataFrame(columns=["seed", "model"]), tmp_path / "empty", {})
    assert (tmp_path / "empty.csv").read_text() == "seed,model\n"
    assert "seed" in (tmp_path / "empty.md").read_text()
