"""The single settings of experiments: which there are, and checked changes to a preset's."""

import inspect
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

from g2lstm.language_model import LanguageModel
from g2lstm.parameters import ParameterError, hint
from g2lstm.presets import PRESETS, Preset
from g2lstm.translation import TranslationModel

MODELS = {"language-model": LanguageModel, "translation": TranslationModel}
# The greatest numbers that make sense: beyond them a slip would take all memory, or for ever.
MOST = {
    "num_layers": 100, "encoder_layers": 100, "decoder_layers": 100, "beam_size": 1000,
    "hidden_size": 10**6, "embedding_size": 10**6, "merges": 10**6, "threads": 1024,
    "processes": 1024,
}  # fmt: skip
MOST_OF_ALL = 10**9
# What a model gets from elsewhere than the preset.
_SET_ELSEWHERE = {
    "self", "vocabulary_size", "source_size", "target_size", "padding",
    "gate", "temperature", "noise_probability",
}  # fmt: skip
_COUNTS = ("threads", "processes")
PARTS = ("model", "training", "data", "evaluation")  # of a configuration, with settings by name


def for_corpus(preset: Preset, corpus: str | None) -> Preset:
    """The preset with what it says of the corpus of this name."""
    settings = dict(preset.for_corpus.get(corpus, {}))
    languages = settings.pop("languages", preset.languages)
    return replace(changed(preset, settings), languages=languages)


def changed(preset: Preset, settings: Mapping[str, Any]) -> Preset:
    """The preset with other values for single settings; those it does not name are the model's."""
    training = {option.name for option in fields(preset.training)}
    parts: dict[str, dict[str, Any]] = {"data": {}, "evaluation": {}, "training": {}, "model": {}}
    for name, value in settings.items():
        if name in preset.data:
            parts["data"][name] = value
        elif name in preset.evaluation:
            parts["evaluation"][name] = value
        elif name in training:
            parts["training"][name] = value
        elif name not in _COUNTS:
            parts["model"][name] = value
    return replace(
        preset,
        model=preset.model | parts["model"],
        training=replace(preset.training, **parts["training"]),
        data=preset.data | parts["data"],
        evaluation=preset.evaluation | parts["evaluation"],
        **{name: settings.get(name, getattr(preset, name)) for name in _COUNTS},
    )


def checked_overrides(preset: Preset, overrides: dict[str, Any], task: str) -> dict[str, Any]:
    """The overrides that depart from the preset, each of the kind and size of its setting.

    Raises:
        ParameterError: an unknown name, or a value of the wrong kind or out of range; names it.
    """
    training = {
        option.name: getattr(preset.training, option.name) for option in fields(preset.training)
    }
    examples = model_defaults(task) | training | preset.data | preset.evaluation
    examples |= {name: getattr(preset, name) for name in _COUNTS}
    checked = {}
    for name, value in overrides.items():
        if name not in examples:
            close = hint(str(name), examples)
            raise ParameterError(f"unknown override {name!r}{close} Known: {', '.join(examples)}")
        checked[name] = _of_kind(name, value, examples[name])
        most = MOST.get(name, MOST_OF_ALL)
        if isinstance(checked[name], int) and checked[name] > most:
            raise ParameterError(f"{name} must be at most {most}, got {value!r}")
    for name in _COUNTS:
        if checked.get(name, 1) < 1:
            raise ParameterError(f"{name} must be at least 1, got {checked[name]!r}")
    now = examples | preset.model
    return {name: value for name, value in checked.items() if value != now[name]}


def made_with(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a published run that its preset has corrected since: `Preset.published`, or {}.

    Args:
        config: of the run; of the settings it must name one, and none with another value.
    """
    then = PRESETS[config["task"]][config["preset"]].published
    said = {k: v for part in PARTS for k, v in config.get(part, {}).items() if k in then}
    return then if said and all(said[name] == then[name] for name in said) else {}


def cache_recipe(config: Mapping[str, Any]) -> str:
    """Whose settings the cache pointer of a run has; older records name none: WikiText-2's."""
    return config.get("evaluation", {}).get("cache_recipe", "wikitext-2")


def model_defaults(task: str) -> dict[str, Any]:
    """Defaults of the arguments of a task's model that a preset or an override may set."""
    parameters = inspect.signature(MODELS[task].__init__).parameters
    return {name: p.default for name, p in parameters.items() if name not in _SET_ELSEWHERE}


def training_defaults(task: str) -> dict[str, Any]:
    """Defaults of the options of training of a task, by name."""
    options = next(iter(PRESETS[task].values())).training
    return {option.name: option.default for option in fields(options)}


def finite(name: str, value: Any) -> float:
    """``value`` as a finite float.

    Raises:
        ParameterError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ParameterError(f"{name} must be a number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ParameterError(f"{name} must be a finite number, got {number!r}")
    return number


def _of_kind(name: str, value: Any, example: Any) -> Any:
    """``value`` if it is of the type of ``example`` (an int passes for a float)."""
    if isinstance(example, float) and isinstance(value, str):
        with suppress(ValueError):
            value = float(value)  # YAML, and so papermill, takes 1e-06 for text
    kinds = (int, float) if isinstance(example, float) else (type(example),)
    wrong_bool = isinstance(value, bool) and not isinstance(example, bool)
    if wrong_bool or not isinstance(value, kinds):
        raise ParameterError(f"{name} must be of type {type(example).__name__}, got {value!r}")
    return finite(name, value) if isinstance(example, float) else value
