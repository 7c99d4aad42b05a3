"""Runs that are killed with SIGKILL at random moments, each in a process of its own.

Started as a script, so that processes are forked from one without threads:
`python killed_runs.py FOLDER`. What it leaves in the folder is for test_faults to judge.
"""

import faulthandler
import functools
import itertools
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from tqdm.auto import tqdm

from g2lstm import provenance, runs, training
from g2lstm.experiments import Configuration, configure

KILLS = 10  # of each task
PATIENCE = 120  # seconds a process may take; each takes less than one
PHASES = ("start", "epoch", "save", "summary")
WORDS = ("die", "Katze", "hört", "den", "Bären", "schläft", "größer", "als", "über")
SIZES = {"language-model": (90, 12, 20), "translation": (30, 5, 6)}
OPTIONS = {
    "language-model": {
        "epochs": 2, "embedding_size": 6, "batch_size": 5, "bptt": 10,
        "dropout": 0.1,
    },
    "translation": {
        "epochs": 2, "embedding_size": 6, "hidden_size": 6, "batch_tokens": 60, "merges": 20,
        "beam_size": 2, "dropout": 0.1,
    },
}  # fmt: skip


def write_corpora(folder: Path) -> None:
    """A corpus for each task, with umlauts and with Windows' ends of lines."""
    source = random.Random(0)
    for task, sizes in SIZES.items():
        (folder / task).mkdir(parents=True)
        names = ("txt",) if task == "language-model" else ("de", "en")
        for split, size in zip(("train", "valid", "test"), sizes, strict=True):
            lines = [" ".join(source.choices(WORDS, k=source.randint(4, 8))) for _ in range(size)]
            for name in names:
                if name == "en":
                    lines = [" ".join(reversed(line.upper().split())) for line in lines]
                text = "".join(f"{line}\r\n" for line in lines)
                (folder / task / f"{split}.{name}").write_bytes(text.encode())


def configuration(folder: Path, task: str) -> Configuration:
    """Of a tiny run on the corpus in ``folder``/<task>."""
    return configure(task=task, corpus=str(folder / task), overrides=OPTIONS[task])


def finish(folder: Path, task: str, root: Path) -> None:
    """Train, or go on, with `root` for the runs."""
    os.environ["G2LSTM_RUNS"] = str(root)
    experiment = runs.prepare(configuration(folder, task), device="cpu")
    runs.train_or_load(experiment, progress_bar=False)


def fork(folder: Path, task: str, root: Path, tell: int | None = None) -> int:
    """The id of a process that does `finish`; it writes a letter to ``tell`` as a phase begins."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        log = os.open(root.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        if tell is not None:
            watch(tell)
        finish(folder, task, root)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def watch(tell: int) -> None:
    """Write the first letter of each phase as it begins, and "." when a save is over."""

    def telling(function, letter, then=b""):
        def told(*arguments, **keywords):
            os.write(tell, letter)
            result = function(*arguments, **keywords)
            os.write(tell, then)
            return result

        return told

    os.write(tell, b"s")
    training._train_epoch = telling(training._train_epoch, b"e")
    training.save_checkpoint = telling(training.save_checkpoint, b"w", b".")
    for task in runs.TASKS.values():
        task.summarise = telling(task.summarise, b"m")


LETTERS = dict(zip(PHASES, (b"s", b"e", b"w", b"m"), strict=True))


def until(pipe: int, letter: bytes, times: int) -> None:
    """Wait for the letter to come so many times, or for the end."""
    while times and (got := os.read(pipe, 1)):
        times -= got == letter


def ended(process: int) -> int:
    """Exit status of a process, -9 after SIGKILL."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def durations(folder: Path, task: str) -> dict[str, list[float]]:
    """Seconds of each phase of a whole run."""
    reader, writer = os.pipe()
    process = fork(folder, task, folder / f"{task}-whole", writer)
    os.close(writer)
    moments = []
    while letter := os.read(reader, 1):
        moments.append((letter, time.perf_counter()))
    moments.append((b"", time.perf_counter()))
    os.close(reader)
    assert ended(process) == 0
    pairs = list(itertools.pairwise(moments))
    return {
        phase: [later - now for (got, now), (_, later) in pairs if got == letter]
        for phase, letter in LETTERS.items()
    }


def killed_at(folder: Path, task: str, root: Path, letter: bytes, times: int, delay: float) -> int:
    """How a process ends that is killed so long after a phase has begun so many times."""
    reader, writer = os.pipe()
    process = fork(folder, task, root, writer)
    os.close(writer)
    until(reader, letter, times)
    time.sleep(delay)
    os.kill(process, signal.SIGKILL)
    os.close(reader)
    return ended(process)


def kill_and_go_on(folder: Path, task: str) -> list[dict]:
    """A run for each kill, and how the process and the one after it ended."""
    chance = random.Random(task)
    seconds = durations(folder, task)
    report = []
    for number in range(KILLS):
        phase = PHASES[number % len(PHASES)]
        times = chance.randint(1, len(seconds[phase]))
        delay = chance.uniform(0, seconds[phase][times - 1])
        root = folder / f"{task}-killed-{number}"
        killed = killed_at(folder, task, root, LETTERS[phase], times, delay)
        while killed != -signal.SIGKILL:  # it was faster than the one that was measured
            shutil.rmtree(root)
            delay /= 2
            killed = killed_at(folder, task, root, LETTERS[phase], times, delay)
        left = sorted(p.name for p in root.rglob("*") if p.is_file())
        again = ended(fork(folder, task, root))
        report.append({"phase": phase, "killed": killed, "left": left, "again": again})
    return report


def two_at_once(folder: Path, task: str) -> dict:
    """How two processes on one run end, the second started while the first is training."""
    reader, writer = os.pipe()
    first = fork(folder, task, folder / f"{task}-twins", writer)
    os.close(writer)
    until(reader, LETTERS["epoch"], 1)
    os.kill(first, signal.SIGSTOP)  # it takes its time
    second = ended(fork(folder, task, folder / f"{task}-twins"))
    os.kill(first, signal.SIGCONT)
    until(reader, b"", 1)
    return {"first": ended(first), "second": second}


def main(folder: Path) -> None:
    # tqdm's own is shared by forked processes: one that is killed while it holds it stops them all.
    tqdm.set_lock(threading.RLock())
    provenance._essence = functools.cache(provenance._essence)
    for task in OPTIONS:
        # What a first run loads lies in memory then, and is not loaded by each process.
        finish(folder, task, folder / f"{task}-warm")
        report = {"kills": kill_and_go_on(folder, task), "twins": two_at_once(folder, task)}
        (folder / f"{task}.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
