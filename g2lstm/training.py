"""Training of the language model: SGD with NT-ASGD or AdamW, checkpoints, exact resume."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm.auto import tqdm

from g2lstm.checkpoint import load_checkpoint, read_progress, save_checkpoint
from g2lstm.evaluation import batchify, evaluate
from g2lstm.files import write_text
from g2lstm.gates import TemperatureSchedule
from g2lstm.language_model import LanguageModel, State, detach

# Columns of the metrics that depend on the machine's speed; all others repeat exactly.
TIMING_COLUMNS = ("seconds", "tokens_per_second")
CHECK_INTERVAL = 20  # steps between looks at the loss: each one waits for a GPU


class TrainingDivergedError(RuntimeError):
    """The loss became NaN, infinite or worse than guessing; earlier checkpoints are intact."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults are AWD-LSTM's for Penn Treebank.

    Attributes:
        epochs: passes over the training text.
        finetune_epochs: further passes with averaged SGD from the best weights (AWD-LSTM's second
            stage); ends early by the rule of ``nonmono``.
        batch_size: parallel strands of text.
        bptt: mean number of steps of truncated back-propagation; jittered as in AWD-LSTM.
        optimizer: "sgd" (turns into averaged SGD by ``nonmono``: NT-ASGD) or "adamw".
        learning_rate: peak learning rate; with "sgd" scaled by segment length / ``bptt``.
        learning_rate_schedule: "constant" or "cosine" (to 0 at the end of ``epochs``).
        warmup: share of the run in which the learning rate rises linearly from 0.
        weight_decay: L2 penalty ("sgd") or decoupled decay ("adamw").
        clip: maximum norm of the gradient.
        alpha: activation regularisation, times the mean square of the dropped-out output.
        beta: temporal activation regularisation, times the mean square change of the raw output.
        nonmono: start averaging when the validation loss is worse than its best before the last
            ``nonmono`` epochs; 0: never ("sgd" only).
        patience: stop after this many epochs without a better validation loss; 0: never.
        precision: "float32" or "bfloat16" (products only, by autocast).
        eval_batch_size: parallel strands of the validation text.
    """

    epochs: int = 750
    finetune_epochs: int = 0
    batch_size: int = 20
    bptt: int = 70
    optimizer: str = "sgd"
    learning_rate: float = 30.0
    learning_rate_schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 1.2e-6
    clip: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    nonmono: int = 5
    patience: int = 0
    precision: str = "float32"
    eval_batch_size: int = 10

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("sgd", "adamw"),
            "learning_rate_schedule": ("constant", "cosine"),
            "precision": ("float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("epochs", "batch_size", "bptt", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        for name in ("finetune_epochs", "weight_decay", "alpha", "beta", "nonmono", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup!r}")


def train(
    model: LanguageModel,
    train_tokens: Tensor,
    valid_tokens: Tensor,
    options: TrainingOptions,
    directory: Path | str,
    *,
    seed: int = 1,
    schedule: TemperatureSchedule | None = None,
    probe: Callable[[LanguageModel], dict[str, float]] | None = None,
    progress_bar: bool = True,
) -> list[dict[str, Any]]:
    """Train ``model`` in place, or go on from the checkpoint in ``directory``.

    After each epoch ``directory`` holds ``metrics.jsonl`` (a line an epoch), ``model.safetensors``
    (the weights that were best on the validation text) and ``state/checkpoint.safetensors`` (all
    that is needed to go on). A run that was killed at any moment and is started again ends with
    the same weights and metrics, bit for bit, on the same kind of processor. At the end ``model``
    holds the best weights.

    Args:
        model: the language model, freshly initialised.
        train_tokens, valid_tokens: one-dimensional texts.
        options: see `TrainingOptions`.
        directory: the run directory.
        seed: of dropout, gate noise and segment lengths; seeds the global generator of torch.
        schedule: temperature as a function of epochs done (its ``steps`` count epochs); default:
            the temperature stays as it is.
        probe: called with the model after each epoch; its values join the metrics.
        progress_bar: show a bar with loss, perplexity and tokens per second.

    Returns:
        One dict an epoch: epoch, train_loss and valid_loss (nats a token), their perplexities,
        learning_rate, temperature (None: the gate has none), averaging, seconds,
        tokens_per_second, and the probe's values.

    Raises:
        TrainingDivergedError: the loss is not finite, or far worse than guessing.
        CheckpointError: the checkpoint is damaged or of another model.
        ValueError: a text too short for the batch size.
    """
    directory = Path(directory)
    checkpoint = directory / "state" / "checkpoint.safetensors"
    best = directory / "model.safetensors"
    strands = batchify(train_tokens, options.batch_size).to(model.embedding.weight.device)
    torch.manual_seed(seed)

    history: list[dict[str, Any]] = []
    averaging, stopped = False, False
    optimizer = _optimizer(model, options, averaging)
    if checkpoint.exists():
        averaging = read_progress(checkpoint)["averaging"]
        optimizer = _optimizer(model, options, averaging)
        progress = load_checkpoint(checkpoint, model, optimizer)
        history, stopped = progress["history"], progress["stopped"]
        _write_metrics(directory, history)

    total_epochs = options.epochs + options.finetune_epochs
    bar = tqdm(
        total=total_epochs * (len(strands) - 1) * options.batch_size,
        initial=len(history) * (len(strands) - 1) * options.batch_size,
        unit="tok", unit_scale=True, disable=not progress_bar, mininterval=1.0,
    )  # fmt: skip
    with bar:
        while len(history) < total_epochs and not stopped:
            epoch = len(history)
            if epoch == options.epochs or (
                not averaging and _stagnates(history, options) and epoch < options.epochs
            ):
                if epoch == options.epochs:
                    load_checkpoint(best, model)
                averaging = True
                optimizer = _optimizer(model, options, averaging)
            row = _train_epoch(
                model, strands, optimizer, options, schedule, seed, epoch, averaging, bar
            )
            with _averaged_weights(model, optimizer):
                result = evaluate(model, valid_tokens, options.eval_batch_size, options.bptt)
                row |= {"valid_loss": result.loss, "valid_perplexity": result.perplexity}
                if probe is not None:
                    row |= probe(model)
                if not math.isfinite(result.loss):
                    raise TrainingDivergedError(
                        f"validation loss is {result.loss} after epoch {epoch + 1}; the checkpoint "
                        f"in {directory} is of the epoch before: lower learning_rate or clip"
                    )
                if result.loss < min((r["valid_loss"] for r in history), default=math.inf):
                    save_checkpoint(best, model, progress={"epoch": epoch + 1})
            history.append(row)
            stopped = _is_over(history, options)
            progress = {"history": history, "averaging": averaging, "stopped": stopped}
            save_checkpoint(checkpoint, model, optimizer, progress)
            _write_metrics(directory, history)
            tqdm.write(
                f"epoch {epoch + 1:3d}/{total_epochs}  train {row['train_perplexity']:8.2f}  "
                f"valid {row['valid_perplexity']:8.2f}  {row['tokens_per_second']:.0f} tokens/s"
            )
    load_checkpoint(best, model)
    return history


def _train_epoch(
    model: LanguageModel,
    strands: Tensor,
    optimizer: torch.optim.Optimizer,
    options: TrainingOptions,
    schedule: TemperatureSchedule | None,
    seed: int,
    epoch: int,
    averaging: bool,
    bar: tqdm,
) -> dict[str, Any]:
    model.train()
    device = strands.device
    guessing = math.log(model.embedding.num_embeddings)
    state: State | None = None
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = 0
    started = time.perf_counter()
    bounds = list(jittered_bounds(len(strands) - 1, options.bptt, seed, epoch))
    for step, (start, end) in enumerate(bounds, 1):
        done = epoch + start / (len(strands) - 1)
        rate = _learning_rate(options, done / options.epochs)
        if options.optimizer == "sgd":
            rate *= (end - start) / options.bptt
        for group in optimizer.param_groups:
            group["lr"] = rate
        if schedule is not None:
            model.temperature = schedule(done)

        state = None if state is None else detach(state)
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bfloat16"):
            output = model(strands[start:end], state)
            targets = strands[start + 1 : end + 1].flatten()
            loss = model.loss(output.hidden.flatten(0, 1), targets)
        state = output.state
        objective = loss
        if options.alpha:
            objective = objective + options.alpha * output.hidden.float().pow(2).mean()
        if options.beta and end - start > 1:
            change = output.raw[1:].float() - output.raw[:-1].float()
            objective = objective + options.beta * change.pow(2).mean()
        optimizer.zero_grad()
        objective.backward()
        clip_grad_norm_(model.parameters(), options.clip)
        optimizer.step()

        size = (end - start) * options.batch_size
        total += loss.detach().double() * size
        count += size
        bar.update(size)
        if step % CHECK_INTERVAL == 0 or step == len(bounds):
            mean = float(total) / count
            if not math.isfinite(mean) or mean > 2 * guessing:
                raise TrainingDivergedError(
                    f"training loss is {mean} in epoch {epoch + 1}, step {step} (guessing gives "
                    f"{guessing:.2f}); the last checkpoint is intact: lower learning_rate or clip"
                )
            perplexity = f"{math.exp(mean):.1f}"
            bar.set_postfix(epoch=epoch + 1, loss=f"{mean:.3f}", ppl=perplexity, refresh=False)
    seconds = time.perf_counter() - started
    return {
        "epoch": epoch + 1,
        "train_loss": mean,
        "train_perplexity": math.exp(mean),
        "learning_rate": rate,
        "temperature": None if model.layers[0].gate == "sigmoid" else model.temperature,
        "averaging": averaging,
        "seconds": seconds,
        "tokens_per_second": count / seconds,
    }


def jittered_bounds(length: int, bptt: int, seed: int, epoch: int) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of segments that cover ``length`` steps, of random size around ``bptt``.

    AWD-LSTM's jitter: the mean is ``bptt``, or half of it in 5 % of the cases; the standard
    deviation is 5, the least size 5. Depends on ``seed`` and ``epoch`` alone.
    """
    random = np.random.default_rng([seed, epoch])
    start = 0
    while start < length:
        mean = bptt if random.random() < 0.95 else bptt / 2
        end = min(length, start + max(5, int(random.normal(mean, 5))))
        yield start, end
        start = end


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
    model: LanguageModel, options: TrainingOptions, averaging: bool
) -> torch.optim.Optimizer:
    rate, decay = options.learning_rate, options.weight_decay
    if averaging:
        return torch.optim.ASGD(model.parameters(), rate, lambd=0.0, t0=0, weight_decay=decay)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=True)
    return torch.optim.SGD(model.parameters(), rate, weight_decay=decay)


def _stagnates(history: list[dict[str, Any]], options: TrainingOptions) -> bool:
    """NT-ASGD's trigger: worse than the best before the last ``nonmono`` epochs."""
    if options.optimizer != "sgd" or not options.nonmono:
        return False
    losses = [row["valid_loss"] for row in history]
    return len(losses) > options.nonmono and losses[-1] > min(losses[: -options.nonmono])


def _is_over(history: list[dict[str, Any]], options: TrainingOptions) -> bool:
    losses = [row["valid_loss"] for row in history]
    finetuning = losses[options.epochs :]
    if finetuning:
        window = options.nonmono or len(finetuning)
        return len(finetuning) > window and finetuning[-1] > min(finetuning[:-window])
    since_best = len(losses) - 1 - losses.index(min(losses))
    return bool(options.patience) and not options.finetune_epochs and since_best >= options.patience


@contextmanager
def _averaged_weights(model: LanguageModel, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the context the model has averaged SGD's mean weights, if that is the optimiser."""
    if not isinstance(optimizer, torch.optim.ASGD):
        yield
        return
    current = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(optimizer.state[parameter]["ax"])
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(model.parameters(), current, strict=True):
                parameter.copy_(value)


def _write_metrics(directory: Path, history: list[dict[str, Any]]) -> None:
    write_text(directory / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history))
