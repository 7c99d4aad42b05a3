"""Speed of whole trainings on CPU, in tokens a second, beside the same models in plain PyTorch.

    python benchmarks/training.py                                   # three presets, one thread
    python benchmarks/training.py --preset language-model/quick     # needs no corpus

Everything runs in one process. In every round each contender trains for the same 8 batches: forward
pass, loss, backward pass, clipping, and a step of torch's fused AdamW. The table holds the median
over the rounds (quartiles), and the same for the ratio to plain PyTorch in float32, taken within a
round; higher is better.

- G2-LSTM, LSTM: the project's model with gates "gumbel" and "sigmoid", and all its regularisers.
- plain PyTorch: see `peers`. Its bfloat16 is torch's: under autocast `torch.nn.LSTM` keeps its
  states in bfloat16. The project's layers keep them in float32.
- "LSTM, native": gate "sigmoid" with ``backend="native"``, so by torch's own kernel. Under autocast
  its states are in bfloat16, like the peer's. That kernel does all steps in one call and takes no
  noise. At few units the calls of a step cost most, so it is nearly twice as fast there as layers
  that go step by step, and is what a plain LSTM that bears such states can use.

Results go to training.csv, training.md and training.provenance.json beside this file.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from g2lstm.experiments import configure
from g2lstm.provenance import in_words
from g2lstm.runs import prepare
from peers import PlainLanguageModel, PlainTranslationModel
from side_by_side import add_output_option, origin, spread, write_results

PRESETS = ("language-model/quick", "language-model/small", "translation/small")
PEERS = {"language-model": PlainLanguageModel, "translation": PlainTranslationModel}
PEER = "plain PyTorch"
CHUNK = 8  # batches of each contender in a round


class Contender:
    """A model in training.

    Args:
        model: what is trained.
        losses: of a batch, as an objective's.
        options: of the preset's training.
        precision: "float32" or "bfloat16".
    """

    def __init__(
        self, model: nn.Module, losses: Callable[[Any], Any], options: Any, precision: str
    ) -> None:
        self.model, self.losses, self.options, self.precision = model, losses, options, precision
        rate, decay = options.learning_rate / 10, options.weight_decay
        self.optimizer = torch.optim.AdamW(model.parameters(), rate, weight_decay=decay, fused=True)

    def train(self, batches: list[Any]) -> None:
        self.model.train()
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bfloat16"):
                objective, _ = self.losses(batch)
            self.optimizer.zero_grad()
            objective.backward()
            clip_grad_norm_(self.model.parameters(), self.options.clip)
            self.optimizer.step()


def contenders(task: str, preset: str) -> tuple[dict[str, Contender], list[Any]]:
    """The contenders by name, and the steps of an epoch (as an objective gives them)."""
    found = {}
    kinds = {"G2-LSTM": ("gumbel", "auto"), "LSTM": ("sigmoid", "auto")}
    kinds["LSTM, native"] = ("sigmoid", "native")
    for precision in ("float32", "bfloat16"):
        for name, (gate, backend) in kinds.items():
            if backend == "native" and (task, preset) == ("language-model", "small"):
                continue  # dropout of weights is not the native kernel's
            prepared = prepare(configure(task=task, preset=preset, gate=gate), "cpu").task
            for layer in prepared.model.modules():
                if hasattr(layer, "backend"):
                    layer.backend = backend
            objective, options = prepared.objective, prepared.configuration.training
            steps = objective.steps(0)
            losses = partial(objective.losses, prepared.model)
            found[name, precision] = Contender(prepared.model, losses, options, precision)
        peer = PEERS[task](prepared.model, objective)
        found[PEER, precision] = Contender(peer, peer.losses, options, precision)
    return found, steps


def measure(task: str, preset: str, threads: int, seconds: float) -> pd.DataFrame:
    """One row per contender."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    trained, steps = contenders(task, preset)
    rates: dict[Any, list[float]] = {name: [] for name in trained}
    chunks = [steps[start : start + CHUNK] for start in range(0, len(steps) - CHUNK, CHUNK)]
    for contender in trained.values():  # warms up
        contender.train([step.batch for step in chunks[0][:4]])
    start, number = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or number < 3:
        chunk = chunks[number % len(chunks)]
        for name, contender in trained.items():
            begun = time.perf_counter()
            contender.train([step.batch for step in chunk])
            tokens = sum(step.tokens for step in chunk)
            rates[name].append(tokens / (time.perf_counter() - begun))
        number += 1
    frame = pd.DataFrame(rates)
    ratios = frame.div(frame[PEER, "float32"], axis=0)
    about = {"task": task, "preset": preset, "threads": threads, "rounds": number}
    rows = []
    for name, precision in trained:
        row = about | {"model": name, "precision": precision}
        row |= spread("tokens_per_second", frame[name, precision])
        rows.append(row | spread("ratio", ratios[name, precision]))
    return pd.DataFrame(rows)


def to_markdown(results: pd.DataFrame) -> str:
    """A line per preset and model."""
    lines = []
    for row in results.itertuples():
        rate = f"{row.tokens_per_second:,.0f}"
        rate += f" ({row.tokens_per_second_lower:,.0f}-{row.tokens_per_second_upper:,.0f})"
        lines.append(
            {
                "preset": f"{row.task}, {row.preset}", "model": row.model,
                "precision": row.precision, "tokens/s": rate,
                "ratio to plain PyTorch, float32":
                    f"{row.ratio:.2f} ({row.ratio_lower:.2f}-{row.ratio_upper:.2f})",
            }
        )  # fmt: skip
    return pd.DataFrame(lines).to_markdown(index=False, disable_numparse=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", action="append", choices=PRESETS, help="default: all three")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=80,
        help="of measuring a preset (default 80), 3 rounds at least",
    )
    add_output_option(parser, __file__)
    options = parser.parse_args(arguments)
    if options.threads < 1 or options.seconds <= 0:
        parser.error("--threads must be at least 1 and --seconds positive")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    source = origin(__file__, arguments, threads=options.threads, clock="elapsed")
    frames = []
    for name in options.preset or PRESETS:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        frames.append(measure(*name.split("/"), options.threads, options.seconds))
    frame = pd.concat(frames, ignore_index=True)
    text = (
        f"{to_markdown(frame)}\n\nMedian (quartiles) of at least {frame.rounds.min()} rounds, "
        f"{options.threads} threads. {in_words(source)}\n"
    )
    write_results(options.output, frame, text, source)


if __name__ == "__main__":
    main()
