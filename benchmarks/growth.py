"""How the cost of a training step of one layer grows with steps, batch and units; one figure.

    python benchmarks/growth.py
    python benchmarks/growth.py --seconds 0.5        # a glance

One thread. torch.nn.LSTM and G2LSTM take turns, for a number of seconds at each size; the figure
has the median microseconds a token (a step of a sequence). The memory is the peak of a process of
its own less what it had before its first step.

Results go to growth.csv, growth.png, growth.md and growth.provenance.json beside this file.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import nn

from decoding import memory
from g2lstm import G2LSTM
from g2lstm.provenance import in_words
from layer import training
from side_by_side import add_output_option, origin, write_results

KINDS = {"nn.LSTM": nn.LSTM, "G2LSTM": G2LSTM}
SERIES = {  # what grows: sizes T, B, H (D = H)
    "steps": [(steps, 20, 200) for steps in (35, 70, 140, 280, 560, 1120, 2240)],
    "batch": [(35, batch, 256) for batch in (1, 4, 16, 64, 256)],
    "units": [(35, 20, units) for units in (64, 128, 256, 512, 1024, 2048)],
}
AXIS = {"steps": 0, "batch": 1, "units": 2}


def step_times(size: tuple[int, int, int], seconds: float) -> dict[str, float]:
    """Median seconds of a training step of each layer."""
    steps, batch, hidden = size
    layers = {name: kind(hidden, hidden) for name, kind in KINDS.items()}
    x = torch.randn(steps, batch, hidden, requires_grad=True)
    times: dict[str, list[float]] = {name: [] for name in layers}
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times["G2LSTM"]) < 3:
        for name, layer in layers.items():
            begun = time.perf_counter()
            training(layer, x)
            times[name].append(time.perf_counter() - begun)
    return {name: pd.Series(values[1:]).median() for name, values in times.items()}


def peak(name: str, size: tuple[int, int, int]) -> float:
    """MiB that training steps take in this process."""
    torch.set_num_threads(1)
    steps, batch, hidden = size
    layer, small = (KINDS[name](hidden, hidden) for _ in range(2))
    training(small, torch.randn(2, batch, hidden, requires_grad=True))
    x = torch.randn(steps, batch, hidden, requires_grad=True)
    before = memory("VmHWM")
    for _ in range(3):
        training(layer, x)
    return memory("VmHWM") - before


def peak_apart(name: str, size: tuple[int, int, int]) -> float:
    """`peak` in a process of its own."""
    job = json.dumps([name, size])
    command = [sys.executable, __file__, "--job", job]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def draw(results: pd.DataFrame) -> plt.Figure:
    figure, axes = plt.subplots(1, 4, figsize=(13, 3.2), layout="constrained")
    titles = {"steps": "steps T (B = 20, H = 200)", "batch": "batch B (T = 35, H = 256)"}
    titles["units"] = "units H (T = 35, B = 20)"
    for axis, (grows, title) in zip(axes, titles.items(), strict=False):
        for name, rows in results[results.grows == grows].groupby("layer", sort=False):
            axis.plot(rows["size"], rows.microseconds_a_token, marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel=title, ylabel="microseconds a token")
    for name, rows in results[results.grows == "steps"].groupby("layer", sort=False):
        axes[3].plot(rows["size"], rows.peak_mib, marker="o", label=name)
    axes[3].set(xscale="log", yscale="log", xlabel=titles["steps"], ylabel="memory, MiB")
    axes[0].legend()
    return figure


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6, help="at each size (default 6)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    add_output_option(parser, __file__)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.job:
        print(peak(*json.loads(options.job)))
        return
    torch.set_num_threads(1)
    source = origin(__file__, arguments, threads=1, clock="elapsed")
    rows = []
    for grows, sizes in SERIES.items():
        for size in sizes:
            print(f"measuring {size}", file=sys.stderr, flush=True)
            times = step_times(size, options.seconds)
            for name, seconds in times.items():
                row = {"grows": grows, "size": size[AXIS[grows]], "layer": name}
                row["microseconds_a_token"] = 1e6 * seconds / (size[0] * size[1])
                row["peak_mib"] = peak_apart(name, size) if grows == "steps" else None
                rows.append(row)
    results = pd.DataFrame(rows)
    picture = Path(f"{options.output}.png")
    draw(results).savefig(picture, dpi=110, metadata={"Software": None})
    text = (
        f"![Time a token and memory of nn.LSTM and G2LSTM]({picture.name})\n\nA training step of "
        "one layer in float32 on one thread: median time a token against the number of steps, "
        "sequences and units, and the memory that the steps take against the number of steps.\n\n"
        f"{in_words(source)}\n"
    )
    write_results(options.output, results, text, source)


if __name__ == "__main__":
    main()
