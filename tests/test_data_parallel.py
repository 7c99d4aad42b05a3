"""Two processes on the CPU, over gloo on the loopback device, against one with the same batches."""

import multiprocessing
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from g2lstm import data_parallel
from g2lstm.batches import Pairs
from g2lstm.data_parallel import (
    ProcessesError,
    computed_by_first,
    joined,
    rank,
    reseed,
    sum_gradients,
    world_size,
)
from g2lstm.experiments import command as command_of
from g2lstm.experiments import configure
from g2lstm.identity import read_rows
from g2lstm.language_model import LanguageModel
from g2lstm.objectives import LanguageModelObjective, TranslationObjective
from g2lstm.options import LanguageModelOptions, TranslationOptions
from g2lstm.runs import prepare, train_or_load
from g2lstm.subwords import END
from g2lstm.training import TIMING_COLUMNS, train
from g2lstm.translation import TranslationModel
from sources import ROOT

TEXT = torch.arange(600) * 7 % 11
SOURCES = [[4 + (i * k) % 5 for k in range(1, 2 + i % 4)] for i in range(81)]
PAIRS = Pairs(
    [[*source, END] for source in SOURCES], [[w + 5 for w in source[::-1]] for source in SOURCES]
)
ADAMW = LanguageModelOptions(
    epochs=3, batch_size=4, bptt=10, optimizer="adamw", learning_rate=0.02, clip=0.3,
    eval_batch_size=2,
)  # fmt: skip
FINE_TUNING = replace(
    ADAMW, optimizer="sgd", learning_rate=10.0, clip=1.0, alpha=0.0, beta=0.0, finetune_epochs=2
)
# Some batches hold one pair alone, which leaves nothing for the second process.
TRANSLATION = TranslationOptions(epochs=3, batch_tokens=9, learning_rate=0.02)


def in_processes(number: int, work: Callable[[Path], None], folder: Path) -> list[Path]:
    """Run ``work`` in forked processes that find each other as torchrun's do; a folder each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def started(index: int) -> None:
        os.environ |= {
            "WORLD_SIZE": str(number), "RANK": str(index), "LOCAL_RANK": str(index),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        with joined("gloo"):
            work(folder / str(index))

    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=started, args=(index,), daemon=True) for index in range(number)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * number
    return [folder / str(index) for index in range(number)]


def language_model(options=ADAMW, stop_after=None, **settings):
    def work(folder):
        torch.manual_seed(0)
        plain = {
            "dropout": 0.0, "dropout_between": 0.0, "dropout_embedding": 0.0,
            "dropout_words": 0.0, "weight_dropout": 0.0, "gate": "sigmoid",
        }  # fmt: skip
        model = LanguageModel(11, 8, 8, 2, **(plain | settings))
        chosen = options if stop_after is None else replace(options, epochs=stop_after)
        objective = LanguageModelObjective(TEXT, TEXT[:200], 11, chosen, seed=2)
        train(model, objective, chosen, folder, seed=5, progress_bar=False)

    return work


def translation(folder):
    torch.manual_seed(0)
    model = TranslationModel(9, 14, 16, 16, 1, 1, dropout=0.0, gate="sigmoid")
    objective = TranslationObjective(PAIRS, PAIRS, 14, TRANSLATION, seed=2)
    train(model, objective, TRANSLATION, folder, seed=5, progress_bar=False)


def curve(folder: Path) -> list[dict[str, float]]:
    rows = read_rows(folder / "metrics.jsonl")
    # The temperature of a plain sigmoid is None, and the precision is no number.
    ignored = {*TIMING_COLUMNS, "temperature", "precision"}
    return [{k: v for k, v in row.items() if k not in ignored} for row in rows]


@pytest.mark.parametrize(
    "work",
    [language_model(), language_model(FINE_TUNING), translation],
    ids=["adamw", "fine-tuning", "translation"],
)
def test_the_loss_curve_is_that_of_one_process_with_the_same_batches(tmp_path, work):
    work(tmp_path / "alone")
    expected = curve(tmp_path / "alone")
    first, second = in_processes(2, work, tmp_path)
    assert curve(first) == curve(second)
    assert len(curve(first)) == len(expected)
    losses = [row["train_loss"] for row in expected]
    assert losses[-1] != pytest.approx(losses[0], rel=1e-3), "the curve is not flat"
    for row, alone in zip(curve(first), expected, strict=True):
        assert row == pytest.approx(alone, rel=1e-4)


def test_some_batches_leave_a_process_without_work():
    sizes = {len(s.batch) for s in TranslationObjective(PAIRS, PAIRS, 14, TRANSLATION).steps(0)}
    assert 1 in sizes
    assert max(sizes) > 2


def test_each_process_draws_its_own_noise_and_repeats_it(tmp_path):
    def work(folder):
        folder.mkdir(parents=True)
        reseed(3, 1)
        (folder / "noise").write_text(str(torch.rand(4).tolist()))

    first, second = in_processes(2, work, tmp_path / "a")
    again, _ = in_processes(2, work, tmp_path / "b")
    assert (first / "noise").read_text() != (second / "noise").read_text()
    assert (first / "noise").read_text() == (again / "noise").read_text()


def test_goes_on_exactly_with_dropout_and_noise(tmp_path):
    noisy = {"gate": "gumbel", "noise_probability": 1.0, "dropout": 0.3, "weight_dropout": 0.2}
    whole, _ = in_processes(2, language_model(**noisy), tmp_path / "whole")
    in_processes(2, language_model(stop_after=1, **noisy), tmp_path / "parts")
    parts, _ = in_processes(2, language_model(**noisy), tmp_path / "parts")
    assert curve(whole) == curve(parts)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (whole, parts)]
    assert weights[0] == weights[1]


def test_strands_are_shared_out_evenly_or_not_at_all(monkeypatch):
    monkeypatch.setattr("g2lstm.objectives.world_size", lambda: 3)
    with pytest.raises(ValueError, match="batch_size 4 cannot be shared out evenly among 3 proc"):
        LanguageModelObjective(TEXT, TEXT, 11, ADAMW)


def test_a_decision_is_that_of_the_first_process(tmp_path):
    def work(folder):
        folder.mkdir(parents=True)
        value = computed_by_first(lambda: 10.0 + rank(), torch.nn.Linear(1, 1))
        (folder / "value").write_text(f"{value} {world_size()}")

    for folder in in_processes(2, work, tmp_path):
        assert (folder / "value").read_text() == "10.0 2"


def test_a_process_of_its_own_is_left_alone(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    model = torch.nn.Linear(2, 1)
    with joined():
        assert (rank(), world_size()) == (0, 1)
        state = torch.get_rng_state()
        reseed(1, 1)
        sum_gradients(model)
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(data_parallel.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(data_parallel.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ProcessesError, match=r"2 processes need .* this machine has 1: start 1"):
        joined().__enter__()


def test_torchrun_trains_a_run_that_one_process_then_finds(tmp_path, monkeypatch):
    folder = tmp_path / "numbers"
    folder.mkdir()
    words = " ".join(f"w{i * i % 7}" for i in range(60))
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(f"{words}\n" * 20)
    monkeypatch.setenv("G2LSTM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    settings = {"epochs": 2, "embedding_size": 8, "batch_size": 10}
    together = configure(gate="sigmoid", corpus=str(folder), overrides={**settings, "processes": 2})
    command = shlex.split(f"{command_of(together)} --quiet")
    assert command.pop(0) == "torchrun"
    command = [sys.executable, "-m", "torch.distributed.run", *command]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    alone = configure(gate="sigmoid", corpus=str(folder), overrides=settings)
    one, two = (train_or_load(prepare(c, "cpu"), progress_bar=False) for c in (alone, together))
    assert two.config["processes"] == 2
    assert two.summary["test_loss"] == pytest.approx(one.summary["test_loss"], rel=1e-4)
    for row, expected in zip(curve(two.directory), curve(one.directory), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


LISTENERS = """if True:
    import psutil, torch, torch.distributed as dist
    from g2lstm.data_parallel import joined, rank, sum_over_processes
    with joined():
        assert sum_over_processes(torch.ones(1)).item() == 2
        starter = psutil.Process().parent()
        for process in (starter, *starter.children()):
            for found in process.net_connections("inet"):
                if found.status == psutil.CONN_LISTEN and rank() == 0:
                    print("listens at", found.laddr.ip)
        dist.barrier()
"""


@pytest.mark.skipif(not psutil.LINUX, reason="the ports of other processes are known on Linux")
def test_processes_that_meet_in_a_folder_listen_on_loopback_alone(tmp_path):
    (tmp_path / "listeners.py").write_text(LISTENERS)
    snakefile = (ROOT / "Snakefile").read_text(encoding="utf-8")
    _, _, rule = snakefile.partition('TRAIN = """')
    words = shlex.split(rule.partition('"""')[0].replace("\\\\\n", " "))
    start, end = words.index("-m"), words.index("{params.train:q}")
    options = [str(tmp_path / "starters") if "RENDEZVOUS" in w else w for w in words[start:end]]
    done = subprocess.run(
        [sys.executable, *options, "--nproc-per-node", "2", "listeners.py"],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {
            "G2LSTM_RENDEZVOUS": str(tmp_path), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "PYTHONPATH": str(ROOT),
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    addresses = {line.split()[-1] for line in done.stdout.splitlines() if "listens" in line}
    assert addresses
    assert addresses <= {"127.0.0.1", "::1"}
