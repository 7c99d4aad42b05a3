"""The training loop: SGD with NT-ASGD, AdamW or AdaDelta, checkpoints, exact resume."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm

from g2lstm.checkpoint import load_checkpoint, read_progress, save_checkpoint
from g2lstm.compression import check_finite
from g2lstm.data_parallel import computed_by_first, reseed, sum_gradients
from g2lstm.gate_rates import scale_gates, with_gate_rate
from g2lstm.gates import TemperatureSchedule
from g2lstm.identity import METRICS, write_rows
from g2lstm.options import TrainingOptions
from g2lstm.products import emulates_bfloat16

# Columns of the metrics that depend on the machine's speed; all others repeat exactly.
TIMING_COLUMNS = ("seconds", "tokens_per_second")
CHECKPOINT = Path("state", "checkpoint.safetensors")  # in the run directory
CHECK_INTERVAL = 20  # steps between looks at the loss: each one waits for a GPU


class TrainingDivergedError(RuntimeError):
    """The loss became NaN, infinite or worse than guessing; earlier checkpoints are intact."""


class Step(NamedTuple):
    """One step of the optimiser: what it learns from, and where in the epoch it stands."""

    batch: Any
    tokens: int  # predictions in the batch, of all processes
    done: float  # share of the epoch before this step
    scale: float = 1.0  # of the learning rate


class Objective(Protocol):
    """What a model is trained for; see `objectives`.

    Attributes:
        epoch_tokens: predictions in an epoch.
        guessing: nats a token of a model that guesses evenly.
    """

    epoch_tokens: int
    guessing: float

    def steps(self, epoch: int) -> Sequence[Step]:
        """The steps of an epoch; the same each time it is asked for."""

    def losses(self, model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
        """What to minimise, and the loss in nats a token.

        Of several processes each returns its part of the first, with gradients that add up to
        those of the whole batch, and all of them the second of the whole batch.
        """

    def validate(self, model: nn.Module) -> float:
        """Nats a token on the validation text, in evaluation mode; the mode is restored."""


def train(
    model: nn.Module,
    objective: Objective,
    options: TrainingOptions,
    directory: Path | str,
    *,
    seed: int = 1,
    schedule: TemperatureSchedule | None = None,
    probe: Callable[[nn.Module], dict[str, float]] | None = None,
    progress_bar: bool = True,
) -> list[dict[str, Any]]:
    """Train ``model`` in place, or go on from the checkpoint in ``directory``.

    After each epoch ``directory`` holds ``metrics.jsonl`` (a line an epoch), ``model.safetensors``
    (the weights that were best on the validation text) and ``state/checkpoint.safetensors`` (all
    that is needed to go on). A run that was killed at any moment and is started again ends with
    the same weights and metrics, bit for bit, on the same kind of processor. At the end ``model``
    holds the best weights.

    Args:
        model: freshly initialised; has ``gate`` and ``temperature``.
        objective: what to train for, with the data.
        options: see `TrainingOptions`.
        directory: the run directory.
        seed: of dropout and gate noise; seeds the global generator of torch.
        schedule: temperature as a function of epochs done (its ``steps`` count epochs); default:
            the temperature stays as it is.
        probe: called with the model after each epoch; its values join the metrics.
        progress_bar: show a bar with loss, perplexity and tokens per second.

    Returns:
        One dict an epoch: epoch, train_loss and valid_loss (nats a token), their perplexities,
        learning_rate, temperature (None: the gate has none), averaging, precision (see
        `precision_of`), seconds, tokens_per_second, and the probe's values.

    Raises:
        TrainingDivergedError: the loss is not finite, or far worse than guessing.
        CheckpointError: the checkpoint is damaged or of another run or model.
    """
    directory = Path(directory)
    checkpoint = directory / CHECKPOINT
    best = directory / "model.safetensors"
    # Not the seed of the initial weights: the masks would be made of the same random numbers.
    torch.manual_seed(seed + 2**32)

    history: list[dict[str, Any]] = []
    averaging, stopped = False, False
    if checkpoint.exists():
        averaging = read_progress(checkpoint, "averaging", "history", "stopped")["averaging"]
        optimizer = _optimizer(model, options, averaging)
        progress = load_checkpoint(checkpoint, model, optimizer)
        history, stopped = progress["history"], progress["stopped"]
        write_rows(directory / METRICS, history)
    else:
        if options.gate_initial_scale != 1:
            scale_gates(model, options.gate_initial_scale)
        optimizer = _optimizer(model, options, averaging)
        progress = {"history": history, "averaging": averaging, "stopped": stopped}
        save_checkpoint(checkpoint, model, optimizer, progress)

    precision = precision_of(options, next(model.parameters()).device)
    if precision != options.precision:
        tqdm.write("this processor has no products in bfloat16: they are made in float32")
    total_epochs = options.epochs + options.finetune_epochs
    bar = tqdm(
        total=total_epochs * objective.epoch_tokens, initial=len(history) * objective.epoch_tokens,
        unit="tok", unit_scale=True, disable=not progress_bar, mininterval=1.0,
    )  # fmt: skip
    with bar:
        while len(history) < total_epochs and not stopped:
            epoch = len(history)
            reseed(seed, epoch)
            row = _train_epoch(
                model, objective, optimizer, options, schedule, epoch, averaging, precision, bar
            )
            with _averaged_weights(model, optimizer):
                loss = computed_by_first(lambda: objective.validate(model), model)
                _check_loss(objective, loss, f"validation loss after epoch {epoch + 1}")
                row |= {"valid_loss": loss, "valid_perplexity": math.exp(loss)}
                if probe is not None:
                    row |= probe(model)
                if loss < min((r["valid_loss"] for r in history), default=math.inf):
                    about = {"epoch": epoch + 1, "temperature": model.temperature}
                    save_checkpoint(best, model, progress=about)
            history.append(row)
            stopped = _is_over(history, options)
            if len(history) == options.epochs and options.finetune_epochs and not stopped:
                load_best(best, model)
                averaging = True
                optimizer = _optimizer(model, options, averaging)
            elif not averaging and _stagnates(history, options):
                averaging = True
                optimizer = _optimizer(model, options, averaging)
            progress = {"history": history, "averaging": averaging, "stopped": stopped}
            save_checkpoint(checkpoint, model, optimizer, progress)
            write_rows(directory / METRICS, history)
            tqdm.write(
                f"epoch {epoch + 1:3d}/{total_epochs}  train {row['train_perplexity']:8.2f}  "
                f"valid {row['valid_perplexity']:8.2f}  {row['tokens_per_second']:.0f} tokens/s"
            )
    load_best(best, model)
    return history


def precision_of(options: TrainingOptions, device: torch.device) -> str:
    """``options.precision``, or "float32" on a CPU that has to emulate products in bfloat16."""
    return "float32" if emulates_bfloat16(device) else options.precision


def load_best(path: Path | str, model: nn.Module) -> None:
    """Load the weights in ``path`` (``model.safetensors``) and the temperature they belong to.

    Raises:
        CheckpointError: the file is missing, damaged, of another run than its folder, of another
            model or no file of weights.
        WeightsError: a weight is NaN or infinite.
    """
    temperature = read_progress(path, "temperature")["temperature"]
    load_checkpoint(path, model)
    check_finite(path, model.named_parameters())
    model.temperature = temperature


def _train_epoch(
    model: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    options: TrainingOptions,
    schedule: TemperatureSchedule | None,
    epoch: int,
    averaging: bool,
    precision: str,
    bar: tqdm,
) -> dict[str, Any]:
    model.train()
    device = next(model.parameters()).device
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    started = time.perf_counter()
    steps = objective.steps(epoch)
    for number, step in enumerate(steps, 1):
        done = epoch + step.done
        rate = _learning_rate(options, done / options.epochs) * step.scale
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("learning_rate_factor", 1.0)
        if schedule is not None:
            model.temperature = schedule(done)

        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            objective_value, loss = objective.losses(model, step.batch)
        model.zero_grad()
        objective_value.backward()
        sum_gradients(model)
        clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()

        total += loss.detach().double() * step.tokens
        count += step.tokens
        bar.update(step.tokens)
        if number % CHECK_INTERVAL == 0 or number == len(steps):
            mean = float(total) / count
            _check_loss(objective, mean, f"training loss in epoch {epoch + 1}, step {number}")
            perplexity = f"{math.exp(mean):.1f}"
            bar.set_postfix(epoch=epoch + 1, loss=f"{mean:.3f}", ppl=perplexity, refresh=False)
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "train_loss": mean,
        "train_perplexity": math.exp(mean),
        "learning_rate": rate,
        "temperature": None if model.gate == "sigmoid" else model.temperature,
        "averaging": averaging,
        "precision": precision,
        "seconds": seconds,
        "tokens_per_second": count / seconds,
    }


def _check_loss(objective: Objective, loss: float, what: str) -> None:
    if not math.isfinite(loss) or loss > 2 * objective.guessing:
        raise TrainingDivergedError(
            f"{what} is {loss} (guessing gives {objective.guessing:.2f}); the checkpoint of the "
            "epoch before is intact: lower learning_rate or clip"
        )


def _learning_rate(options: TrainingOptions, done: float) -> float:
    """Learning rate after the share ``done`` of the epochs (above 1 in fine-tuning)."""
    rate = options.learning_rate
    if done < options.warmup:
        return rate * max(done, 1e-4) / options.warmup
    if options.learning_rate_schedule == "cosine":
        left = (min(done, 1.0) - options.warmup) / (1 - options.warmup)
        return rate * (1 + math.cos(math.pi * left)) / 2
    return rate


def _optimizer(
    model: nn.Module, options: TrainingOptions, averaging: bool
) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if averaging:
        build = partial(torch.optim.ASGD, lambd=0.0, t0=0, **settings)
    elif options.optimizer == "adamw":
        build = partial(torch.optim.AdamW, fused=True, **settings)
    elif options.optimizer == "adadelta":
        build = partial(torch.optim.Adadelta, rho=0.95, eps=1e-7, **settings)
    else:
        build = partial(torch.optim.SGD, **settings)
    return with_gate_rate(build, model, options.gate_learning_rate_factor)


def _stagnates(history: list[dict[str, Any]], options: TrainingOptions) -> bool:
    """NT-ASGD's trigger for the stage before fine-tuning."""
    if options.optimizer != "sgd" or not options.nonmono:
        return False
    return _is_worse([row["valid_loss"] for row in history], options.nonmono)


def _is_worse(losses: list[float], nonmono: int) -> bool:
    """Whether the last loss is above the best of the others but the ``nonmono`` before it."""
    *past, last = losses
    return len(past) > nonmono and last > min(past[:-nonmono])


def _is_over(history: list[dict[str, Any]], options: TrainingOptions) -> bool:
    losses = [row["valid_loss"] for row in history]
    finetuning = losses[options.epochs :]
    if finetuning:
        return bool(options.nonmono) and _is_worse(finetuning, options.nonmono)
    since_best = len(losses) - 1 - losses.index(min(losses))
    return bool(options.patience) and not options.finetune_epochs and since_best >= options.patience


@contextmanager
def _averaged_weights(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the context the model has averaged SGD's mean weights, if that is the optimiser."""
    if not isinstance(optimizer, torch.optim.ASGD):
        yield
        return
    parameters = [part for group in optimizer.param_groups for part in group["params"]]
    current = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(optimizer.state[parameter]["ax"])
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, current, strict=True):
                parameter.copy_(value)
