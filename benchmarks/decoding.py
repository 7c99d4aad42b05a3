"""Speed and memory of translation on CPU: greedy and beam search over a corpus's test sentences.

    python benchmarks/decoding.py                          # an untrained model, Multi30k
    python benchmarks/decoding.py --run runs/translation/multi30k-de-en/small/sigmoid/seed-1
    python benchmarks/decoding.py --sentences 100          # a glance

The first sentences of the test set are translated once, twice and four times over (--repeats), each
time in a process of its own: where more sentences take no more memory, the peaks are alike.

- sentences/s, subwords/s: translated sentences, and subwords with the end mark, a second of elapsed
  time. A few sentences are translated first to warm up.
- cut: share of translations that had to be cut at the maximal length. An untrained model finds few
  ends, so it runs to that length: its speed is that of the worst case.
- peak, MiB: most memory of the process, libraries (before decoding: "at start") and model included.

Results go to decoding.csv, decoding.md and decoding.provenance.json beside this file.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from g2lstm.beam_search import translate
from g2lstm.experiments import arguments_of, build_model, configure
from g2lstm.provenance import in_words
from g2lstm.training import load_best
from g2lstm.translation_task import TranslationTask
from side_by_side import add_output_option, origin, write_results

COLUMNS = {  # of the printed table
    "beam": "{:d}", "sentences": "{:d}", "seconds": "{:.1f}", "sentences_per_second": "{:.1f}",
    "subwords_per_second": "{:.0f}", "cut": "{:.1%}", "start_mib": "{:.0f}", "peak_mib": "{:.0f}",
}  # fmt: skip


def load(run: Path | None, corpus: str, sentences: int) -> dict[str, Any]:
    """What a measuring process needs to know, as JSON values.

    Args:
        run: directory of a finished run; None: an untrained model of the preset "small".
        corpus: of the untrained model; a run has its own.
        sentences: how many of the test set, from its start.
    """
    if run is None:
        about = {"task": "translation", "preset": "small", "corpus": corpus}
    else:
        config = json.loads((run / "config.json").read_text(encoding="utf-8"))
        about = arguments_of(config)
    task = TranslationTask(configure(**about), "cpu")
    return {
        "about": about,
        "sizes": [len(task.source_subwords), len(task.target_subwords)],
        "weights": None if run is None else str(run / "model.safetensors"),
        "sources": task.pairs["test"].sources[:sentences],
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Translate as `load` and the keys threads, beam, repeats and batch_tokens say; one row."""
    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    configuration = configure(**job["about"])
    torch.manual_seed(configuration.seed)
    model = build_model(configuration, *job["sizes"])
    if job["weights"] is not None:
        load_best(job["weights"], model)
    settings = {"beam_size": job["beam"], "batch_tokens": job["batch_tokens"]}
    translate(model, job["sources"][:10], **settings)
    sources = job["sources"] * job["repeats"]
    start_mib = memory("VmRSS")
    start = time.perf_counter()
    found = translate(model, sources, **settings)
    seconds = time.perf_counter() - start
    subwords = sum(len(hypothesis.tokens) + hypothesis.finished for hypothesis in found)
    return {
        "threads": job["threads"],
        "beam": job["beam"],
        "sentences": len(sources),
        "seconds": seconds,
        "sentences_per_second": len(sources) / seconds,
        "subwords_per_second": subwords / seconds,
        "cut": sum(not hypothesis.finished for hypothesis in found) / len(found),
        "start_mib": start_mib,
        "peak_mib": memory("VmHWM"),
    }


def memory(kind: str) -> float:
    """MiB of this process, "VmRSS" (now) or "VmHWM" (at most so far); Linux only."""
    # resource.ru_maxrss would start from what the parent process had.
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {kind}")


def measure_apart(job: dict[str, Any]) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--job"]
    done = subprocess.run(
        command, input=json.dumps(job), stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def to_markdown(results: pd.DataFrame) -> str:
    """A line per measurement."""
    table = pd.DataFrame({name: results[name].map(f.format) for name, f in COLUMNS.items()})
    names = {
        "sentences_per_second": "sentences/s", "subwords_per_second": "subwords/s",
        "start_mib": "at start, MiB", "peak_mib": "peak, MiB",
    }  # fmt: skip
    return table.rename(columns=names).to_markdown(index=False, disable_numparse=True)


def describe(source: dict) -> str:
    """The provenance in words, for under the table."""
    return (
        f"{source['model']}, {source['sizes'][0]} source and {source['sizes'][1]} target subwords, "
        f"test sentences of {source['corpus']}, {source['threads']} threads, float32. "
        f"{in_words(source)}"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = torch.get_num_threads()
    parser.add_argument("--run", type=Path, help="directory of a finished translation run")
    parser.add_argument(
        "--corpus", help="corpus of the untrained model, name or folder (default multi30k)"
    )
    parser.add_argument(
        "--sentences", type=int, default=1000, help="how many of the test set (default 1000)"
    )
    parser.add_argument("--beam", type=int, nargs="+", default=[1, 5], help="sizes (default 1 5)")
    parser.add_argument(
        "--repeats", type=int, nargs="+", default=[1, 2, 4], help="times over (default 1 2 4)"
    )
    parser.add_argument(
        "--batch-tokens", type=int, default=4000, help="source subwords a batch (default 4000)"
    )
    parser.add_argument("--threads", type=int, default=own, help=f"of torch (default {own})")
    add_output_option(parser, __file__)
    parser.add_argument("--job", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    counts = (options.sentences, options.batch_tokens, options.threads)
    if min(*counts, *options.beam, *options.repeats) < 1:
        parser.error("all numbers must be at least 1")
    if options.run is not None and options.corpus is not None:
        parser.error("--corpus goes with an untrained model: a run has its own corpus")
    if options.run is not None and not (options.run / "model.safetensors").exists():
        parser.error(f"{options.run} holds no model.safetensors: train it, or leave --run out")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if options.job:
        print(json.dumps(measure(json.load(sys.stdin))))
        return
    job = load(options.run, options.corpus or "multi30k", options.sentences)
    job |= {"threads": options.threads, "batch_tokens": options.batch_tokens}
    configuration = configure(**job["about"])
    source = origin(
        __file__,
        arguments,
        model=f"Preset {configuration.preset}, gate {configuration.gate}, "
        + ("untrained" if options.run is None else "trained"),
        corpus=Path(configuration.corpus).name,
        languages=configuration.languages,
        sizes=job["sizes"],
        threads=options.threads,
    )
    results = []
    for beam in options.beam:
        for repeats in options.repeats:
            print(f"measuring beam {beam}, {repeats} times over", file=sys.stderr, flush=True)
            results.append(measure_apart(job | {"beam": beam, "repeats": repeats}))
    frame = pd.DataFrame(results)
    text = f"{to_markdown(frame)}\n\n{describe(source)}\n"
    write_results(options.output, frame, text, source)


if __name__ == "__main__":
    main()
