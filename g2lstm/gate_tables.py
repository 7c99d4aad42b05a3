"""Tables of gate values over measured runs: where they stand, and how they go with language."""

import itertools
from typing import Any

import numpy as np
import pandas as pd

from g2lstm import paper
from g2lstm.analysis import Measured, by_model
from g2lstm.gate_profile import ALL_LAYERS, PAPER_PLACES, TRAINING_PAIRS, place_name
from g2lstm.plots import GATE_LABELS
from g2lstm.results import mean_and_spread, run_key, run_label
from g2lstm.sentence_gates import gates_at

KINDS = ("input", "forget")
TEST_TEXT = "test text"


def profile_frame(measured: Measured) -> pd.DataFrame:
    """`gate_profile.GATE_PROFILE` of all runs: a row a run, mode, text, place and kind of gate.

    ``mode`` is "evaluation", "training" or "sentence"; ``text`` is "test text", or how many
    training pairs, which records made before they were measured lack; ``place`` is as
    `gate_profile.place_name` names it.
    """
    rows = []
    for run, profile in measured:
        about = {
            "task": run.config["task"], "model": run_label(run), "gate": run_key(run),
            "seed": run.config["seed"], "temperature": run.config["temperature"],
            "noise_probability": run.config["noise_probability"],
        }  # fmt: skip
        for name, parts in profile.items():
            for part in parts:
                where = {"mode": name, "text": TEST_TEXT, "place": place_name(part)}
                if name == TRAINING_PAIRS:
                    text = f"{part['pairs']:,} training pairs"
                    where |= {"mode": "evaluation", "text": text}
                for kind in KINDS:
                    rows.append(about | where | {"kind": kind} | part[kind])
    return pd.DataFrame(rows)


def places_of(frame: pd.DataFrame) -> list[str]:
    """The places of a `profile_frame`: the paper's, all layers together, each layer by itself.

    The only layer of a model is left out, for it is all layers.
    """
    single = [place for place in frame["place"].unique() if place != ALL_LAYERS]
    first = PAPER_PLACES[frame["task"].iloc[0]]
    return list(dict.fromkeys([first, ALL_LAYERS, *(single if len(single) > 1 else [])]))


def at(
    frame: pd.DataFrame, place: str | None = None, mode: str = "evaluation", text: str | None = None
) -> pd.DataFrame:
    """The rows of one place, mode and text.

    Args:
        frame: as `profile_frame` makes it.
        place: default: the paper's, see `gate_profile.PAPER_PLACES`.
        mode: "evaluation", "training" or "sentence".
        text: default: training pairs, the paper's text, if every model was measured on them there.

    Raises:
        ValueError: there is no such place; names those there are.
    """
    place = PAPER_PLACES[frame["task"].iloc[0]] if place is None else place
    if place not in set(frame["place"]):
        known = "; ".join(frame["place"].unique())
        raise ValueError(f"there are no gates at place {place!r}, only at: {known}")
    part = frame[(frame["place"] == place) & (frame["mode"] == mode)]
    if text is None:
        models = part.groupby("text")["model"].nunique()
        complete = models.index[models == part["model"].nunique()]
        text = next((name for name in complete if name != TEST_TEXT), TEST_TEXT)
    return part[part["text"] == text]


def gate_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Saturation and mean of both gates: a row a place, text and model, the paper's place first.

    Columns tell the modes apart: on the text, on one sentence, in training mode. On training pairs
    only the first is measured.

    Args:
        frame: as `profile_frame` makes it.
    """
    rows = []
    for place in places_of(frame):
        part = frame[frame["place"] == place]
        for text, model in itertools.product(part["text"].unique(), frame["model"].unique()):
            group = part[(part["text"] == text) & (part["model"] == model)]
            if group.empty:
                continue
            row: dict[str, Any] = {"place": place, "text": text, "model": model}
            row["seeds"] = group["seed"].nunique()
            of = dict(list(group.groupby(["mode", "kind"])))
            for mode in ("evaluation", "sentence", "training"):
                for kind in KINDS:
                    found = of.get((mode, kind))
                    cell = "" if found is None else mean_and_spread(found["saturation"])
                    row[f"{kind} saturation, {mode}"] = cell
            for kind in KINDS:
                row[f"mean {kind} gate"] = mean_and_spread(of["evaluation", kind]["mean"])
            rows.append(row)
    return pd.DataFrame(rows)


def histograms(part: pd.DataFrame, by: str = "gate") -> dict[str, dict[str, np.ndarray]]:
    """Histograms averaged over seeds, for `plots.plot_gate_histograms`.

    Args:
        part: rows of `profile_frame` of one mode and text, as `at` chooses them.
        by: the column that names the rows of the figure.
    """
    return {
        str(name): {
            kind: np.mean(np.stack(group[group["kind"] == kind]["histogram"]), axis=0)
            for kind in KINDS
        }
        for name, group in part.groupby(by, sort=False)
    }


def beside_paper(part: pd.DataFrame) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Histograms for `gate_plots.plot_outlines`: a row each of the models whose the paper shows.

    Args:
        part: rows of `profile_frame` as `at` chooses them; a model in other settings than its
            gate's default is put into the row of its gate.
    """
    ours = histograms(part)
    return {
        (label := GATE_LABELS[gate]): {
            kind: {
                name: shares[kind]
                for name, shares in ours.items()
                if name == gate or name.startswith(f"{label} (")
            }
            for kind in KINDS
        }
        for gate in paper.HISTOGRAMS
    }


def paper_histograms() -> dict[str, dict[str, np.ndarray]]:
    """The paper's histograms by model, scaled to sum to 1 (its heights have four digits)."""
    return {
        GATE_LABELS[gate]: {
            kind: np.asarray(shares) / sum(shares) for kind, shares in kinds.items()
        }
        for gate, kinds in paper.HISTOGRAMS.items()
    }


def by_place(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Histograms of the test text in evaluation mode: a row a place, as `places_of` names them."""
    found = {}
    for place in places_of(frame):
        ours = histograms(at(frame, place, text=TEST_TEXT))
        found[place] = {kind: {m: shares[kind] for m, shares in ours.items()} for kind in KINDS}
    return found


def contrasts_frame(measured: Measured) -> pd.DataFrame:
    """`case_study.ALIGNMENT` of all runs: a row a run, contrast, gate and place."""
    return _with_places(measured, "contrasts")


def _with_places(measured: Measured, name: str) -> pd.DataFrame:
    """The rows of a part of `case_study.ALIGNMENT`, "place" for "layer"; of a translation, the
    decoder's. Runs measured before there was this part are left out.
    """
    rows = []
    for run, found in measured:
        part = found.get(name, ())
        single = all(row["layer"] == "all" for row in part)
        side = "decoder " if run.config["task"] == "translation" else ""
        together = PAPER_PLACES["translation"] if side and single else f"all {side}layers"
        for row in part:
            layer = row["layer"]
            place = together if layer == "all" else f"{side}layer {layer + 1}"
            about = {"model": run_label(run), "of": run_key(run), "seed": run.config["seed"]}
            rest = {key: value for key, value in row.items() if key != "layer"}
            rows.append(about | {"place": place} | rest)
    return pd.DataFrame(rows)


def at_papers_place(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `contrasts_frame` at the paper's place, see `gate_profile.PAPER_PLACES`."""
    decoder = frame[frame["place"] == PAPER_PLACES["translation"]]
    return frame[frame["place"] == ALL_LAYERS] if decoder.empty else decoder


def contrasts_table(frame: pd.DataFrame) -> pd.DataFrame:
    """Effect sizes at the paper's place: a row a contrast and gate, a column a model.

    A cell is the mean ± standard deviation of Cohen's d over seeds; with one seed its bootstrap
    interval over sentences instead.
    """
    rows = []
    part = at_papers_place(frame)
    for (name, gate, place), group in part.groupby(["contrast", "gate", "place"], sort=False):
        row = {"contrast": name, "gate": gate, "place": place}
        for model, cell in group.groupby("model", sort=False):
            if len(cell) == 1:
                one = cell.iloc[0]
                row[model] = (
                    f"{one['effect']:.2f} [{one['effect_low']:.2f}, {one['effect_high']:.2f}]"
                )
            else:
                row[model] = mean_and_spread(cell["effect"])
        rows.append(row)
    return pd.DataFrame(rows)


def lowest_tenth_table(measured: Measured) -> pd.DataFrame:
    """Who the words with the lowest forget gates are: a row a place, group and model.

    Runs measured before this was part of `case_study.ALIGNMENT` are left out.
    """
    frame = _with_places(measured, "lowest_tenth")
    rows = []
    for (place, name, model), part in (
        frame.groupby(["place", "group", "model"], sort=False) if len(frame) else ()
    ):
        rows.append(
            {
                "place": place,
                "words": name,
                "model": model,
                "seeds": len(part),
                "share of the lowest tenth": mean_and_spread(part["share"]),
                "share of all": mean_and_spread(part["base"]),
                "ratio": mean_and_spread(part["share"] / part["base"]),
            }
        )
    return pd.DataFrame(rows)


def sentence_rows(
    measured: Measured, place: str | None = None
) -> dict[str, dict[str, list[float]]]:
    """Gates word by word for `gate_plots.plot_words`: mean over seeds, by gate and model.

    Args:
        measured: runs in default settings with a measurement of `sentence_gates.CASE_STUDY`.
        place: default: the paper's.
    """
    of: dict[str, list[dict[str, list[float]]]] = {}
    for run, found in measured:
        of.setdefault(run_label(run), []).append(gates_at(found, place))
    return {
        kind: {
            model: np.mean([found[kind] for found in seeds], axis=0).tolist()
            for model, seeds in of.items()
        }
        for kind in reversed(KINDS)
    }


def paper_sentence_rows(sentence: str | None) -> dict[str, dict[str, list[float]]]:
    """The same of the paper; empty for a sentence that is not in it."""
    for known in paper.SENTENCES:
        if known["words"] == sentence:
            return {
                kind: {GATE_LABELS[gate]: list(known[gate][kind]) for gate in paper.HISTOGRAMS}
                for kind in reversed(KINDS)
            }
    return {}


def means_frame(measured: Measured) -> pd.DataFrame:
    """Mean gate by group of tokens: a row a run, group and kind of gate."""
    return pd.DataFrame(
        {"of": run_key(run), "seed": run.config["seed"]} | row
        for run, found in measured
        for row in found["means"]
    )


def units_table(measured: Measured) -> pd.DataFrame:
    """The unit that marks each contrast best: a row a contrast, gate and model.

    ``AUC`` is on the sentences on which the unit was not chosen, mirrored where the unit is lower
    on the first group, so that 1/2 is chance and 1 a perfect mark.
    """
    rows = []
    for model, pairs in by_model(measured).items():
        found = pd.DataFrame(row for _, m in pairs for row in m["units"])
        if found.empty:
            continue
        for (name, gate), group in found.groupby(["contrast", "gate"], sort=False):
            auc = 0.5 + (group["auc_held_out"] - 0.5).abs()
            lower = int((group["auc_held_out"] < 0.5).sum())
            rows.append(
                {
                    "contrast": name,
                    "gate": gate,
                    "model": model,
                    "AUC": mean_and_spread(auc, 3),
                    "lower on the first group": f"{lower} of {len(group)}",
                }
            )
    return pd.DataFrame(rows)
