"""The experiments as settings: presets, configurations, and where their runs and results lie."""

import difflib
import inspect
import json
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from g2lstm.corpora import NAMES
from g2lstm.gates import TemperatureSchedule, check_gate
from g2lstm.language_model import LanguageModel
from g2lstm.options import TrainingOptions


class ParameterError(ValueError):
    """A parameter of a notebook or an experiment is unknown or of the wrong kind."""


@dataclass(frozen=True)
class Preset:
    """Size and training of the models of one scale."""

    corpus: str
    model: dict[str, Any]  # arguments of LanguageModel, gates apart
    training: TrainingOptions
    threads: int = 1  # of torch on the CPU; part of what makes a run repeat exactly
    cache_pointer: bool = False
    seeds: tuple[int, ...] = (1, 2, 3)


PRESETS = {
    # Less than a minute a run on one core. Without dropout: the text is plentiful and never noisy.
    "quick": Preset(
        corpus="grammar",
        model={
            "embedding_size": 128, "num_layers": 1,
            "dropout": 0.0, "dropout_between": 0.0, "dropout_embedding": 0.0,
            "dropout_words": 0.0, "weight_dropout": 0.0,
        },
        training=TrainingOptions(
            epochs=5, batch_size=20, bptt=35, optimizer="adamw", learning_rate=8e-3,
            learning_rate_schedule="cosine", warmup=0.05, weight_decay=0.01,
            clip=1.0, alpha=0.0, beta=0.0,
        ),
    ),
    # Penn Treebank on one core in less than 40 minutes.
    "small": Preset(
        corpus="ptb",
        model={
            "embedding_size": 320, "hidden_size": 320, "num_layers": 2, "cutoff": 2000,
            "dropout": 0.3, "dropout_between": 0.2, "dropout_embedding": 0.2,
            "dropout_words": 0.05, "weight_dropout": 0.2,
        },
        training=TrainingOptions(
            epochs=10, batch_size=32, bptt=35, optimizer="adamw", learning_rate=3e-3,
            learning_rate_schedule="cosine", warmup=0.03, weight_decay=0.02,
            clip=1.0, alpha=1.0, beta=0.5, precision="bfloat16",
        ),
        cache_pointer=True,
    ),
    # The paper's own model and AWD-LSTM's training, for a GPU.
    "paper": Preset(
        corpus="ptb",
        model={},
        training=TrainingOptions(
            epochs=500, finetune_epochs=500, batch_size=80, precision="bfloat16"
        ),
        cache_pointer=True,
    ),
}  # fmt: skip

# Default temperature and noise probability of each gate. The paper's values as far as known: the
# temperatures are recalled, not confirmed from a source; p = 0.2 is the authors' README's.
GATE_SETTINGS = {
    "sigmoid": (None, None),
    "sharpened": (0.2, None),
    "gumbel": (0.9, 0.2),
}


@dataclass(frozen=True)
class Configuration:
    """Everything that determines a run but code and data; made by `configure`."""

    preset: str
    corpus: str
    gate: str
    seed: int
    temperature: float | None
    noise_probability: float | None
    schedule: str
    temperature_end: float | None
    model: dict[str, Any]
    training: TrainingOptions
    threads: int
    cache_pointer: bool
    overrides: dict[str, Any] = field(default_factory=dict)
    task: str = "language-model"


def configure(
    preset: str = "quick",
    corpus: str | None = None,
    gate: str = "gumbel",
    seed: int = 1,
    temperature: float | None = None,
    noise_probability: float | None = None,
    schedule: str = "constant",
    temperature_end: float | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Configuration:
    """Configuration of one language-model run.

    Args:
        preset: "quick" (embedded corpus, a minute), "small" (PTB on a CPU) or "paper" (GPU).
        corpus: name or folder, see `corpora.load_corpus`; default: the preset's.
        gate: "sigmoid", "sharpened" or "gumbel".
        seed: of initialisation, dropout, gate noise and segment lengths.
        temperature: tau, at the start of the schedule; default 0.9 (Gumbel), 0.2 (sharpened).
        noise_probability: p of the Gumbel gate; default 0.2.
        schedule: of the temperature, see `gates.TemperatureSchedule`.
        temperature_end: tau at the end of training; needed unless ``schedule`` is "constant".
        overrides: other values for single settings of the preset, by name: those of
            `TrainingOptions`, of `LanguageModel`, and ``threads``.

    Raises:
        ParameterError: an unknown name, or a value of the wrong kind or out of range; names it.
    """
    if preset not in PRESETS:
        raise ParameterError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError(f"seed must be an integer >= 0, got {seed!r}")
    if corpus is not None and not isinstance(corpus, str):
        raise ParameterError(f"corpus must be text, got {corpus!r}")
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ParameterError(
            f"overrides must be a dict from name to value, got {overrides!r}; "
            "with papermill: -y 'overrides: {epochs: 1}'"
        )
    chosen = PRESETS[preset]
    try:
        check_gate(gate)
        default_temperature, default_probability = GATE_SETTINGS[gate]
        for name, value, default in (
            ("temperature", temperature, default_temperature),
            ("noise_probability", noise_probability, default_probability),
        ):
            if value is not None and default is None:
                raise ParameterError(f"{name}={value!r} has no effect with gate={gate!r}")
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float)
            ):
                raise ParameterError(f"{name} must be a number, got {value!r}")
        temperature = default_temperature if temperature is None else float(temperature)
        if noise_probability is None:
            noise_probability = default_probability
        else:
            noise_probability = float(noise_probability)
        if schedule != "constant":
            if gate == "sigmoid":
                raise ParameterError(f"schedule={schedule!r} has no effect with gate='sigmoid'")
            if temperature_end is None:
                raise ParameterError(f"schedule={schedule!r} needs a temperature_end")
        elif temperature_end is not None:
            raise ParameterError(f"temperature_end={temperature_end!r} needs a schedule")
        overrides = _checked_overrides(chosen, dict(overrides or {}))
        training = {name: overrides[name] for name in overrides if name in _training_names()}
        model = {name: overrides[name] for name in overrides if name in _model_defaults()}
        TemperatureSchedule(schedule, temperature or 1.0, temperature_end)
        configuration = Configuration(
            preset=preset,
            corpus=_corpus_path(corpus or chosen.corpus),
            gate=gate,
            seed=seed,
            temperature=temperature,
            noise_probability=noise_probability,
            schedule=schedule,
            temperature_end=None if temperature_end is None else float(temperature_end),
            model=chosen.model | model,
            training=replace(chosen.training, **training),
            threads=overrides.get("threads", chosen.threads),
            cache_pointer=chosen.cache_pointer,
            overrides=overrides,
        )
        build_model(configuration, vocabulary_size=10**6, device="meta")
    except ParameterError:
        raise
    except (ValueError, TypeError) as error:
        raise ParameterError(str(error)) from error
    return configuration


def run_directory(configuration: Configuration) -> Path:
    """Directory of the run, under ``$G2LSTM_RUNS`` (default: ``runs`` in the current folder)."""
    root = Path(os.environ.get("G2LSTM_RUNS") or "runs")
    corpus = Path(configuration.corpus).name
    settings = gate_settings(configuration)
    seed = f"seed-{configuration.seed}"
    return root / configuration.task / corpus / configuration.preset / settings / seed


def results_directory(preset: str) -> Path:
    """``$G2LSTM_RESULTS``/<preset> (default: ``results/<preset>`` in the current folder)."""
    return Path(os.environ.get("G2LSTM_RESULTS") or "results") / preset


def gate_settings(configuration: Configuration) -> str:
    """The gate and all that departs from the preset, as a folder name."""
    parts = [configuration.gate]
    if configuration.temperature is not None:
        parts.append(f"tau-{configuration.temperature:g}")
    if configuration.schedule != "constant":
        parts.append(f"{configuration.schedule}-to-{configuration.temperature_end:g}")
    if configuration.noise_probability is not None:
        parts.append(f"p-{configuration.noise_probability:g}")
    parts += [f"{name}-{value}" for name, value in sorted(configuration.overrides.items())]
    return "_".join(parts)


def command(configuration: Configuration) -> str:
    """The papermill command that makes the run."""
    settings = {
        "preset": configuration.preset,
        "corpus": configuration.corpus,
        "gate": configuration.gate,
        "seed": configuration.seed,
    }
    if (configuration.temperature, configuration.noise_probability) != GATE_SETTINGS[
        configuration.gate
    ]:
        settings["temperature"] = configuration.temperature
        settings["noise_probability"] = configuration.noise_probability
    if configuration.schedule != "constant":
        settings["schedule"] = configuration.schedule
        settings["temperature_end"] = configuration.temperature_end
    text = "papermill notebooks/01_language_model.ipynb out.ipynb"
    for name, value in settings.items():
        if value is not None:
            text += f" -p {name} {shlex.quote(str(value))}"
    if configuration.overrides:
        text += f" -y {shlex.quote(json.dumps({'overrides': configuration.overrides}))}"
    return text


def build_model(
    configuration: Configuration, vocabulary_size: int, device: str = "cpu"
) -> LanguageModel:
    """The configuration's language model, initialised from the global random state."""
    gate: dict[str, Any] = {"gate": configuration.gate}
    if configuration.temperature is not None:
        gate["temperature"] = configuration.temperature
    if configuration.noise_probability is not None:
        gate["noise_probability"] = configuration.noise_probability
    with torch.device(device):
        return LanguageModel(vocabulary_size, **configuration.model, **gate)


def check_parameters(namespace: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """Refuse unknown notebook parameters; to be called right after the parameters cell.

    papermill passes a misspelt parameter on with a warning only. Here every name in ``namespace``
    (the notebook's ``globals()``) that holds plain data counts as a parameter.

    Returns:
        The known parameters with their values.

    Raises:
        ParameterError: names the unknown parameter and the nearest known one.
    """
    known = list(known)
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    ignored = {"In", "Out"}
    for name, value in namespace.items():
        if name.startswith("_") or name in {*ignored, *known} or not isinstance(value, plain):
            continue
        raise ParameterError(
            f"unknown parameter {name!r}{_hint(name, known)} "
            f"Known: {', '.join(sorted(known))}. (In a running "
            "notebook a name that a later cell has set counts too: restart the kernel.)"
        )
    return {name: namespace[name] for name in known}


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _corpus_path(corpus: str) -> str:
    """A folder as an absolute path; anything else, a corpus's name or not, as it is."""
    folder = Path(corpus).expanduser()
    return str(folder.resolve()) if corpus not in NAMES and folder.is_dir() else corpus


def _checked_overrides(preset: Preset, overrides: dict[str, Any]) -> dict[str, Any]:
    training = {name: getattr(preset.training, name) for name in _training_names()}
    examples = _model_defaults() | training | {"threads": preset.threads}
    checked = {}
    for name, value in overrides.items():
        if name not in examples:
            hint = _hint(name, examples)
            raise ParameterError(f"unknown override {name!r}{hint} Known: {', '.join(examples)}")
        checked[name] = _of_kind(name, value, examples[name])
    if checked.get("threads", 1) < 1:
        raise ParameterError(f"threads must be at least 1, got {checked['threads']!r}")
    return checked


def _training_names() -> list[str]:
    return [option.name for option in fields(TrainingOptions)]


def _model_defaults() -> dict[str, Any]:
    set_elsewhere = {"self", "vocabulary_size", "gate", "temperature", "noise_probability"}
    parameters = inspect.signature(LanguageModel.__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in set_elsewhere}


def _of_kind(name: str, value: Any, example: Any) -> Any:
    """``value`` if it is of the type of ``example`` (an int passes for a float)."""
    kinds = (int, float) if isinstance(example, float) else (type(example),)
    wrong_bool = isinstance(value, bool) and not isinstance(example, bool)
    if wrong_bool or not isinstance(value, kinds):
        raise ParameterError(f"{name} must be of type {type(example).__name__}, got {value!r}")
    return type(example)(value)
