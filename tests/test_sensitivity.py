"""Steps in the weights of gates by hand; losses against plain evaluations."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from g2lstm.compression import gate_blocks
from g2lstm.evaluation import evaluate, evaluate_translation
from g2lstm.language_model import LanguageModel
from g2lstm.lstm import G2LSTM
from g2lstm.measurements import first_pairs
from g2lstm.sensitivity import (
    measure_perturbation,
    measure_surface,
    measure_switches,
    moved,
    random_direction,
)
from g2lstm.translation import TranslationModel
from tiny_runs import untrained

LIMIT = 300


pytestmark = pytest.mark.usefixtures("corpora")


@pytest.fixture(scope="module")
def reader(corpora):
    return untrained(gate="gumbel", temperature=0.4)


@pytest.fixture(scope="module")
def translator(corpora):
    return untrained("translation", gate="sharpened", temperature=0.7)


def language_model(seed=0, **settings):
    torch.manual_seed(seed)
    return LanguageModel(11, 6, 7, 2, **settings).eval()


def translation_model(seed=0):
    torch.manual_seed(seed)
    return TranslationModel(11, 12, 6, 5, input_feeding=True).eval()


MODELS = [language_model, translation_model]


def loss_of_text(model, tokens):
    return evaluate(model, tokens[:LIMIT], batch_size=10).loss


def stepped(model, *steps):
    """The model with steps along the noise that seeds draw, normalised row by row, by hand."""
    copied = copy.deepcopy(model)
    own, other = dict(model.named_parameters()), dict(copied.named_parameters())
    for length, seed in steps:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in own.items():
            if "weight_ih" not in name and "weight_hh" not in name:
                continue
            hidden = len(parameter) // 4
            for row in range(2 * hidden):  # i, then f
                if row % hidden == 0:
                    noise = torch.randn((hidden, parameter.shape[1]), generator=generator)
                drawn = noise[row % hidden].double()
                weights = parameter[row].detach().double()
                change = drawn * math.sqrt(float((weights**2).sum() / (drawn**2).sum()))
                with torch.no_grad():
                    other[name][row] += (length * change).float()
    return copied


# Directions


@pytest.mark.parametrize("make", MODELS)
def test_rows_of_a_direction_have_the_norms_of_the_rows_of_the_weights(make):
    model = make()
    direction, blocks = random_direction(model, 3), gate_blocks(model)
    assert direction.keys() == blocks.keys()
    lstms = [part for part in model.modules() if isinstance(part, nn.LSTM)]
    directions = sum(part.num_layers * (1 + part.bidirectional) for part in lstms)
    assert len(direction) == 4 * directions, "two matrices, two gates"
    for name, block in blocks.items():
        rows = np.linalg.norm(block.double().numpy(), axis=1)
        assert rows.std() > 0.01
        np.testing.assert_allclose(
            np.linalg.norm(direction[name].double().numpy(), axis=1), rows, rtol=1e-5
        )
        cosines = (direction[name] * block).sum(1).numpy() / rows**2
        assert np.abs(cosines).max() < 0.999, "not the weights themselves"


@pytest.mark.parametrize("make", MODELS)
def test_the_noise_of_a_direction_depends_on_the_seed_alone(make):
    """Models of one shape get the same noise, whatever their weights and the global generator."""
    model, other = make(0), make(1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = random_direction(model, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    for name, same in random_direction(model, 3).items():
        assert torch.equal(same, one[name])
    for name, step in random_direction(other, 3).items():
        assert not torch.allclose(step, one[name])
        unit = step / step.norm(dim=1, keepdim=True)
        torch.testing.assert_close(unit, one[name] / one[name].norm(dim=1, keepdim=True))
    for name, step in random_direction(model, 4).items():
        assert not torch.allclose(step, one[name])
    names = list(one)
    rows = [one[name][0] / one[name][0].norm() for name in names]
    assert not torch.allclose(rows[0], rows[1]), "each block has noise of its own"


@pytest.mark.parametrize("make", MODELS)
def test_only_weights_of_input_and_forget_gates_move(make):
    model = make()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    direction = random_direction(model, 0)
    after = moved(model, (0.5, direction)).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), "the model itself is left as it was"
        if "weight_ih" in name or "weight_hh" in name:
            still = len(value) // 2
            assert torch.equal(after[name][still:], value[still:])
            steps = torch.cat([direction[f"{name}: {gate}"] for gate in ("input", "forget")])
            torch.testing.assert_close(after[name][:still], value[:still] + 0.5 * steps)
            assert ((after[name][:still] != value[:still]).float().mean(1) > 0.5).all()
        else:
            assert torch.equal(after[name], value), name


def test_steps_along_several_directions_add_up():
    model = language_model()
    first, second = random_direction(model, 0), random_direction(model, 1)
    both = moved(model, (0.3, first), (-0.7, second)).state_dict()
    one_by_one = moved(moved(model, (-0.7, second)), (0.3, first)).state_dict()
    for name, value in stepped(model, (0.3, 0), (-0.7, 1)).state_dict().items():
        torch.testing.assert_close(both[name], value)
        torch.testing.assert_close(both[name], one_by_one[name])
    for name, value in moved(model).state_dict().items():
        assert torch.equal(value, model.state_dict()[name])


# Measurements


def test_perturbation_is_the_loss_after_each_step(reader):
    norms = (0.0, 0.4, 2.0)
    rows = measure_perturbation(reader, norms, directions=2, limit=LIMIT)
    assert [(row["direction"], row["norm"]) for row in rows] == [
        (direction, norm) for direction in (0, 1) for norm in (0.0, *norms)
    ]
    valid = reader.task.corpus.valid
    start = loss_of_text(reader.model, valid)
    for row in rows:
        if row["norm"] == 0:
            assert row["loss"] == start
        else:
            expected = stepped(reader.model, (row["norm"], row["direction"]))
            assert row["loss"] == pytest.approx(loss_of_text(expected, valid), rel=1e-5)
            assert row["loss"] != start
    assert len({row["loss"] for row in rows}) == 5


def test_perturbation_of_a_translation(translator):
    rows = measure_perturbation(translator, (0.5,), directions=1, limit=LIMIT)
    pairs = first_pairs(translator.task.pairs["valid"], LIMIT)
    for row, model in zip(
        rows, (translator.model, stepped(translator.model, (0.5, 0))), strict=True
    ):
        assert row["loss"] == pytest.approx(evaluate_translation(model, pairs).loss, rel=1e-5)
    assert rows[0]["loss"] != rows[1]["loss"]


def test_the_surface_is_the_loss_over_the_plane(reader):
    found = measure_surface(reader, radius=0.6, points=3, limit=LIMIT)
    assert found["steps"] == [-0.6, 0.0, 0.6]
    assert [len(row) for row in found["loss"]] == [3, 3, 3]
    valid = reader.task.corpus.valid
    assert found["loss"][1][1] == loss_of_text(reader.model, valid)
    for y, x in ((0, 1), (1, 0), (2, 0)):  # rows along direction 1, columns along direction 0
        steps = (found["steps"][x], 0), (found["steps"][y], 1)
        expected = loss_of_text(stepped(reader.model, *steps), valid)
        assert found["loss"][y][x] == pytest.approx(expected, rel=1e-5)
    assert len({loss for row in found["loss"] for loss in row}) == 9


def truncated(model, rank, kinds):
    """The model with the best approximations of this rank in its gates i and f, by numpy."""
    copied = copy.deepcopy(model)
    for name, parameter in copied.named_parameters():
        if not any(kind in name for kind in kinds):
            continue
        hidden = len(parameter) // 4
        for start in (0, hidden):
            block = parameter.detach()[start : start + hidden]
            u, s, v = np.linalg.svd(block.double().numpy(), full_matrices=False)
            block.copy_(torch.tensor((u[:, :rank] * s[:rank]) @ v[:rank]))
    return copied


def hard(model):
    """The model with pre-activations of the gates so large that the sigmoid is 0 or 1."""
    steep = copy.deepcopy(model)
    for layer in (part for part in steep.modules() if isinstance(part, G2LSTM)):
        layer.gate = "sigmoid"
        with torch.no_grad():
            for value in layer.parameters():
                value[: len(value) // 2] *= 1e9
    return steep


def test_switches_of_a_language_model(reader):
    found = measure_switches(reader, limit=LIMIT)
    corpus, model = reader.task.corpus, reader.model
    assert found["loss"] == loss_of_text(model, corpus.valid)
    assert found["loss_seen"] == loss_of_text(model, corpus.train)
    # 64 of 1150 units are 0.56 of 10: rank 1.
    lower = truncated(model, 1, ("weight_ih", "weight_hh"))
    assert found["loss_svd_plus"] == pytest.approx(loss_of_text(lower, corpus.valid), rel=1e-5)
    sharp = copy.deepcopy(model)
    for layer in sharp.layers:
        layer.gate = "sigmoid"
        with torch.no_grad():
            for value in layer.parameters():
                value[: len(value) // 2] /= 0.4
    expected = loss_of_text(sharp, corpus.valid)
    assert found["loss_temperature_in_evaluation"] == pytest.approx(expected, rel=1e-5)
    expected = loss_of_text(hard(model), corpus.valid)
    assert found["loss_hard_in_evaluation"] == pytest.approx(expected, rel=1e-5)
    assert len(set(found.values())) == 5
    assert model.evaluation_gate == "plain"


def test_switches_of_a_translation(translator):
    found = measure_switches(translator, limit=LIMIT)
    model, pairs = translator.model, translator.task.pairs
    valid, train = (first_pairs(pairs[split], LIMIT) for split in ("valid", "train"))
    # Kept temperatures are a matter of Gumbel gates.
    assert found.keys() == {"loss", "loss_svd_plus", "loss_seen", "loss_hard_in_evaluation"}
    expected = evaluate_translation(hard(model), valid).loss
    assert found["loss_hard_in_evaluation"] == pytest.approx(expected, rel=1e-5)
    assert found["loss"] == evaluate_translation(model, valid).loss
    assert found["loss_seen"] == evaluate_translation(model, train).loss
    # 16 of 256 units are 0.6 of 10: rank 1, in W_h and the context's columns of W_x.
    lower = truncated(model, 1, ("weight_hh",))
    for start in (0, 10):
        block = lower.upper_decoder.weight_ih_l0.detach()[start : start + 10, 10:]
        u, s, v = np.linalg.svd(block.double().numpy(), full_matrices=False)
        block.copy_(torch.tensor(s[0] * np.outer(u[:, 0], v[0])))
    expected = evaluate_translation(lower, valid).loss
    assert found["loss_svd_plus"] == pytest.approx(expected, rel=1e-5)
