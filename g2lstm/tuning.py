"""Training that looks at the validation text alone: tuning and exploration.

In tuning every gate is trained with the same settings, a preset's ``candidates``. Exploration asks
what another setting would change. Records and tables: see `trials`. A trial in the preset's own
settings is the run that is later tested where it lies.
"""

from collections.abc import Sequence

import pandas as pd
from tqdm.auto import tqdm

from g2lstm.experiments import (
    Configuration,
    configure,
    results_directory,
    run_directory,
)
from g2lstm.gates import GATES
from g2lstm.parameters import ParameterError
from g2lstm.presets import PRESETS
from g2lstm.records import SUMMARY, RunError, read_run
from g2lstm.runs import prepare, train_untested
from g2lstm.training import TrainingDivergedError
from g2lstm.trials import EXPLORATION, TUNING, copy_trial, save_trials


def tune(
    task: str = "language-model",
    preset: str = "small",
    corpus: str | None = None,
    languages: str | None = None,
    gates: Sequence[str] = GATES,
    seed: int = 1,
    progress_bar: bool = True,
) -> pd.DataFrame:
    """Train each gate with each candidate of the preset, and save records and table.

    Started again it goes on where it was stopped.

    Args:
        task, preset, corpus, languages: see `configure`.
        gates: those to train; the table shows the others too as far as they are there.
        seed: of every run.
        progress_bar: show one for each run.

    Returns:
        What `tuning_table` makes of all that there is.

    Raises:
        ParameterError: the preset has no candidates, no gates, or see `configure`.
        CorpusError: the corpus cannot be loaded.
        RunError, CheckpointError: see `runs.train_untested`.
    """
    about = {"task": task, "preset": preset, "corpus": corpus, "languages": languages}
    example = configure(**about)
    candidates = PRESETS[task][preset].candidates
    if not candidates:
        known = [name for name, other in PRESETS[task].items() if other.candidates]
        raise ParameterError(
            f"preset {preset!r} has no candidates to tune with; those that do: {', '.join(known)}"
        )
    if not gates:
        raise ParameterError(f"gates must name one at least of {', '.join(GATES)}, got {gates!r}")
    wanted = [
        configure(**about, gate=gate, seed=seed, overrides=settings)
        for gate in gates
        for settings in candidates
    ]
    for number, configuration in enumerate(wanted, start=1):
        tqdm.write(f"{number} of {len(wanted)}: {run_directory(configuration)}")
        try:
            _train(configuration, TUNING, progress_bar)
        except TrainingDivergedError as error:
            tqdm.write(f"it is not in the table, for it diverged: {error}")
    return save_trials(example, TUNING)


def explore(configuration: Configuration, progress_bar: bool = True) -> pd.DataFrame:
    """Train one run up to its test, and save its records and the table of all such runs.

    Returns:
        What `exploration_table` makes of all that there is.

    Raises:
        ParameterError: the run is one of several processes.
        CorpusError: the corpus cannot be loaded.
        RunError, TrainingDivergedError, CheckpointError: see `runs.train_untested`.
    """
    return _train(configuration, EXPLORATION, progress_bar)


def _train(configuration: Configuration, kind: str, progress_bar: bool) -> pd.DataFrame:
    if configuration.processes > 1:
        raise ParameterError(
            f"processes={configuration.processes}: a trial is trained by one process; "
            "set processes to 1"
        )
    experiment = prepare(configuration)
    directory = experiment.directory
    if not (directory / SUMMARY).exists():
        train_untested(experiment, progress_bar)
    elif read_run(directory).config["fingerprint"] != experiment.fingerprint:
        # Training would clear away what was tested.
        raise RunError(
            f"{directory} holds a finished run of other code, data or settings: move it away, or "
            "set G2LSTM_RUNS to another folder"
        )
    copy_trial(directory, results_directory(configuration.preset), kind)
    return save_trials(configuration, kind)
