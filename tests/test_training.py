import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from g2lstm.checkpoint import CheckpointError, load_checkpoint, read_progress, save_checkpoint
from g2lstm.evaluation import evaluate
from g2lstm.gates import TemperatureSchedule
from g2lstm.language_model import LanguageModel
from g2lstm.training import (
    TIMING_COLUMNS,
    TrainingDivergedError,
    TrainingOptions,
    jittered_bounds,
    train,
)

TEXT = torch.arange(600) % 11  # predictable: word 3 follows word 2, and so on
ADAMW = TrainingOptions(
    epochs=4,
    batch_size=4,
    bptt=10,
    optimizer="adamw",
    learning_rate=0.02,
    learning_rate_schedule="cosine",
    warmup=0.1,
    clip=1.0,
    eval_batch_size=2,
)
SGD = replace(ADAMW, optimizer="sgd", learning_rate=2.0, learning_rate_schedule="constant")


def make(gate="gumbel", **settings):
    torch.manual_seed(0)
    settings = {"dropout_words": 0.0, "dropout_embedding": 0.1} | settings
    return LanguageModel(12, 8, 8, 2, gate=gate, **settings)


def run(folder, options=ADAMW, model=None, **settings):
    model = model or make()
    metrics = train(
        model, TEXT, TEXT[:200], options, folder, progress_bar=False, **({"seed": 3} | settings)
    )
    return model, metrics


def repeatable(metrics):
    return [{k: v for k, v in row.items() if k not in TIMING_COLUMNS} for row in metrics]


def same_weights(a, b):
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("options", [ADAMW, SGD])
@pytest.mark.parametrize("gate", ["sigmoid", "sharpened", "gumbel"])
def test_training_lowers_the_loss(tmp_path, options, gate):
    _, metrics = run(tmp_path, replace(options, alpha=0.0, beta=0.0), make(gate, temperature=0.5))
    assert metrics[-1]["valid_loss"] < metrics[0]["valid_loss"] < math.log(12) + 0.5


def test_a_run_leaves_its_files_and_the_best_weights(tmp_path):
    model, metrics = run(tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == metrics
    best = min(metrics, key=lambda row: row["valid_loss"])
    assert evaluate(model, TEXT[:200], 2, 10).loss == best["valid_loss"]
    other = make()
    assert load_checkpoint(tmp_path / "model.safetensors", other) == {"epoch": best["epoch"]}
    assert same_weights(model, other)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "metrics.jsonl",
        "model.safetensors",
        "state",
    ]


def test_the_seed_decides(tmp_path):
    first, metrics = run(tmp_path / "a")
    again, same = run(tmp_path / "b")
    _, other = run(tmp_path / "c", seed=4)
    assert repeatable(metrics) == repeatable(same)
    assert same_weights(first, again)
    assert repeatable(metrics) != repeatable(other)


NT_ASGD = replace(SGD, epochs=7, learning_rate=20.0, clip=0.5, nonmono=1)


@pytest.mark.parametrize("options", [ADAMW, SGD, NT_ASGD, replace(SGD, finetune_epochs=2)])
@pytest.mark.parametrize("when", ["early", "late"])
def test_a_stopped_run_goes_on_exactly(tmp_path, options, when):
    whole, metrics = run(tmp_path / "whole", options)
    epochs_before = 1 if when == "early" else len(metrics) - 1

    class Killed(Exception):
        pass

    seen = []

    def kill(model):
        seen.append(model)
        if len(seen) > epochs_before:
            raise Killed
        return {}

    with pytest.raises(Killed):
        run(tmp_path / "parts", options, probe=kill)
    assert len((tmp_path / "parts/metrics.jsonl").read_text().splitlines()) == epochs_before
    torch.rand(5)  # the random state is the checkpoint's, not the process's
    resumed, rest = run(tmp_path / "parts", options)
    assert repeatable(rest) == repeatable(metrics)
    assert same_weights(resumed, whole)


SCRIPT = textwrap.dedent("""
    import sys
    sys.path[:0] = {path!r}
    from test_training import run, NT_ASGD
    from dataclasses import replace
    run(sys.argv[1], replace(NT_ASGD, epochs=20))
""")


def test_a_killed_process_goes_on_exactly(tmp_path):
    options = replace(NT_ASGD, epochs=20)
    whole, metrics = run(tmp_path / "whole", options)
    script = SCRIPT.format(path=[os.path.dirname(__file__)])
    target = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-c", script, target], stdout=subprocess.PIPE, text=True
    )
    for line in process.stdout:  # kill it in the middle of an epoch
        if line.startswith("epoch   8"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    done = len(read_progress(target / "state/checkpoint.safetensors")["history"])
    assert 8 <= done < 20
    resumed, rest = run(target, options)
    assert repeatable(rest) == repeatable(metrics)
    assert same_weights(resumed, whole)


def test_sgd_turns_into_averaged_sgd_when_validation_stagnates(tmp_path):
    _, metrics = run(tmp_path, NT_ASGD)
    averaging = [row["averaging"] for row in metrics]
    losses = [row["valid_loss"] for row in metrics]
    expected, on = [], False
    for epoch in range(len(losses)):
        past = losses[:epoch]
        on = on or (len(past) > 1 and past[-1] > min(past[:-1]))
        expected.append(on)
    assert averaging == expected
    assert True in averaging


def test_averaged_sgd_evaluates_the_mean_of_the_iterates(tmp_path):
    # One segment an epoch. torch's ASGD leaves the first iterate out of the mean.
    options = replace(SGD, epochs=1, finetune_epochs=3, bptt=400, nonmono=0)
    seen = []
    train(
        make("sigmoid", dropout_embedding=0.0),
        TEXT[:240],
        TEXT[:200],
        options,
        tmp_path,
        probe=lambda model: seen.append(model.embedding.weight.detach().clone()) or {},
        progress_bar=False,
    )
    current = read_progress(tmp_path / "state/checkpoint.safetensors")
    assert [row["averaging"] for row in current["history"]] == [False, True, True, True]
    raw = make("sigmoid")
    load_checkpoint(tmp_path / "state/checkpoint.safetensors", raw)
    # The means were seen; the last iterate is in the checkpoint.
    torch.testing.assert_close(seen[3], (seen[2] + raw.embedding.weight) / 2)


@pytest.mark.parametrize("name", ["alpha", "beta", "weight_decay", "clip"])
def test_each_regulariser_of_the_loss_changes_the_result(tmp_path, name):
    options = replace(ADAMW, epochs=1, alpha=0.0, beta=0.0, weight_decay=0.0, clip=1e6)
    _, without = run(tmp_path / "without", options)
    value = 0.01 if name == "clip" else 1.0
    _, with_it = run(tmp_path / "with", replace(options, **{name: value}))
    assert without[0]["valid_loss"] != with_it[0]["valid_loss"]


def test_activation_regularisation_makes_activations_small_and_slow(tmp_path):
    options = replace(ADAMW, alpha=0.0, beta=0.0)

    def size_and_change(**changes):
        model, _ = run(tmp_path / str(changes), replace(options, **changes))
        model.eval()
        raw = model(TEXT[:100, None]).raw
        return raw.pow(2).mean().item(), (raw[1:] - raw[:-1]).pow(2).mean().item()

    size, change = size_and_change()
    assert size_and_change(alpha=5.0)[0] < size
    assert size_and_change(beta=5.0)[1] < change


def test_the_schedule_sets_the_temperature(tmp_path):
    schedule = TemperatureSchedule("linear", 1.0, 0.2, steps=4)
    model, metrics = run(tmp_path, schedule=schedule)
    temperatures = [row["temperature"] for row in metrics]
    assert temperatures == sorted(temperatures, reverse=True)
    assert 0.2 < temperatures[-1] < 0.25  # of the last step, which is shortly before the end
    assert temperatures[0] == pytest.approx(0.8, abs=0.05)
    assert model.temperature == temperatures[-1]


def test_patience_stops_early_and_stays_stopped(tmp_path):
    options = replace(SGD, epochs=50, learning_rate=1e-9, patience=2)
    _, metrics = run(tmp_path, options)
    assert len(metrics) < 50
    _, again = run(tmp_path, options)
    assert again == metrics


def test_bfloat16_products_train_as_well(tmp_path):
    _, exact = run(tmp_path / "float32")
    _, half = run(tmp_path / "bfloat16", replace(ADAMW, precision="bfloat16"))
    assert half[-1]["valid_loss"] != exact[-1]["valid_loss"]
    assert half[-1]["valid_loss"] == pytest.approx(exact[-1]["valid_loss"], rel=0.1)


def test_a_nan_loss_is_an_error_and_the_checkpoint_stays(tmp_path):
    options = replace(ADAMW, epochs=2)
    calls = []

    def poison(model):
        calls.append(1)
        if len(calls) == 1:
            return {}
        raise AssertionError("the second epoch must not get as far as this")

    model = make()
    original = model.loss
    model.loss = lambda *arguments, **names: (
        original(*arguments, **names) * (float("nan") if calls and model.training else 1.0)
    )
    with pytest.raises(TrainingDivergedError, match="training loss is nan in epoch 2"):
        run(tmp_path, options, model, probe=poison)
    assert len(read_progress(tmp_path / "state/checkpoint.safetensors")["history"]) == 1
    load_checkpoint(tmp_path / "model.safetensors", make())


def test_a_loss_worse_than_guessing_is_an_error(tmp_path):
    options = replace(SGD, learning_rate=1e4, clip=1e6, alpha=0.0, beta=0.0)
    with pytest.raises(TrainingDivergedError, match="lower learning_rate or clip"):
        run(tmp_path, options)
    assert not (tmp_path / "state/checkpoint.safetensors").exists()


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "state/checkpoint.safetensors"
    run(tmp_path, replace(ADAMW, epochs=1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged"):
        run(tmp_path)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    save_checkpoint(tmp_path / "one.safetensors", make())
    with pytest.raises(CheckpointError, match=r"one\.safetensors is of another model"):
        load_checkpoint(tmp_path / "one.safetensors", LanguageModel(12, 9, 8, 2))
    with pytest.raises(CheckpointError, match=r"none\.safetensors does not exist"):
        load_checkpoint(tmp_path / "none.safetensors", make())
    optimizer = torch.optim.SGD(make().parameters(), 0.1)
    with pytest.raises(CheckpointError, match="holds no state for this optimiser"):
        load_checkpoint(tmp_path / "one.safetensors", make(), optimizer)


def test_jittered_segments_cover_the_text_with_the_right_mean():
    bounds = list(jittered_bounds(100_000, 70, seed=1, epoch=0))
    assert bounds[0][0] == 0
    assert bounds[-1][1] == 100_000
    assert all(a[1] == b[0] for a, b in pairwise(bounds))
    sizes = [end - start for start, end in bounds]
    assert sum(sizes) / len(sizes) == pytest.approx(0.95 * 70 + 0.05 * 35, rel=0.03)
    assert bounds == list(jittered_bounds(100_000, 70, seed=1, epoch=0))
    assert bounds != list(jittered_bounds(100_000, 70, seed=1, epoch=1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, got 'adam'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0, got nan"),
        ({"alpha": -1.0}, "alpha must not be negative"),
        ({"warmup": 1.0}, "warmup must be in"),
        ({"precision": "int8"}, "precision must be one of"),
    ],
)
def test_a_bad_option_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ADAMW, **changes)
