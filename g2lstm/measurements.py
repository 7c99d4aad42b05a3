"""Measurements on the weights of a finished run, kept beside it, so that figures redraw without."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm

from g2lstm.batches import Pairs
from g2lstm.evaluation import evaluate, evaluate_translation
from g2lstm.experiments import (
    Configuration,
    arguments_of,
    changed_settings,
    command,
    configure,
)
from g2lstm.identity import read_record, write_record
from g2lstm.language_model_task import LanguageModelTask
from g2lstm.provenance import code_checksum, provenance
from g2lstm.records import MEASUREMENTS, WEIGHTS, Run, RunError
from g2lstm.settings import MODELS, cache_recipe, made_with
from g2lstm.training import load_best
from g2lstm.translation_task import TranslationTask

TASKS = {"language-model": LanguageModelTask, "translation": TranslationTask}


@dataclass(frozen=True)
class Trained:
    """A finished run with its data and its trained model.

    Attributes:
        run: its records.
        configuration: what it was configured to be.
        task: corpus and model, the weights loaded.
    """

    run: Run
    configuration: Configuration
    task: LanguageModelTask | TranslationTask

    @property
    def model(self) -> nn.Module:
        """The trained model, in evaluation mode."""
        return self.task.model


def load_trained(run: Run, device: str | None = None) -> Trained:
    """Build the model of a finished run and load its weights.

    Args:
        run: as `read_run` returns it.
        device: "cpu" or "cuda"; default: the GPU if there is one.

    Raises:
        RunError: the weights are not there, the corpus is not the one of the run, or the preset has
            changed since.
        CorpusError: the corpus cannot be loaded.
        CheckpointError: the weights are damaged or another run's.
    """
    config = run.config
    configuration = configuration_of(config)
    if not (run.directory / WEIGHTS).exists():
        raise RunError(
            f"{run.directory} holds no weights (published records come without); make them with: "
            f"{command(configuration)}"
        )
    if changed := changed_settings(config):
        raise RunError(
            f"{run.directory} was made with another preset {config['preset']!r} "
            f"({'; '.join(changed)}): run it again"
        )
    torch.set_num_threads(configuration.threads)
    torch.set_flush_denormal(True)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    task = TASKS[configuration.task](configuration, device)
    known = run.provenance["data"]["sha256"]
    if task.checksums != known:
        changed = [name for name in known if task.checksums.get(name) != known[name]]
        raise RunError(
            f"{run.directory} was trained on another text than {task.source} holds now "
            f"({', '.join(changed)}): run it again"
        )
    load_best(run.directory / WEIGHTS, task.model)
    task.model.eval()
    return Trained(run, configuration, task)


def configuration_of(config: Mapping[str, Any]) -> Configuration:
    """The configuration of a run as it was: with what `made_with` and `cache_recipe` say of it."""
    now, then = configure(**arguments_of(config)), made_with(config)
    model = {name: value for name, value in then.items() if name in now.model}
    training = {name: value for name, value in then.items() if hasattr(now.training, name)}
    recipe = {"cache_recipe": cache_recipe(config)} if "cache_recipe" in now.evaluation else {}
    return replace(
        now,
        model=now.model | model,
        training=replace(now.training, **training),
        evaluation=now.evaluation | recipe,
    )


@dataclass(frozen=True)
class Measurement:
    """Something measured on a trained run and kept in its folder ``measurements``.

    Attributes:
        name: of its file.
        function: called with the `Trained` run and the settings; returns JSON values.
        modules: those of the package whose source decides the outcome, beside this one.
    """

    name: str
    function: Callable[..., Any]
    modules: tuple[str, ...]

    def of(self, run: Run, **settings: Any) -> Any:
        """The measurement of one run: read if it was made with these settings, else made.

        Where there are weights, it is made anew when run, settings or code have changed, or when
        its record is damaged or another run's; published records, which come without weights, are
        read as long as run and settings are the same.

        Raises:
            RunError, CorpusError, CheckpointError: see `load_trained`.
            RunError: the record is damaged or another run's, and there are no weights.
        """
        path, wanted = self._place(run, settings)
        code = code_checksum((*self.modules, "measurements"))
        weights = (run.directory / WEIGHTS).exists()
        try:
            record = self._record(path, wanted)
            if record is not None and (record["code"] == code or not weights):
                return record["result"]
        except RunError as error:
            if not weights:
                raise
            print(f"{error}: it is measured again")
        trained = load_trained(run)
        how = f"{self.name} measured of {command(trained.configuration)}"
        about = provenance(how, seed=run.config["seed"])
        with torch.no_grad():
            result = _plain(self.function(trained, **settings))
        write_record(path, {**wanted, "code": code, "provenance": about, "result": result})
        return result

    def recorded(self, run: Run, **settings: Any) -> Any | None:
        """The measurement of one run if it is on record with these settings; nothing is made.

        Raises:
            RunError: the record is damaged or another run's.
        """
        record = self._record(*self._place(run, settings))
        return None if record is None else record["result"]

    def _place(self, run: Run, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
        """File of the measurement, and what its record must say."""
        path = run.directory / MEASUREMENTS / f"{self.name}.json"
        return path, {"settings": _plain(settings), "fingerprint": run.config["fingerprint"]}

    def _record(self, path: Path, wanted: dict[str, Any]) -> dict[str, Any] | None:
        """The record; None where there is none, or one of other settings or an earlier run."""
        try:
            record = read_record(path)
            _ = record["code"], record["result"]
            return record if wanted == {key: record[key] for key in wanted} else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise RunError(
                f"the measurement {path} is damaged or another run's ({error}); put back a good "
                "copy, or make the run again, and measure it"
            ) from error

    def of_all(
        self, runs: Iterable[Run], progress_bar: bool = True, **settings: Any
    ) -> list[tuple[Run, Any]]:
        """The measurement of each run, with the run, in order; shows a bar."""
        bar = tqdm(list(runs), desc=self.name, unit="run", disable=not progress_bar, leave=False)
        return [(run, self.of(run, **settings)) for run in bar]


def loss_of(trained: Trained, model: nn.Module, split: str = "valid", limit: int = 20_000) -> float:
    """Nats a token of ``model`` on the first part of a split, in evaluation mode.

    Args:
        trained: whose data.
        model: the run's own model, or one made of it.
        split: "train", "valid" or "test".
        limit: tokens; of a translation, subwords of the targets.

    Returns:
        The loss by teacher forcing; infinite where the model puts out NaN.
    """
    if isinstance(model, MODELS["language-model"]):
        tokens = getattr(trained.task.corpus, split)[:limit]
        loss = evaluate(model, tokens, batch_size=min(10, len(tokens) // 2)).loss
    else:
        loss = evaluate_translation(model, first_pairs(trained.task.pairs[split], limit)).loss
    return loss if math.isfinite(loss) else math.inf


def first_pairs(pairs: Pairs, limit: int) -> Pairs:
    """The first pairs, at least one, whose targets have at most ``limit`` subwords in all."""
    number, total = 0, 0
    for target in pairs.targets:
        total += len(target) + 1
        if total > limit and number:
            break
        number += 1
    return Pairs(pairs.sources[:number], pairs.targets[:number])


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples as lists, keys as text; infinite numbers as None."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
