import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from g2lstm import files, training
from g2lstm.checkpoint import CheckpointError, load_checkpoint, read_progress, save_checkpoint
from g2lstm.evaluation import evaluate
from g2lstm.gates import TemperatureSchedule
from g2lstm.language_model import LanguageModel
from g2lstm.objectives import LanguageModelObjective
from g2lstm.options import LanguageModelOptions
from g2lstm.training import (
    TIMING_COLUMNS,
    TrainingDivergedError,
    _stagnates,
    load_best,
    precision_of,
    train,
)

TEXT = torch.arange(600) % 11  # predictable: word 3 follows word 2, and so on
ADAMW = LanguageModelOptions(
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
    settings = {"seed": 3} | settings
    objective = LanguageModelObjective(TEXT, TEXT[:200], 12, options, settings["seed"])
    return model, train(model, objective, options, folder, progress_bar=False, **settings)


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
    about = load_checkpoint(tmp_path / "model.safetensors", other)
    assert about == {"epoch": best["epoch"], "temperature": 0.9}
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


NT_ASGD = replace(SGD, epochs=8, learning_rate=30.0, clip=0.5, nonmono=1)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    "options",
    [
        replace(ADAMW, epochs=2),
        NT_ASGD,
        replace(SGD, epochs=2, finetune_epochs=2),
        replace(ADAMW, epochs=2, gate_learning_rate_factor=2.0, gate_initial_scale=3.0),
        replace(SGD, epochs=2, finetune_epochs=2, gate_learning_rate_factor=0.5),
    ],
    ids=["adamw", "nt-asgd", "finetune", "adamw, gates apart", "finetune, gates apart"],
)
def test_a_run_killed_at_any_write_goes_on_exactly(tmp_path, monkeypatch, options):
    replace_file = files.os.replace
    writes = []

    def replacing(source, target):
        writes.append(target)
        if len(writes) == kill_at:
            raise Killed
        replace_file(source, target)

    monkeypatch.setattr(files.os, "replace", replacing)
    kill_at = None
    whole, metrics = run(tmp_path / "whole", options)
    total = len(writes)
    assert total > 2 * len(metrics)
    # Later writes are the ones around the change of the optimiser.
    for kill_at in range(max(1, total - 8), total + 1):
        writes.clear()
        folder = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            run(folder, options)
        torch.rand(5)  # the random state is the checkpoint's, not the process's
        resumed, rest = run(folder, options)
        assert repeatable(rest) == repeatable(metrics), kill_at
        assert same_weights(resumed, whole), kill_at


def test_an_interrupted_first_epoch_starts_again_from_the_initial_weights(tmp_path):
    whole, metrics = run(tmp_path / "whole")
    model = make()

    def interrupt(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts", model=model, probe=interrupt)
    resumed, rest = run(tmp_path / "parts", model=model)
    assert repeatable(rest) == repeatable(metrics)
    assert same_weights(resumed, whole)


@pytest.mark.parametrize(
    ("losses", "nonmono", "expected"),
    [
        ([3, 2], 1, False),
        ([3, 2, 2.5], 1, False),  # the best but the last one before is 3
        ([3, 2, 2.5, 2.6], 1, True),
        ([3, 2, 1, 1.5, 1.4, 1.3], 2, True),
        ([3, 2, 1, 1.5, 1.4, 0.9], 2, False),
        ([1, 2, 2, 2, 2, 2], 5, False),
        ([1, 2, 2, 2, 2, 2, 2], 5, True),
    ],
)
def test_averaging_starts_as_in_awd_lstm(losses, nonmono, expected):
    history = [{"valid_loss": loss} for loss in losses]
    assert _stagnates(history, replace(SGD, nonmono=nonmono)) is expected
    # AWD-LSTM's main.py, epoch by epoch: losses are appended after the test.
    best_val_loss, triggered = [], False
    for loss in losses:
        triggered = len(best_val_loss) > nonmono and loss > min(best_val_loss[:-nonmono])
        best_val_loss.append(loss)
    assert triggered is expected


def test_sgd_turns_into_averaged_sgd_and_stays(tmp_path):
    _, metrics = run(tmp_path, NT_ASGD)
    averaging = [row["averaging"] for row in metrics]
    assert averaging == sorted(averaging)
    assert set(averaging) == {False, True}


def test_averaged_sgd_evaluates_the_mean_of_the_iterates(tmp_path):
    # One segment an epoch. torch's ASGD leaves the first iterate out of the mean.
    options = replace(SGD, epochs=1, finetune_epochs=3, bptt=400, nonmono=0)
    seen = []
    train(
        make("sigmoid", dropout_embedding=0.0),
        LanguageModelObjective(TEXT[:240], TEXT[:200], 12, options),
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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gates_may_start_larger_and_learn_at_another_rate(tmp_path, optimizer):
    """One step: the weights of the gates, from the scaled ones, move by 3 times as much."""
    options = replace(
        SGD, optimizer=optimizer, epochs=1, bptt=1000, warmup=0.0, learning_rate=0.01,
        alpha=0.0, beta=0.0, gate_initial_scale=2.0, clip=1e6,
    )  # fmt: skip
    start, moves = make("sigmoid", dropout_embedding=0.0), []
    for factor in (1.0, 3.0):
        model = make("sigmoid", dropout_embedding=0.0)
        run(tmp_path / str(factor), replace(options, gate_learning_rate_factor=factor), model)
        moves.append(dict(model.named_parameters()))
    for name, initial in start.named_parameters():
        rows = len(initial) // 2 if "layers" in name else 0
        begun = torch.cat([2 * initial[:rows], initial[rows:]]).detach()
        slow, fast = (found[name].detach() - begun for found in moves)
        assert slow.abs().max() > 0
        torch.testing.assert_close(fast[:rows], 3 * slow[:rows], rtol=1e-2, atol=1e-6)
        torch.testing.assert_close(fast[rows:], slow[rows:], rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("options", [ADAMW, SGD], ids=["adamw", "sgd"])
def test_a_rate_of_the_gates_near_that_of_all_is_as_one_rate(tmp_path, options):
    """Over many steps: no gradient is left over from the step before."""
    found = []
    for factor in (1.0, 1.0 + 1e-9):
        model = make("sigmoid", dropout_embedding=0.0)
        apart = replace(options, epochs=1, gate_learning_rate_factor=factor)
        run(tmp_path / str(len(found)), apart, model)
        found.append(model)
    for one, other in zip(*(model.parameters() for model in found), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


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
    # The best weights keep the temperature they were measured with.
    best = min(metrics, key=lambda row: row["valid_loss"])
    assert model.temperature == best["temperature"]
    again = make()
    load_best(tmp_path / "model.safetensors", again)
    assert again.temperature == best["temperature"]


def test_patience_stops_early_and_stays_stopped(tmp_path):
    options = replace(SGD, epochs=50, learning_rate=1e-9, patience=2)
    _, metrics = run(tmp_path, options)
    assert len(metrics) < 50
    _, again = run(tmp_path, options)
    assert again == metrics


def test_bfloat16_products_train_as_well(tmp_path, monkeypatch):
    # Also on a processor that would take float32.
    monkeypatch.setattr(training, "precision_of", lambda options, device: options.precision)
    _, exact = run(tmp_path / "float32")
    _, half = run(tmp_path / "bfloat16", replace(ADAMW, precision="bfloat16"))
    assert half[-1]["valid_loss"] != exact[-1]["valid_loss"]
    assert half[-1]["valid_loss"] == pytest.approx(exact[-1]["valid_loss"], rel=0.1)
    assert {row["precision"] for row in half} == {"bfloat16"}


def test_a_processor_without_bfloat16_trains_in_float32_and_says_so(tmp_path, monkeypatch, capsys):
    _, exact = run(tmp_path / "float32")
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    _, asked = run(tmp_path / "bfloat16", replace(ADAMW, precision="bfloat16"))
    assert [row["valid_loss"] for row in asked] == [row["valid_loss"] for row in exact]
    assert {row["precision"] for row in asked} == {"float32"}
    assert "no products in bfloat16" in capsys.readouterr().out
    # A build without oneDNN, as of other processors, does not even have the question.
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    options = replace(ADAMW, precision="bfloat16")
    assert precision_of(options, torch.device("cpu")) == "float32"
    assert precision_of(options, torch.device("cuda")) == "bfloat16"


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
    with pytest.raises(TrainingDivergedError, match=r"training loss in epoch 2, step \d+ is nan"):
        run(tmp_path, options, model, probe=poison)
    assert len(read_progress(tmp_path / "state/checkpoint.safetensors")["history"]) == 1
    load_checkpoint(tmp_path / "model.safetensors", make())


def test_a_loss_worse_than_guessing_is_an_error(tmp_path):
    options = replace(SGD, learning_rate=1e4, clip=1e6, alpha=0.0, beta=0.0)
    with pytest.raises(TrainingDivergedError, match="lower learning_rate or clip"):
        run(tmp_path, options)
    assert read_progress(tmp_path / "state/checkpoint.safetensors")["history"] == []


@pytest.mark.parametrize("damage", [b"", b"\x00" * 100, None])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path / "state/checkpoint.safetensors"
    run(tmp_path, replace(ADAMW, epochs=1))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors is damaged"):
        run(tmp_path)


def test_random_states_are_restored_of_the_gpus_that_are_there(tmp_path, monkeypatch):
    states = [torch.tensor([index], dtype=torch.uint8) for index in range(12)]
    path, model = tmp_path / "checkpoint.safetensors", make()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    monkeypatch.setattr("g2lstm.checkpoint._cuda_states", lambda: states)
    save_checkpoint(path, model, optimizer, {})
    restored = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.append)
    for here, wanted in ((1, 1), (3, 3), (16, 12)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda here=here: here)
        load_checkpoint(path, model, optimizer)
        assert [int(state) for state in restored.pop()] == list(range(wanted))


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    save_checkpoint(tmp_path / "one.safetensors", make())
    with pytest.raises(CheckpointError, match=r"one\.safetensors is of another model"):
        load_checkpoint(tmp_path / "one.safetensors", LanguageModel(12, 9, 8, 2))
    with pytest.raises(CheckpointError, match=r"none\.safetensors does not exist"):
        load_checkpoint(tmp_path / "none.safetensors", make())
    optimizer = torch.optim.SGD(make().parameters(), 0.1)
    with pytest.raises(CheckpointError, match="holds no state for this optimiser"):
        load_checkpoint(tmp_path / "one.safetensors", make(), optimizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw, adadelta, got 'adam'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be greater than 0, got nan"),
        ({"alpha": -1.0}, "alpha must not be negative"),
        ({"gate_learning_rate_factor": 0.0}, "gate_learning_rate_factor must be greater than 0"),
        ({"gate_initial_scale": -1.0}, r"gate_initial_scale must be greater than 0, got -1\.0"),
        ({"warmup": 1.0}, "warmup must be in"),
        ({"finetune_epochs": 1}, "finetune_epochs=1 needs optimizer='sgd'"),
        ({"precision": "int8"}, "precision must be one of"),
    ],
)
def test_a_bad_option_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(ADAMW, **changes)


def test_adadelta_steps_as_in_the_authors_code(tmp_path):
    model = torch.nn.Linear(3, 2, bias=False)
    model.gate, model.temperature = "sigmoid", 1.0
    weight = model.weight.detach().double()
    gradients = torch.randn(5, 2, 3)
    objective = SimpleNamespace(
        epoch_tokens=5, guessing=1e3, validate=lambda model: 1.0,
        steps=lambda epoch: [training.Step(g, 1, i / 5) for i, g in enumerate(gradients)],
        losses=lambda model, gradient: ((model.weight * gradient).sum(), torch.tensor(1.0)),
    )  # fmt: skip
    options = replace(
        ADAMW, epochs=1, optimizer="adadelta", learning_rate=1.0, warmup=0.0, weight_decay=0.0,
        learning_rate_schedule="constant", clip=1e9,
    )  # fmt: skip
    train(model, objective, options, tmp_path, progress_bar=False)
    squares, updates = torch.zeros_like(weight), torch.zeros_like(weight)
    for gradient in gradients.double():
        squares = 0.95 * squares + 0.05 * gradient**2
        update = -torch.sqrt(updates + 1e-7) / torch.sqrt(squares + 1e-7) * gradient
        updates = 0.95 * updates + 0.05 * update**2
        weight += update
    torch.testing.assert_close(model.weight.detach().double(), weight, rtol=1e-5, atol=1e-8)


def test_a_run_by_adadelta_learns_and_resumes(tmp_path):
    options = replace(
        ADAMW, optimizer="adadelta", learning_rate=1.0, learning_rate_schedule="constant",
        warmup=0.0, weight_decay=0.0, clip=2.0,
    )  # fmt: skip
    model, whole = run(tmp_path / "whole", options)
    assert whole[-1]["valid_loss"] < whole[0]["valid_loss"]
    run(tmp_path / "parts", replace(options, epochs=1))
    resumed, metrics = run(tmp_path / "parts", options)
    assert repeatable(metrics) == repeatable(whole)
    assert same_weights(resumed, model)
