"""The paper's argument measured: a loss that is flat where gates are saturated.

Random directions are filter-normalised (Li et al., 2018, "Visualizing the loss landscape of neural
nets"): each row of a direction, the weights into one unit, has the norm of that row of the trained
matrix, so that a step means the same in models whose weights differ in size. Only the weights of
the input and forget gates move.
"""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from g2lstm.compression import LowRank, compress, gate_blocks
from g2lstm.measurements import Measurement, Trained, loss_of
from g2lstm.robustness import PAPER_MATRICES, hidden_size_of, paper_ranks

NORMS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
Direction = dict[str, Tensor]


def random_direction(model: nn.Module, seed: int) -> Direction:
    """A random direction in the weights of the input and forget gates, filter-normalised.

    Args:
        model: holds the LSTMs.
        seed: of the direction.

    Returns:
        By name of `compression.gate_blocks` a tensor of the block's shape, whose rows have the
        norms of the block's rows.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = {}
    for name, block in gate_blocks(model).items():
        noise = torch.randn(block.shape, generator=generator).to(block)
        norms = block.norm(dim=1, keepdim=True)
        direction[name] = noise * norms / noise.norm(dim=1, keepdim=True)
    return direction


def moved(model: nn.Module, *steps: tuple[float, Direction]) -> nn.Module:
    """A copy of ``model`` with each (length, direction) added to its gates' weights."""
    copied = copy.deepcopy(model)
    with torch.no_grad():
        blocks = gate_blocks(copied)
        for length, direction in steps:
            for name, change in direction.items():
                blocks[name] += length * change
    return copied


def measure_perturbation(
    trained: Trained,
    norms: Iterable[float] = NORMS,
    directions: int = 5,
    limit: int = 10_000,
) -> list[dict[str, Any]]:
    """Validation loss along random directions.

    Args:
        trained: the run.
        norms: lengths of the steps, relative to the norms of the rows.
        directions: how many, with seeds 0, 1, ...; the same for every run of one size.
        limit: tokens, see `measurements.loss_of`.

    Returns:
        A dict a direction and norm (0 too): ``direction``, ``norm``, ``loss`` (nats a token).
    """
    model = trained.model
    start = loss_of(trained, model, "valid", limit)
    rows = []
    for seed in range(directions):
        direction = random_direction(model, seed)
        rows.append({"direction": seed, "norm": 0.0, "loss": start})
        for norm in norms:
            loss = loss_of(trained, moved(model, (norm, direction)), "valid", limit)
            rows.append({"direction": seed, "norm": norm, "loss": loss})
    return rows


def measure_surface(
    trained: Trained, radius: float = 1.0, points: int = 9, limit: int = 5_000
) -> dict[str, Any]:
    """Validation loss over a plane through the trained weights.

    Args:
        trained: the run.
        radius: furthest step along each of the two directions (seeds 0 and 1).
        points: a side of the grid; odd, so that the trained weights are on it.
        limit: tokens, see `measurements.loss_of`.

    Returns:
        ``steps`` [points] along both axes, and ``loss`` [points, points], rows along direction 1.
    """
    model = trained.model
    first, second = (random_direction(model, seed) for seed in (0, 1))
    steps = np.linspace(-radius, radius, points).tolist()
    loss = [
        [loss_of(trained, moved(model, (x, first), (y, second)), "valid", limit) for x in steps]
        for y in steps
    ]
    return {"steps": steps, "loss": loss}


def measure_switches(trained: Trained, limit: int = 20_000) -> dict[str, Any]:
    """What the tables of ablations need of a run, on the validation text.

    Returns:
        ``loss`` (nats a token), ``loss_svd_plus`` (under the paper's strongest low rank),
        ``loss_seen`` (on as much of the training text), ``loss_hard_in_evaluation`` (gates of 0 or
        1) and for Gumbel gates ``loss_temperature_in_evaluation`` (the temperature kept).
    """
    task, model = trained.configuration.task, trained.model
    evaluation = trained.configuration.evaluation
    _, rank = paper_ranks(task, hidden_size_of(trained), evaluation)
    compressed = compress(model, LowRank(rank), matrices=PAPER_MATRICES[task])
    found = {
        "loss": loss_of(trained, model, "valid", limit),
        "loss_svd_plus": loss_of(trained, compressed, "valid", limit),
        "loss_seen": loss_of(trained, model, "train", limit),
    }
    for evaluation_gate in ("temperature", "hard") if model.gate == "gumbel" else ("hard",):
        other = copy.deepcopy(model)
        other.evaluation_gate = evaluation_gate
        found[f"loss_{evaluation_gate}_in_evaluation"] = loss_of(trained, other, "valid", limit)
    return found


_MODULES = ("compression", "robustness", "sensitivity", "evaluation", "batches")
PERTURBATION = Measurement("perturbation", measure_perturbation, _MODULES)
SURFACE = Measurement("surface", measure_surface, _MODULES)
SWITCHES = Measurement("switches", measure_switches, _MODULES)
