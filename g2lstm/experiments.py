"""The experiments as settings: configurations of runs, and where runs and results lie."""

import hashlib
import inspect
import json
import math
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from g2lstm.corpora import NAMES
from g2lstm.corpus_sources import existing_folder
from g2lstm.evaluation import CACHE_RECIPES
from g2lstm.gates import TemperatureSchedule, check_gate
from g2lstm.language_model import LanguageModel
from g2lstm.memory import check_memory, parameter_bytes
from g2lstm.options import TrainingOptions
from g2lstm.parallel_corpora import PARALLEL_NAMES
from g2lstm.parameters import ParameterError
from g2lstm.presets import GATE_SETTINGS, PRESETS
from g2lstm.settings import (
    MODELS,
    PARTS,
    changed,
    check_depth,
    check_effect,
    checked_languages,
    checked_overrides,
    finite,
    for_corpus,
    made_with,
)
from g2lstm.translation import TranslationModel

TASKS = tuple(PRESETS)
NOTEBOOKS = {"language-model": "01_language_model", "translation": "03_translation"}
LONGEST_NAME = 200  # of a folder; file systems take 255 bytes


@dataclass(frozen=True)
class Configuration:
    """Everything that determines a run but code and data; made by `configure`."""

    task: str
    preset: str
    corpus: str
    languages: str | None  # of a translation, source and target
    gate: str
    seed: int
    temperature: float | None
    noise_probability: float | None
    schedule: str
    temperature_end: float | None
    model: dict[str, Any]
    training: TrainingOptions
    data: dict[str, Any]
    evaluation: dict[str, Any]
    threads: int
    processes: int
    overrides: dict[str, Any]


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
    task: str = "language-model",
    languages: str | None = None,
) -> Configuration:
    """Configuration of one run.

    Args:
        preset: "quick" (embedded corpus, a minute), "small" (real text, a CPU), "paper-brief"
            (language model, minutes on a GPU) or "paper" (GPU).
        corpus: name or folder, see `corpora.load_corpus` and `parallel_corpora.load_parallel`;
            default: the preset's.
        gate: "sigmoid", "sharpened" or "gumbel".
        seed: of initialisation, dropout, gate noise and segment lengths.
        temperature: tau, at the start of the schedule; default 0.9 (Gumbel), 0.2 (sharpened).
        noise_probability: p of the Gumbel gate; default 0.2.
        schedule: of the temperature, see `gates.TemperatureSchedule`.
        temperature_end: tau at the end of training; needed unless ``schedule`` is "constant".
        overrides: other values for single settings of the preset, by name: those of the options
            of training, of the model, of `Preset.data` and `Preset.evaluation`, ``threads`` and
            ``processes``. Those that the preset has itself are left out.
        task: "language-model" or "translation".
        languages: source and target of a translation, as in "de-en"; default: the preset's.

    Raises:
        ParameterError: an unknown name, or a value of the wrong kind or out of range, or one
            without effect; names it.
    """
    check_depth(locals())
    if task not in TASKS:
        raise ParameterError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    if not isinstance(preset, str) or preset not in PRESETS[task]:
        raise ParameterError(f"preset must be one of {', '.join(PRESETS[task])}, got {preset!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ParameterError(f"seed must be an integer >= 0, got {seed!r} (most: 2^63 - 1)")
    if corpus is not None and not isinstance(corpus, str):
        raise ParameterError(f"corpus must be text, got {corpus!r}")
    if overrides is not None and not isinstance(overrides, Mapping):
        raise ParameterError(
            f"overrides must be a dict from name to value, got {overrides!r}; "
            "with papermill: -y 'overrides: {epochs: 1}'"
        )
    chosen = for_corpus(PRESETS[task][preset], corpus)
    try:
        check_gate(gate)
        chosen = changed(chosen, chosen.for_gate.get(gate, {}))
        default_temperature, default_probability = GATE_SETTINGS[gate]
        for name, value, default in (
            ("temperature", temperature, default_temperature),
            ("noise_probability", noise_probability, default_probability),
        ):
            if value is not None and default is None:
                raise ParameterError(f"{name}={value!r} has no effect with gate={gate!r}")
        if temperature is None:
            temperature = default_temperature
        else:
            temperature = finite("temperature", temperature)
        if noise_probability is None:
            noise_probability = default_probability
        else:
            noise_probability = finite("noise_probability", noise_probability)
        if schedule != "constant":
            if gate == "sigmoid":
                raise ParameterError(f"schedule={schedule!r} has no effect with gate='sigmoid'")
            if temperature_end is None:
                raise ParameterError(f"schedule={schedule!r} needs a temperature_end")
            temperature_end = finite("temperature_end", temperature_end)
        elif temperature_end is not None:
            raise ParameterError(f"temperature_end={temperature_end!r} needs a schedule")
        languages = checked_languages(chosen.languages, languages)
        overrides = checked_overrides(chosen, dict(overrides or {}), task)
        final = changed(chosen, overrides)
        check_effect(overrides, final.model, gate, task)
        TemperatureSchedule(schedule, temperature or 1.0, temperature_end)
        configuration = Configuration(
            task=task,
            preset=preset,
            corpus=_corpus_path(corpus or chosen.corpus, task),
            languages=languages,
            gate=gate,
            seed=seed,
            temperature=temperature,
            noise_probability=noise_probability,
            schedule=schedule,
            temperature_end=temperature_end,
            model=final.model,
            training=final.training,
            data=final.data,
            evaluation=final.evaluation,
            threads=final.threads,
            processes=final.processes,
            overrides=overrides,
        )
        _check_data(configuration)
        sizes = (10**6,) if task == "language-model" else (10**6, 10**6)
        build_model(configuration, *sizes, device="meta")
    except ParameterError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        given = {
            "schedule": schedule, "temperature_end": temperature_end,
            "noise_probability": noise_probability, **(overrides or {}),
        }  # fmt: skip
        named = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ParameterError(f"{error} (given: gate={gate!r}, {named})") from error
    return configuration


def arguments_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `configure` in the ``config.json`` of a run."""
    names = inspect.signature(configure).parameters
    return {name: config[name] for name in names if name in config}


def changed_settings(config: Mapping[str, Any]) -> list[str]:
    """What a run's ``config.json`` says otherwise than its preset says today, each in words.

    What `made_with` names is none of it: published runs keep the settings they were made with.
    """
    now, then = asdict(configure(**arguments_of(config))), made_with(config)
    return [
        f"{name} {value!r}, now {now[part].get(name)!r}"
        for part in PARTS
        for name, value in config.get(part, {}).items()
        if now[part].get(name) != value and name not in then
    ]


def run_directory(configuration: Configuration) -> Path:
    """Directory of the run, under ``$G2LSTM_RUNS`` (default: ``runs`` in the current folder)."""
    root = Path(os.environ.get("G2LSTM_RUNS") or "runs")
    corpus = corpus_label(configuration)
    settings = gate_settings(configuration)
    seed = f"seed-{configuration.seed}"
    return root / configuration.task / corpus / configuration.preset / settings / seed


def corpus_label(configuration: Configuration) -> str:
    """The corpus in names of folders and files: with its languages if it is parallel."""
    name = Path(configuration.corpus).name
    name = "corpus" if name in ("", "..") else name  # of "/", for example
    return name if configuration.languages is None else f"{name}-{configuration.languages}"


def results_directory(preset: str) -> Path:
    """``$G2LSTM_RESULTS``/<preset> (default: ``results/<preset>`` in the current folder)."""
    return Path(os.environ.get("G2LSTM_RESULTS") or "results") / preset


def gate_settings(configuration: Configuration) -> str:
    """The gate and all that departs from the preset, as a folder name."""
    parts = [configuration.gate]
    if configuration.temperature is not None:
        parts.append(f"tau-{_short(configuration.temperature)}")
    if configuration.schedule != "constant":
        parts.append(f"{configuration.schedule}-to-{_short(configuration.temperature_end)}")
    if configuration.noise_probability is not None:
        parts.append(f"p-{_short(configuration.noise_probability)}")
    parts += [f"{name}-{value}" for name, value in sorted(configuration.overrides.items())]
    name = "_".join(parts)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 13]}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _short(value: float) -> str:
    """As few digits as tell the value from others: they would share a folder."""
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)


def command(configuration: Configuration, untested: bool = False) -> str:
    """The command that makes the run: papermill's, or torchrun's for several processes.

    Args:
        configuration: of the run.
        untested: it is to end before its test; then the command is `g2lstm train`'s.
    """
    settings = {
        "preset": configuration.preset,
        "corpus": configuration.corpus,
        "languages": configuration.languages,
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
    settings = {name: value for name, value in settings.items() if value is not None}
    if configuration.processes > 1 or untested:
        text = (
            "g2lstm train --untested"
            if untested
            else (
                f"torchrun --standalone --nproc-per-node {configuration.processes} -m g2lstm train"
            )
        )
        for name, value in ({"task": configuration.task} | settings).items():
            text += f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in configuration.overrides.items():
            text += f" --set {shlex.quote(f'{name}={json.dumps(value)}')}"
        return text
    text = f"papermill notebooks/{NOTEBOOKS[configuration.task]}.ipynb out.ipynb"
    for name, value in settings.items():
        text += f" -p {name} {shlex.quote(str(value))}"
    if configuration.overrides:
        text += f" -y {shlex.quote(json.dumps({'overrides': configuration.overrides}))}"
    return text


def build_model(
    configuration: Configuration, *sizes: int, device: str = "cpu"
) -> LanguageModel | TranslationModel:
    """The configuration's model, initialised from the global random state.

    Args:
        configuration: made by `configure`.
        sizes: of the vocabulary, or of the source and target vocabularies.
        device: of the parameters.

    Raises:
        ResourceError: its parameters alone need more memory than there is.
    """
    if device != "meta":
        sketch = build_model(configuration, *sizes, device="meta")
        number = sum(parameter.numel() for parameter in sketch.parameters())
        check_memory(parameter_bytes(sketch), f"a model of {number:,} parameters", device)
    gate: dict[str, Any] = {"gate": configuration.gate}
    if configuration.temperature is not None:
        gate["temperature"] = configuration.temperature
    if configuration.noise_probability is not None:
        gate["noise_probability"] = configuration.noise_probability
    with torch.device(device):
        return MODELS[configuration.task](*sizes, **configuration.model, **gate)


def _corpus_path(corpus: str, task: str) -> str:
    """A folder as an absolute path; anything else, a corpus's name or not, as it is."""
    names = NAMES if task == "language-model" else PARALLEL_NAMES
    folder = None if corpus in names else existing_folder(corpus)
    return str(folder.resolve()) if folder else corpus


def _check_data(configuration: Configuration) -> None:
    settings = configuration.data | configuration.evaluation
    least_of = {
        "max_length": 1, "beam_size": 1, "merges": 0, "length_penalty": 0, "max_subwords": 0,
        "svd_rank": 1, "svd_plus_rank": 1,
    }  # fmt: skip
    for name, least in least_of.items():
        if name in settings and not least <= settings[name] < math.inf:
            raise ParameterError(f"{name} must be at least {least}, got {settings[name]!r}")
    recipe = settings.get("cache_recipe", "penn-treebank")
    if recipe not in CACHE_RECIPES:
        raise ParameterError(
            f"cache_recipe must be one of {', '.join(CACHE_RECIPES)}, got {recipe!r}"
        )
    strands = getattr(configuration.training, "batch_size", 0)
    if strands % configuration.processes:
        raise ParameterError(
            f"batch_size={strands} must be a multiple of processes={configuration.processes}"
        )
    if configuration.model.get("share_embeddings") and not settings["joint"]:
        raise ParameterError("share_embeddings=True needs joint=True: one vocabulary for both")
