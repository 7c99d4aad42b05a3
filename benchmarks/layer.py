"""Speed of G2LSTM, as ratios to torch.nn.LSTM measured side by side in one process.

    python benchmarks/layer.py                       # threads as torch chooses
    python benchmarks/layer.py --threads 1 2         # one table for both
    python benchmarks/layer.py --quick               # a glance
    python benchmarks/layer.py --device cuda         # on a GPU

In every round each layer runs once, so that what else happens on the machine meets all of them; a
ratio is taken within a round. The tables hold the median over the rounds (quartiles; in records
made before 2026-11-27: least - most). Lower is better, 1 is as fast as torch.nn.LSTM.

- training: forward pass, backward pass and all gradients, that of the input included; G2LSTM with
  gate="gumbel", the drawing of the noise included. "bfloat16": the same under autocast. "authors'
  loop": products and noise step by step with autograd through them, as in the code of the paper.
  "in place", on a GPU: G2LSTM without the kernel for a whole step, see `g2lstm.steps`.
- inference: the whole sequence in evaluation mode, without gradients.
- single step: one step with a carried state, in evaluation mode, without gradients.

Which library makes the large products in float32 is `g2lstm.products.library`'s choice, by the
processor: G2LSTM_PRODUCTS=torch in the environment measures the other way on an AMD processor.

The record of a processor is layer_<maker>.csv and layer_<maker>.provenance.json beside this file;
layer.md has one table of all these records, a column a processor. The results of a GPU go to
layer_cuda.csv, layer_cuda.md and so on.
"""

import argparse
import copy
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from g2lstm import G2LSTM
from g2lstm.files import write_text
from g2lstm.provenance import in_words, processor
from side_by_side import (
    Clock,
    add_output_option,
    add_timing_options,
    origin,
    rounds_and_clock,
    spread,
    timed,
    write_record,
    write_results,
)

FOLDER = Path(__file__).parent
SIZES = [(70, 20, 400, 1150), (35, 20, 650, 650), (25, 64, 256, 256), (35, 20, 200, 200)]
SINGLE_STEPS = 20  # in one measurement
BASE = "nn.LSTM"


class AuthorsLoop(nn.LSTM):
    """G2-LSTM in the manner of the authors' code: everything step by step, plain autograd."""

    temperature, probability, eps = 0.9, 0.2, 1e-3

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        h = c = x.new_zeros(x.shape[1], self.hidden_size)
        outputs = []
        for x_t in x:
            a = linear(h, self.weight_hh_l0, self.bias_hh_l0)
            a = a + linear(x_t, self.weight_ih_l0, self.bias_ih_l0)
            a_i, a_f, a_g, a_o = a.chunk(4, dim=1)
            i, f = torch.sigmoid(self.noisy(a_i)), torch.sigmoid(self.noisy(a_f))
            c = f * c + i * torch.tanh(a_g)
            h = torch.sigmoid(a_o) * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs), None

    def noisy(self, a: Tensor) -> Tensor:
        uniform = torch.rand_like(a)
        noise = torch.log(uniform + self.eps) - torch.log(1 + self.eps - uniform)
        return (a + noise * torch.empty_like(a).bernoulli_(self.probability)) / self.temperature


def training(layer: nn.Module, x: Tensor, autocast: bool = False) -> None:
    x.grad = None
    layer.zero_grad(set_to_none=True)
    with torch.autocast(x.device.type, torch.bfloat16, enabled=autocast):
        output = layer(x)[0]
    output.backward(torch.ones_like(output))


def training_in_place(layer: nn.Module, x: Tensor, autocast: bool = False) -> None:
    with patch("g2lstm.steps._kernel_serves", lambda z: False):
        training(layer, x, autocast)


def inference(layer: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        layer(x)


def single_steps(layer: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        _, state = layer(x[:1])
        for _ in range(SINGLE_STEPS):
            _, state = layer(x[:1], state)


def contenders(
    size: tuple[int, int, int, int], device: str = "cpu"
) -> dict[str, dict[str, Callable[[], None]]]:
    """For each task, what to run by the name of the layer, `BASE` first."""
    steps, batch, inputs, hidden = size
    torch.manual_seed(0)
    x = torch.randn(steps, batch, inputs, device=device, requires_grad=True)
    base, g2, loop = (kind(inputs, hidden).to(device) for kind in (nn.LSTM, G2LSTM, AuthorsLoop))
    for layer in (g2, loop):
        layer.load_state_dict(base.state_dict())
    base_eval, g2_eval = copy.deepcopy(base).eval(), copy.deepcopy(g2).eval()
    in_training = {
        BASE: lambda: training(base, x),
        "G2LSTM": lambda: training(g2, x),
        "G2LSTM, bfloat16": lambda: training(g2, x, autocast=True),
        "authors' loop": lambda: training(loop, x),
    }
    if x.is_cuda:
        in_training |= {
            "in place": lambda: training_in_place(g2, x),
            "in place, bfloat16": lambda: training_in_place(g2, x, autocast=True),
        }
    return {
        "training": in_training,
        "inference": {
            BASE: lambda: inference(base_eval, x),
            "G2LSTM": lambda: inference(g2_eval, x),
        },
        "single step": {
            BASE: lambda: single_steps(base_eval, x),
            "G2LSTM": lambda: single_steps(g2_eval, x),
        },
    }


def finished(job: Callable[[], None]) -> Callable[[], None]:
    """The job, and what it has left a GPU to do."""

    def run() -> None:
        job()
        torch.cuda.synchronize()

    return run


def measure(
    size: tuple[int, int, int, int], threads: int, rounds: int, clock: Clock, device: str = "cpu"
) -> pd.DataFrame:
    """One row per task and layer: milliseconds and the ratio to `BASE` (median, least, most)."""
    torch.set_num_threads(threads)
    rows = []
    for task, layers in contenders(size, device).items():
        if device == "cuda":
            layers = {name: finished(job) for name, job in layers.items()}
        times = timed(layers, rounds, clock)
        ratios = times.div(times[BASE], axis=0)
        repeats = SINGLE_STEPS if task == "single step" else 1
        for name in layers:
            rows.append(
                {
                    "threads": threads,
                    **dict(zip("TBDH", size, strict=True)),
                    "task": task,
                    "layer": name,
                    "milliseconds": times[name].median() / repeats,
                    **spread("ratio", ratios[name]),
                }
            )
    return pd.DataFrame(rows)


def to_markdown(records: dict[str, pd.DataFrame]) -> str:
    """One line per number of threads, task, size and layer; a column per record, by its name."""
    keys = ["threads", "task", "T", "B", "D", "H", "layer"]
    columns = {name: frame.set_index(keys).apply(cell, axis=1) for name, frame in records.items()}
    first = next(iter(records.values())).set_index(keys).index
    table = pd.DataFrame(columns).fillna("")
    table = table.reindex(first.append(table.index.difference(first, sort=False))).reset_index()
    sizes = table[["T", "B", "D", "H"]].astype(str).agg(", ".join, axis=1)
    table = table.drop(columns=["T", "B", "D", "H"])
    table.insert(2, "[T, B, D, H]", sizes)
    return table.to_markdown(index=False, disable_numparse=True)


def cell(row: pd.Series) -> str:
    """Milliseconds of the base, the ratio and its spread of all others."""
    if row.ratio == 1.0 and row.name[-1] == BASE:
        return f"{row.milliseconds:.3g} ms"
    lower, upper = row[row.index.str.startswith("ratio_")]
    return f"{row.ratio:.2f} ({lower:.2f}-{upper:.2f})"


def describe(frame: pd.DataFrame, source: dict) -> str:
    """The provenance in words, for under the table."""
    kind = "quartiles" if "ratio_lower" in frame else "least - most"
    return (
        f"Ratios to torch.nn.LSTM's time, median ({kind}) of {source['rounds']} rounds, by "
        f"{source['clock']} time. {in_words(source)}"
    )


def heading(source: dict) -> str:
    """The processor, or GPU, of a record, as a heading."""
    machine = source["hardware"]
    return machine["gpu"] or re.sub(r"\((R|TM)\)", "", machine["processor"])


def write_overview(folder: Path) -> None:
    """Print and write ``layer.md``: one table of all records of processors in ``folder``."""
    frames, sources = {}, []
    for path in sorted(folder.glob("layer_*.csv")):
        source = json.loads(path.with_suffix(".provenance.json").read_text(encoding="utf-8"))
        if source["hardware"]["gpu"] is None:
            frames[heading(source)] = pd.read_csv(path)
            sources.append(f"{heading(source)}: {describe(frames[heading(source)], source)}")
    text = "\n\n".join([to_markdown(frames), *sources])
    print(text)
    write_text(folder / "layer.md", f"{text}\n")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = torch.get_num_threads()
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[own], help=f"threads of torch (default {own})"
    )
    add_timing_options(
        parser,
        "T,B,D,H",
        "steps, batch, input size and hidden size; may be repeated (default: four sizes)",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default cpu")
    maker = re.sub(r"\W.*", "", processor()).lower()
    add_output_option(parser, str(FOLDER / f"layer_{maker}"))
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        if not torch.cuda.is_available():
            parser.error("--device cuda: torch finds no GPU here")
        if options.cpu_time:
            parser.error("--cpu-time measures the processor alone: leave it out with --device cuda")
        if options.output == parser.get_default("output"):
            options.output = FOLDER / "layer_cuda"
    if min(options.threads) < 1 or options.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")
    if any(len(size) != 4 or min(size) < 1 for size in options.size or []):
        parser.error("--size needs four numbers of at least 1, as in 35,20,200,200")
    if options.cpu_time and max(options.threads) > 1:
        parser.error("--cpu-time adds up the time of all threads: use it with --threads 1")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    rounds, clock_name, clock = rounds_and_clock(options)
    source = origin(__file__, arguments, rounds=rounds, clock=clock_name)
    results = []
    for threads in options.threads:
        for size in options.size or SIZES:
            print(f"measuring {size}, threads: {threads}", file=sys.stderr, flush=True)
            results.append(measure(size, threads, rounds, clock, options.device))
    frame = pd.concat(results, ignore_index=True)
    if options.device == "cpu" and options.output.parent == FOLDER:
        write_record(options.output, frame, source)
        write_overview(FOLDER)
        return
    text = f"{to_markdown({heading(source): frame})}\n\n{describe(frame, source)}\n"
    write_results(options.output, frame, text, source)


if __name__ == "__main__":
    main()
