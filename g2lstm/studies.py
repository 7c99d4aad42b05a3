"""What every analysis notebook does: find the runs, measure them, show and save what comes out."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from g2lstm.analysis import default_runs, of_seeds
from g2lstm.experiments import (
    Configuration,
    command,
    configure,
    corpus_label,
    results_directory,
)
from g2lstm.measurements import Measurement
from g2lstm.plots import save_figure, save_table
from g2lstm.presets import PRESETS
from g2lstm.records import Run, RunError, copy_records, find_runs
from g2lstm.results import results_provenance

# What each notebook saves in every case, as <task>_<corpus>_<name>.
TABLES = {
    "05_compression": ("compression", "compression_sizes"),
    "06_gate_values": ("gates",),
    "07_case_study": ("alignment", "alignment_units"),
    "08_sensitivity": ("gap", "ablations", "evaluation_gates"),
}
FIGURES = {
    "05_compression": ("compression_curves", "compression_bits"),
    "06_gate_values": ("gates_and_paper", "gates_by_layer", "gates_over_training"),
    "07_case_study": ("groups", "effects_forget", "effects_input"),
    "08_sensitivity": ("perturbation", "surface"),
}
# What a notebook saves only where there is something to show.
SOMETIMES = ("case_study", "second_case_study", "gates_by_p", "gates_by_temperature")
SOMETIMES_TABLES = ("lowest_tenth",)


@dataclass(frozen=True)
class Study:
    """The runs of one task, preset and corpus, as an analysis notebook looks at them.

    Attributes:
        notebook: its name, such as "05_compression".
        example: a configuration of the runs.
        runs: those in the default settings of the three gates.
        variants: all, those with other settings too.
        seeds: those asked for; None: all there are.
        save: whether `table` and `figure` write to the folder of results.
        progress_bar: show one while measuring.
    """

    notebook: str
    example: Configuration
    runs: list[Run]
    variants: list[Run]
    seeds: list[int] | None
    save: bool
    progress_bar: bool = True

    @property
    def title(self) -> str:
        """Corpus and preset, for the titles of figures."""
        return f"{corpus_label(self.example)}, {self.example.preset}"

    @property
    def settings(self) -> dict[str, int]:
        """How much is measured, see `Preset.analysis`."""
        return PRESETS[self.example.task][self.example.preset].analysis

    def measure(
        self, measurement: Measurement, runs: Iterable[Run] | None = None, **settings: Any
    ) -> list[tuple[Run, Any]]:
        """A measurement of each run (default: `runs`), see `Measurement.of_all`.

        With ``save`` the measurements are copied to the folder of results.
        """
        runs = self.runs if runs is None else runs
        found = measurement.of_all(runs, self.progress_bar, **settings)
        if self.save:
            copy_records([run for run, _ in found], results_directory(self.example.preset))
        return found

    def table(self, frame: pd.DataFrame, name: str, **options: Any) -> pd.DataFrame:
        """Save a table if asked to; return it."""
        if self.save:
            save_table(frame, self._path("tables", name), self._record(), **options)
        return frame

    def figure(self, figure: Figure, name: str) -> Figure:
        """Save a figure if asked to; return it."""
        if self.save:
            save_figure(figure, self._path("figures", name), self._record())
        return figure

    def _path(self, kind: str, name: str) -> Any:
        known = (TABLES if kind == "tables" else FIGURES)[self.notebook]
        if name not in (*known, *(SOMETIMES_TABLES if kind == "tables" else SOMETIMES)):
            raise ValueError(f"{self.notebook} does not name {name!r} among its {kind}: {known}")
        label = f"{self.example.task.replace('-', '_')}_{corpus_label(self.example)}"
        return results_directory(self.example.preset) / kind / f"{label}_{name}"

    def _record(self) -> dict[str, Any]:
        example = self.example
        languages = "" if example.languages is None else f" LANGUAGES={example.languages}"
        seeds = "" if self.seeds is None else f' SEEDS="{" ".join(map(str, self.seeds))}"'
        how = (
            f"make reproduce PRESET={example.preset} TASK={example.task} "
            f"CORPUS={example.corpus}{languages}{seeds} ({self.notebook})"
        )
        return results_provenance(self.variants, how)


def open_study(
    notebook: str,
    task: str = "language-model",
    preset: str = "quick",
    corpus: str | None = None,
    languages: str | None = None,
    seeds: list[int] | None = None,
    save: bool = False,
) -> Study:
    """Find the finished runs that a notebook is about.

    Args:
        notebook: its name, a key of `TABLES`.
        task, preset, corpus, languages: see `configure`.
        seeds: exactly the runs of the three gates with these seeds, and what there is of other
            settings with them; default: every finished run.
        save: see `Study`.

    Raises:
        ParameterError: an unknown task, preset or corpus, or seeds that are none.
        RunError: there is no run, or one asked for is missing; says how to make it.
    """
    example = configure(task=task, preset=preset, corpus=corpus, languages=languages)
    about = {"corpus": example.corpus, "task": task, "languages": example.languages}
    if seeds is not None:
        find_runs(preset, seeds=seeds, **about)  # raises where one is missing
    variants = of_seeds(find_runs(preset, **about), seeds)
    runs = default_runs(variants)
    if not runs:
        raise RunError(
            f"all {len(variants)} finished runs have other settings than their gate's default; "
            f"make one to compare them with: {command(example)}"
        )
    return Study(notebook, example, runs, variants, seeds, save)
