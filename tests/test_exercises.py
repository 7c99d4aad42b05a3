"""Every check takes the notebook's own solution, waits for a starter, and names a mistake."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from scipy import stats
from torch import sigmoid
from torch.distributions import Gumbel

from g2lstm import exercises
from g2lstm.gates import gumbel_gate, logistic_noise
from g2lstm.inspection import record_gates, recorded

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "10_exercises.ipynb"
CODE = {cell.id: cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"}
# Check -> cells of its exercise in the notebook.
TASKS = {
    "check_noise": "noise",
    "check_gate": "gate",
    "check_slope": "slope",
    "check_proposition": "proposition",
    "check_lstm_step": "lstm-step",
    "check_masked_gate": "masked-gate",
    "check_round_clip": "round-clip",
    "check_low_rank": "low-rank",
    "check_compress_gates": "compress-gates",
    "check_forget_gates": "forget-gates",
    "check_decide": "decide",
}


def answer(task, solutions):
    """The function that starter and folded solution of an exercise leave behind."""
    names = {"solutions": solutions}
    for cell in ("imports", f"start-{task}", f"solution-{task}"):
        exec(CODE[cell].source, names)
    return names[f"my_{task.replace('-', '_')}"]


def test_every_check_of_the_module_has_its_exercise_and_is_called_there():
    public = {name for name in vars(exercises) if name.startswith("check_")}
    assert public - {"check_independence"} == set(TASKS)
    assert {name[6:] for name in CODE if name.startswith("start-")} == set(TASKS.values())
    for check, task in TASKS.items():
        call = f"check(exercises.{check}, my_{task.replace('-', '_')})"
        assert CODE[f"check-{task}"].source == f"# NBVAL_CHECK_OUTPUT\n{call}"


def test_solutions_are_folded_and_starters_are_not():
    for task in TASKS.values():
        solution = CODE[f"solution-{task}"].metadata
        assert solution["tags"] == ["solution", "hide-input"]
        assert solution["jupyter"] == {"source_hidden": True}
        assert CODE[f"start-{task}"].metadata == {"tags": ["exercise"]}


@pytest.mark.parametrize("check", TASKS)
def test_the_solution_is_right(check):
    verdict = getattr(exercises, check)(answer(TASKS[check], solutions=True))
    assert verdict.solved, verdict
    assert f"{verdict}".startswith(f"Exercise {verdict.exercise}: right. ")


@pytest.mark.parametrize("check", TASKS)
def test_what_is_not_written_is_not_solved_yet(check):
    for unwritten in (answer(TASKS[check], solutions=False), lambda *arguments: ...):
        verdict = getattr(exercises, check)(unwritten)
        assert not verdict.solved
        assert str(verdict) == f"Exercise {verdict.exercise}: not solved yet."


def uniform(shape):
    return torch.rand(shape).clamp(min=1e-12)


def gumbel(shape):
    return Gumbel(0.0, 1.0).sample(shape)


def logistic(shape):
    u = uniform(shape)
    return torch.log(u / (1 - u))


def frozen(draw):
    """Draws with the same seed at every call."""

    def same(*arguments):
        torch.manual_seed(7)
        return draw(*arguments)

    return same


NOISES = {
    "single Gumbel variable: P(L > 0) is 0.63": gumbel,
    "sign turned: P(L > 0) is 0.37": lambda shape: -gumbel(shape),
    "sum of two Gumbel": lambda shape: gumbel(shape) + gumbel(shape),
    "two uniform variables": lambda shape: torch.log(uniform(shape)) - torch.log(uniform(shape)),
    "log U alone": lambda shape: torch.log(uniform(shape)),
    "The logarithms are added": lambda shape: torch.log(u := uniform(shape)) + torch.log(1 - u),
    "the uniform variable itself": uniform,
    "normal noise": torch.randn,
    "isn't logistic: its quartiles are": lambda shape: 1.1 * logistic(shape),
    "isn't logistic": lambda shape: torch.randn(shape) * torch.pi / 3**0.5,
    "same numbers": frozen(logistic),
    "only 500 differ": lambda shape: logistic(shape[1:]).expand(shape),
    "only 1 differ": lambda shape: logistic(()).expand(shape),
    "shape (1,)": lambda shape: logistic((1,)),
    "-inf for some element": lambda shape: torch.log(torch.zeros(shape)),
    "not a tensor": lambda shape: np.random.default_rng(0).logistic(size=shape),
    "is the `return` missing?": lambda shape: None,
    "TypeError": lambda shape: torch.rand(shape, 1),
}


def step(
    x, h, c, weight_ih, weight_hh, bias, noise, tau,
    order=(0, 1, 2, 3), o_tau=1.0, halves=(0, 1), cell=torch.tanh, out=torch.tanh, swap=False,
):  # fmt: skip
    """A learner's step, with room for mistakes."""
    blocks = (x @ weight_ih.T + h @ weight_hh.T + bias).chunk(4, 1)
    a_i, a_f, a_g, a_o = (blocks[k] for k in order)
    n_i, n_f = (noise.chunk(2, 1)[k] for k in halves)
    i, f = sigmoid((a_i + n_i) / tau), sigmoid((a_f + n_f) / tau)
    c = f * c + i * cell(a_g)
    h = sigmoid(a_o / o_tau) * out(c)
    return (c, h) if swap else (h, c)


def masked(a, tau, p, training, noise=logistic, shape=None, scale=1.0, share=None):
    """A learner's masked gate, with room for mistakes."""
    if not training:
        return sigmoid(a)
    mask = torch.rand(a.shape if shape is None else shape) < (p if share is None else share(p))
    return sigmoid((a + mask * noise(a.shape) * scale) / tau)


def proposition(a, tau, eps, samples, slack=None, noise=logistic, near=None):
    """A learner's Proposition, with room for mistakes."""
    gates = gumbel_gate(torch.full((samples,), a), tau, noise((samples,)))
    upper = sigmoid(torch.tensor(a, dtype=torch.float64)).item()
    lower = upper - (tau / 4 * np.log(1 / eps) if slack is None else slack(tau, eps))
    share = (gates >= 1 - eps) if near is None else near(gates, eps)
    return lower, share.float().mean().item(), upper


def low_rank(block, rank):
    u, s, vh = torch.linalg.svd(block, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def some_blocks(*chosen):
    def compress(weight, method):
        blocks = weight.chunk(4)
        return torch.cat([method(b) if k in chosen else b for k, b in enumerate(blocks)])

    return compress


def compressed_in_place(weight, method):
    weight[:12] = torch.cat([method(weight[:6]), method(weight[6:12])])
    return weight


def forget_gates(model, tokens, training=False, kind="forget", dim=1):
    model.train(training)
    with torch.no_grad(), record_gates(model) as records:
        model(tokens[:, None])
    return getattr(records[0], f"{kind}_gate")[:, 0].mean(dim)


def decide(effects, quantile=None, ddof=1, root=True, single="not enough evidence"):
    """A learner's rule, with room for mistakes."""
    n = len(effects)
    if n == 1:
        return single
    quantile = stats.t.ppf(0.975, n - 1) if quantile is None else quantile
    half = quantile * np.std(effects, ddof=ddof) / (np.sqrt(n) if root else 1)
    mean = np.mean(effects)
    if abs(mean) <= half:
        return "not enough evidence"
    return "drops" if mean < 0 else "does not drop"


def using(function, **mistake):
    return lambda *arguments: function(*arguments, **mistake)


WRONG = {
    "check_noise": NOISES,
    "check_gate": {
        "tau multiplies": lambda a, n, tau: sigmoid((a + n) * tau),
        "tau divides only the noise": lambda a, n, tau: sigmoid(a + n / tau),
        "tau divides only a": lambda a, n, tau: sigmoid(a / tau + n),
        "tau isn't used": lambda a, n, tau: sigmoid(a + n),
        "noise isn't used": lambda a, n, tau: sigmoid(a / tau),
        "subtracted": lambda a, n, tau: sigmoid((a - n) / tau),
        "sigmoid is missing": lambda a, n, tau: (a + n) / tau,
        "This is tanh": lambda a, n, tau: torch.tanh((a + n) / tau),
        "hard step": lambda a, n, tau: (a + n > 0).float(),
        "No gradient": lambda a, n, tau: sigmoid((a.detach() + n) / tau),
        "away from the right values at tau = 0.3": lambda a, n, tau: sigmoid((a + 2 * n) / tau),
        "in place": lambda a, n, tau: sigmoid(n.add_(a) / tau),
    },
    "check_slope": {
        "1 / tau is missing": lambda a, tau: sigmoid(a / tau) * sigmoid(-a / tau),
        "a factor tau here": lambda a, tau: sigmoid(a / tau) * sigmoid(-a / tau) * tau,
        "taken at a. Hint: at a / tau": lambda a, tau: sigmoid(a) * sigmoid(-a) / tau,
        "slope of the plain sigmoid": lambda a, tau: sigmoid(a) * sigmoid(-a),
        "the gate itself": lambda a, tau: sigmoid(a / tau),
        "away from the right values": lambda a, tau: torch.exp(-a.abs() / tau),
    },
    "check_proposition": {
        "wrong sign": using(proposition, slack=lambda tau, eps: tau / 4 * np.log(eps)),
        "lacks tau": using(proposition, slack=lambda tau, eps: np.log(1 / eps) / 4),
        "tau / 2": using(proposition, slack=lambda tau, eps: tau / 2 * np.log(1 / eps)),
        "decimal": using(proposition, slack=lambda tau, eps: tau / 4 * np.log10(1 / eps)),
        "the lower bound at a = 0.5": using(proposition, slack=lambda tau, eps: tau * eps),
        "upper bound is P(D = 0)": lambda a, *rest: (
            *proposition(a, *rest)[:2], float(1 / (1 + np.exp(a))),
        ),
        "G >= eps": using(proposition, near=lambda g, eps: g >= eps),
        "G <= eps": using(proposition, near=lambda g, eps: g <= eps),
        "G > 1/2": using(proposition, near=lambda g, eps: g > 0.5),
        "single Gumbel": using(proposition, noise=gumbel),
        "noise at p = 0.2": using(proposition, noise=lambda shape: logistic_noise(shape, 0.2)),
        "should be near": using(proposition, noise=lambda shape: 2 * logistic(shape)),
        "Three numbers are wanted": lambda *arguments: proposition(*arguments)[:2],
    },
    "check_lstm_step": {
        "in the order i, g, f, o": using(step, order=(0, 2, 1, 3)),
        "in the order f, i, g, o": using(step, order=(1, 0, 2, 3)),
        "in the order i, f, o, g": using(step, order=(0, 1, 3, 2)),
        "c before h": using(step, swap=True),
        "c isn't squashed": using(step, out=lambda c: c),
        "g is taken through the sigmoid": using(step, cell=sigmoid),
        "The noise isn't used": lambda *a: step(*a[:6], 0 * a[6], a[7]),
        "noise of i and f is mixed up": using(step, halves=(1, 0)),
        "tau isn't used": lambda *a: step(*a[:7], 1.0),
        "tau doesn't divide the noise": lambda *a: step(*a[:6], a[6] * a[7], a[7]),
        "tau divides o too": lambda *a: step(*a, o_tau=a[7]),
        "tau divides g and o too": lambda *a: step(
            *a, o_tau=a[7], cell=lambda g: torch.tanh(g / a[7])
        ),
        "away from the right values (no noise": using(step, cell=torch.relu),
        "away from the right values (noise": lambda *a: step(*a[:6], a[6].abs(), a[7]),
        "Two tensors are wanted": lambda *a: step(*a)[0],
    },
    "check_masked_gate": {
        "noise in evaluation": lambda a, tau, p, training: masked(a, tau, p, True),
        "In evaluation it divides by tau": lambda a, tau, p, training: (
            masked(a, tau, p, True) if training else sigmoid(a / tau)
        ),
        "away from the right values in evaluation": lambda a, tau, p, training: (
            masked(a, tau, p, training) if training else sigmoid(a) * p
        ),
        "aren't divided by tau": lambda a, tau, p, training: (
            torch.where(torch.rand(a.shape) < p, masked(a, tau, 1.0, True), sigmoid(a))
            if training
            else sigmoid(a)
        ),
        "multiplied by p": lambda a, tau, p, training: (
            sigmoid((a + p * logistic(a.shape)) / tau) if training else sigmoid(a)
        ),
        "p isn't used": using(masked, share=lambda p: float(p > 0)),
        "1 - p": using(masked, share=lambda p: (1 - p) * (p > 0)),
        "p is 0.2": using(masked, share=lambda p: p / 2),
        "All gates of a call get noise or none": using(masked, shape=()),
        "same along every column": using(masked, shape=(1, 500)),
        "same along every row": using(masked, shape=(100, 1)),
        "mask is the same in two calls": frozen(masked),
        "divided by p, as dropout does": using(masked, scale=5.0),
        "single Gumbel": using(masked, noise=gumbel),
        "isn't logistic": using(masked, noise=torch.randn),
        "its quartiles are": using(masked, noise=lambda shape: logistic(()).expand(shape)),
    },
    "check_round_clip": {
        "rounds first and clips afterwards": lambda b, r, c: ((b / r).round() * r).clamp(-c, c),
        "doesn't clip": lambda b, r, c: (b / r).round() * r,
        "doesn't round": lambda b, r, c: b.clamp(-c, c),
        "rounds down": lambda b, r, c: (b.clamp(-c, c) / r).floor() * r,
        "towards 0": lambda b, r, c: (b.clamp(-c, c) / r).trunc() * r,
        "numbers of steps": lambda b, r, c: (b.clamp(-c, c) / r).round(),
        "right values at step": lambda b, r, c: (b.clamp(-r, r) / c).round() * c,
        "in place": lambda b, r, c: b.clamp_(-c, c).div(r).round() * r,
    },
    "check_low_rank": {
        "singular values are missing": lambda b, k: (
            (parts := torch.linalg.svd(b, full_matrices=False))[0][:, :k] @ parts[2][:k]
        ),
        "keeps the smallest": lambda b, k: b - low_rank(b, min(b.shape) - k),
        "All singular values are kept": lambda b, k: b,
        "rank + 1": lambda b, k: low_rank(b, k + 1),
        "last factor is transposed": lambda b, k: (
            (parts := torch.linalg.svd(b, full_matrices=False))[0][:, :k] * parts[1][:k]
        ) @ parts[2].T[:k],
        "right values at rank 3": lambda b, k: low_rank(b, k) + 0.1,
        "wanted is (12, 20)": lambda b, k: low_rank(b, k)[:, :12],
    },
    "check_compress_gates": {
        "i and f are compressed as one matrix": lambda w, method: torch.cat(
            [method(w[:12]), w[12:]]
        ),
        "whole weight is compressed as one": lambda w, method: method(w),
        "blocks: i, o": some_blocks(0, 3),
        "blocks: f, g": some_blocks(1, 2),
        "blocks: i, f, g, o": some_blocks(0, 1, 2, 3),
        "blocks: i. ": some_blocks(0),
        "blocks: none": some_blocks(),
        "in place": compressed_in_place,
        "away from the right values": lambda w, method: torch.cat(
            [method(w[:6] + 1), method(w[6:12]), w[12:]]
        ),
    },
    "check_forget_gates": {
        "training mode": using(forget_gates, training=True),
        "with noise": lambda model, tokens: recorded(model, True, lambda: model(tokens[:, None]))[
            0
        ].forget_gate[:, 0].mean(1),
        "input gate": using(forget_gates, kind="input"),
        "wanted is (9,)": using(forget_gates, dim=0),
        "away from the right values": lambda model, tokens: forget_gates(model, tokens.flip(0)),
    },
    "check_decide": {
        "sign of the mean alone": using(decide, quantile=0.0),
        "1.96": using(decide, quantile=1.96),
        "one-sided": using(decide, quantile=stats.t.ppf(0.95, 2)),
        "standard deviation of single seeds": using(decide, root=False),
        "divides by n": using(decide, ddof=0),
        "One seed has no spread": using(decide, single="drops"),
        "right is 'drops'": lambda effects: "not enough evidence",
        "It returns list": lambda effects: [decide(effects)],
        "It returns ndarray": lambda effects: np.array(effects) > 0,
        "it says 'rises'": lambda effects: decide(effects).replace("does not drop", "rises"),
        "IndexError": lambda effects: effects[1] and decide(effects),
    },
}  # fmt: skip


def test_there_are_at_least_three_wrong_answers_to_each_exercise():
    assert WRONG.keys() == TASKS.keys()
    assert min(len(answers) for answers in WRONG.values()) >= 3


@pytest.mark.parametrize(
    ("check", "message"), [(check, message) for check in WRONG for message in WRONG[check]]
)
def test_a_wrong_answer_is_told_what_is_wrong(check, message):
    verdict = getattr(exercises, check)(WRONG[check][message])
    assert not verdict.solved
    assert str(verdict).startswith(f"Exercise {verdict.exercise}: wrong. ")
    assert message in verdict.message


def test_the_unmistaken_helpers_of_this_file_are_right():
    right = {
        "check_noise": logistic,
        "check_gate": lambda a, n, tau: sigmoid((a + n) / tau),
        "check_proposition": proposition,
        "check_lstm_step": step,
        "check_masked_gate": masked,
        "check_low_rank": low_rank,
        "check_compress_gates": some_blocks(0, 1),
        "check_forget_gates": forget_gates,
        "check_decide": decide,
    }
    for check, function in right.items():
        assert getattr(exercises, check)(function).solved, check


@pytest.mark.parametrize("noise", [lambda s: gumbel(s) - gumbel(s), lambda s: -logistic(s)])
def test_other_ways_to_the_same_noise_are_right(noise):
    assert exercises.check_noise(noise).solved


def test_eps_in_the_logarithms_is_right_too():
    assert exercises.check_noise(logistic_noise).solved


def test_a_check_leaves_the_random_numbers_of_the_learner_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    exercises.check_noise(logistic)
    assert torch.equal(torch.rand(4), expected)


def test_an_operation_that_torch_lacks_is_an_error_and_not_an_empty_answer():
    def lacking(shape):
        raise NotImplementedError("could not run this")

    assert "could not run this" in exercises.check_noise(lacking).message
