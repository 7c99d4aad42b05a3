"""Checks of the answers to `notebooks/10_exercises.ipynb`.

A check calls the learner's function on inputs of its own, compares with an oracle (scipy, numpy,
`torch.nn.LSTMCell`), and returns a `Verdict`. An answer that is wrong in a way often seen is told
which way that is.
"""

import itertools
from collections.abc import Callable

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor

from g2lstm.feedback import (
    WrongError,
    check_independence,
    compare,
    compare_logistic,
    exercise,
    values,
)
from g2lstm.inspection import recorded
from g2lstm.language_model import LanguageModel
from g2lstm.recurrence import reference_recurrence

SAMPLES = 50_000
LSTM_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@exercise("1a")
def check_noise(noise: Callable) -> str:
    """Check ``noise(shape)``: a float tensor of logistic noise."""
    shape = (100, SAMPLES // 100)
    sample = values(noise(shape), shape)
    check_independence(sample, values(noise(shape), shape))
    u, v = np.random.default_rng(0).uniform(size=(2, SAMPLES))
    gumbel, other = -np.log(-np.log(u)), -np.log(-np.log(v))
    one = "This is a single Gumbel variable{}: P(L > 0) is {} and not 1/2. Hint: take the "
    one += "difference of two independent ones, or log U - log(1 - U)."
    mistakes = {
        one.format("", "0.63"): gumbel,
        one.format(" with its sign turned", "0.37"): -gumbel,
        "This is the sum of two Gumbel variables. Hint: their difference is wanted.": gumbel
        + other,
        "These are two uniform variables in log U - log(1 - V). Hint: draw U once and use it in "
        "both logarithms.": np.log(u) - np.log(v),
        "Half of the noise is missing: this is log U alone, always negative. Hint: subtract "
        "log(1 - U).": np.log(u),
        "The logarithms are added. Hint: log U *minus* log(1 - U).": np.log(u) + np.log(1 - u),
        "This is the uniform variable itself. Hint: L = log U - log(1 - U).": u,
        "This is normal noise. Hint: `torch.rand` is uniform, `torch.randn` is normal.": (
            special.ndtri(u)
        ),
    }
    compare_logistic(sample, mistakes)
    return f"P(L > 0) = {(sample > 0).mean():.3f}: an undecided gate is a fair coin."


@exercise("1b")
def check_gate(gate: Callable) -> str:
    """Check ``gate(a, noise, tau)``: the Gumbel gate for a given noise, any shape."""
    a, noise = 2 * torch.randn(2, 40, 5)
    a.requires_grad_()
    for tau in (0.3, 2.0):
        answer = gate(a, noise, tau)
        x, n = (t.detach().double().numpy() for t in (a, noise))
        mistakes = {
            "tau multiplies. Hint: divide by it, a small tau makes the gate steep.": (x + n) * tau,
            "tau divides only the noise. Hint: sigmoid((a + noise) / tau).": x + n / tau,
            "tau divides only a. Hint: sigmoid((a + noise) / tau).": x / tau + n,
            "tau isn't used. Hint: sigmoid((a + noise) / tau).": x + n,
            "The noise isn't used. Hint: sigmoid((a + noise) / tau).": x / tau,
            "The noise is subtracted: the distribution is the same, but not this sample. Hint: "
            "sigmoid((a + noise) / tau).": (x - n) / tau,
        }
        mistakes = {text: special.expit(result) for text, result in mistakes.items()} | {
            "The sigmoid is missing: a gate lies in [0, 1].": (x + n) / tau,
            "This is tanh: a gate lies in [0, 1]. Hint: the sigmoid.": np.tanh((x + n) / tau),
            "The gate is a hard step, which has no gradient. Hint: a sigmoid of temperature tau "
            "in its place.": (x + n > 0),
        }
        compare(values(answer, a.shape), special.expit((x + n) / tau), mistakes, f" at tau = {tau}")
    if not answer.requires_grad:
        raise WrongError(
            "No gradient reaches a. Hint: use functions of torch, without `.detach()`, `.item()`, "
            "numpy or `no_grad`."
        )
    return "And the gradient reaches the pre-activation through it."


@exercise("2a")
def check_slope(slope: Callable) -> str:
    """Check ``slope(a, tau)``: the derivative of sigmoid(a / tau) with respect to a."""
    a = torch.linspace(-3, 3, 25, dtype=torch.float64, requires_grad=True)
    for tau in (0.2, 0.9):
        (wanted,) = torch.autograd.grad(torch.sigmoid(a / tau).sum(), a)
        steep, flat = (special.expit(x) for x in (a.detach().numpy() / tau, a.detach().numpy()))
        chain = "The inner derivative 1 / tau is {}. Hint: the chain rule."
        mistakes = {
            chain.format("missing"): steep * (1 - steep),
            chain.format("a factor tau here"): steep * (1 - steep) * tau,
            "The sigmoid is taken at a. Hint: at a / tau.": flat * (1 - flat) / tau,
            "This is the slope of the plain sigmoid: tau isn't used.": flat * (1 - flat),
            "This is the gate itself. Hint: its derivative is wanted.": steep,
        }
        compare(values(slope(a.detach(), tau), a.shape), wanted, mistakes, f" at tau = {tau}")
    return (
        "At tau = 0.2 it is 1.25 at a = 0 and 0.0000015 at a = 3: steep in the middle, flat at "
        "the ends, and nothing in it that keeps a away from the middle."
    )


@exercise("2b")
def check_proposition(proposition: Callable) -> str:
    """Check ``proposition(a, tau, eps, samples)``: lower bound, sampled P(G >= 1 - eps), upper."""
    for a, tau, eps in ((0.5, 0.4, 0.05), (-1.0, 0.1, 0.2), (2.0, 0.9, 0.01)):
        answer = proposition(a, tau, eps, SAMPLES)
        where = f" at a = {a}, tau = {tau}, eps = {eps}"
        try:
            lower, share, upper = map(float, answer)
        except (TypeError, ValueError, RuntimeError):
            message = "Three numbers are wanted: lower bound, share, upper bound."
            raise WrongError(message) from None
        one, slack, s = special.expit(a), -np.log(eps) / 4, tau * special.logit(1 - eps)
        compare(
            upper, one, {"The upper bound is P(D = 0). Hint: P(D = 1) = sigmoid(a).": 1 - one},
            f": the upper bound{where}. Hint: P(D = 1)",
        )  # fmt: skip
        wrong_slack = "The lower bound {}. Hint: P(D = 1) - (tau / 4) log(1 / eps)."
        mistakes = {
            wrong_slack.format("has the wrong sign: it lies above P(D = 1)"): one + tau * slack,
            wrong_slack.format("lacks tau"): one - slack,
            wrong_slack.format("has tau / 2"): one - 2 * tau * slack,
            wrong_slack.format("has a decimal logarithm"): one + tau * np.log10(eps) / 4,
        }
        compare(lower, one - tau * slack, mistakes, f": the lower bound{where}")
        shares = {
            "": special.expit(a - s),
            "The share is that of G >= eps. Hint: G >= 1 - eps.": special.expit(a + s),
            "The share is that of G <= eps. Hint: G >= 1 - eps.": special.expit(-a - s),
            "The share is that of G > 1/2, which is P(D = 1). Hint: G >= 1 - eps.": one,
            "The share is one of single Gumbel variables. Hint: exercise 1a.": (
                1 - np.exp(-np.exp(a - s))
            ),
            "The share is one with noise at p = 0.2. Hint: the Proposition is about p = 1.": (
                0.2 * special.expit(a - s) + 0.8 * (a > s)
            ),
        }
        fitting = [
            text for text, p in shares.items()
            if abs(share - p) < 5 * np.sqrt(p * (1 - p) / SAMPLES) + 0.002
        ]  # fmt: skip
        if not fitting:
            raise WrongError(f"The share {share:.3f} should be near {shares['']:.3f}{where}.")
        if fitting[0]:
            raise WrongError(fitting[0])
    return "At tau = 0.9 and eps = 0.01 the lower bound is negative: there it promises nothing."


@exercise("3")
def check_lstm_step(step: Callable) -> str:
    """Check ``step(x, h, c, weight_ih, weight_hh, bias, noise, tau)``, which returns (h', c').

    Shapes: x [B, D], h and c [B, H], weight_ih [4H, D], weight_hh [4H, H], bias [4H], noise
    [B, 2H] for the input and the forget gate.
    """
    batch, inputs, hidden = 3, 4, 5
    cell = torch.nn.LSTMCell(inputs, hidden).requires_grad_(False)
    weights = (cell.weight_ih, cell.weight_hh, cell.bias_ih + cell.bias_hh)
    x, h, c = torch.randn(batch, inputs), *torch.randn(2, batch, hidden)
    noise = 2 * torch.randn(batch, 2 * hidden)
    for where, some_noise, tau in (("no noise, tau = 1", 0 * noise, 1.0), ("noise", noise, 0.5)):
        answer = step(x, h, c, *weights, some_noise, tau)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise WrongError("Two tensors are wanted: the new h and the new c.")
        given = np.concatenate([values(part, (batch, hidden)) for part in answer])
        arguments = (x, h, c, *weights, some_noise, tau)
        if tau == 1.0:
            wanted = torch.cat(cell(x, (h, c)))
        else:
            alone = (x[None], h, c, *weights[:2], weights[2], 0 * weights[2], some_noise[None])
            wanted = torch.cat(reference_recurrence(*alone, tau)[1:3])
        mistakes = {
            "It returns c before h. Hint: `return h, c`.": wanted.roll(batch, 0),
            "c isn't squashed. Hint: h' = o tanh(c').": _lstm_step(*arguments, squash=False),
            "g is taken through the sigmoid. Hint: g = tanh(a_g).": (
                _lstm_step(*arguments, content=torch.sigmoid)
            ),
            "The noise isn't used.": _lstm_step(*arguments[:-2], 0 * some_noise, tau),
            "The noise of i and f is mixed up. Hint: the first H columns belong to i.": (
                _lstm_step(*arguments[:-2], some_noise.roll(hidden, 1), tau)
            ),
            "tau isn't used.": _lstm_step(*arguments[:-1], 1.0),
            "tau doesn't divide the noise. Hint: (a + noise) / tau.": (
                _lstm_step(*arguments[:-2], some_noise * tau, tau)
            ),
            "tau divides o too. Hint: only i and f.": _lstm_step(*arguments, divided="ifo"),
            "tau divides g and o too. Hint: only i and f.": _lstm_step(*arguments, divided="ifgo"),
        }
        for order in map("".join, itertools.permutations("ifgo")):
            text = f"It takes the rows of the weights in the order {', '.join(order)}. Hint: "
            text += "PyTorch's order is i, f, g, o."
            mistakes.setdefault(text, _lstm_step(*arguments, order=order))
        compare(given, wanted, mistakes, f" ({where})")
    return "It equals `torch.nn.LSTMCell` without noise and the package's loop with it."


def _lstm_step(
    x, h, c, weight_ih, weight_hh, bias, noise, tau,
    order="ifgo", divided="if", content=torch.tanh, squash=True,
) -> Tensor:  # fmt: skip
    """The step with mistakes to choose from: [2B, H], h' above c'."""
    a = dict(zip(order, (x @ weight_ih.T + h @ weight_hh.T + bias).chunk(4, 1), strict=True))
    for gate, part in zip("if", noise.chunk(2, 1), strict=True):
        a[gate] = a[gate] + part
    a = {gate: value / tau if gate in divided else value for gate, value in a.items()}
    c = torch.sigmoid(a["f"]) * c + torch.sigmoid(a["i"]) * content(a["g"])
    return torch.cat([torch.sigmoid(a["o"]) * (torch.tanh(c) if squash else c), c])


@exercise("4")
def check_masked_gate(gate: Callable) -> str:
    """Check ``gate(a, tau, p, training)``, which draws its noise and mask; any shape of a."""
    a, tau, p = torch.randn(100, SAMPLES // 100), 2.0, 0.2
    x = a.double().numpy()
    divided, plain = special.expit(x / tau), special.expit(x)

    def answer(p: float, training: bool) -> np.ndarray:
        return values(gate(a, tau, p, training), a.shape)

    evaluation = answer(p, False)
    if not np.array_equal(evaluation, answer(p, False)):
        raise WrongError("There is noise in evaluation. Hint: sigmoid(a), nothing else.")
    mistake = "In evaluation it divides by tau. Hint: sigmoid(a), nothing else."
    compare(evaluation, plain, {mistake: divided}, " in evaluation. Hint: sigmoid(a)")
    mistake = "In training, gates without noise aren't divided by tau. Hint: all of them are."
    hint = " in training at p = 0. Hint: sigmoid(a / tau)"
    compare(answer(0.0, True), divided, {mistake: plain}, hint)

    noise = [special.logit(answer(p, True)) * tau - x for _ in range(8)]
    moved = [np.abs(n) > 1e-4 for n in noise]
    shares = [m.mean() for m in moved]
    u = np.random.default_rng(0).uniform(size=SAMPLES)
    if min(shares) > 0.999:
        dimmed = "All gates get noise, multiplied by p. Hint: some gates get it, in full strength."
        compare_logistic(noise[0], {dimmed: p * special.logit(u)})
        raise WrongError("All gates get noise: p isn't used. Hint: `torch.rand(a.shape) < p`.")
    if all(share < 0.001 or share > 0.999 for share in shares):
        raise WrongError("All gates of a call get noise or none does. Hint: a mask of a's shape.")
    for axis, name in ((0, "column"), (1, "row")):
        if (moved[0] != moved[0].take([0], axis)).mean() < 0.001:
            raise WrongError(f"The mask is the same along every {name}. Hint: one of a's shape.")
    if (moved[0] != moved[1]).mean() < 0.001:
        raise WrongError("The mask is the same in two calls. Hint: draw it anew in every call.")
    if abs(shares[0] - (1 - p)) < 0.01:
        raise WrongError(f"The share {shares[0]:.2f} gets noise, which is 1 - p. Hint: rand < p.")
    if abs(shares[0] - p) > 0.01:
        raise WrongError(f"The share {shares[0]:.2f} of the gates gets noise; p is {p}.")
    mistakes = {
        "The noise is divided by p, as dropout does. Hint: the noise keeps its strength.": (
            special.logit(u) / p
        ),
        "The noise is a single Gumbel variable. Hint: exercise 1a.": -np.log(-np.log(u)),
    }
    compare_logistic(noise[0][moved[0]], mistakes)
    return f"At p = {p} the share {shares[0]:.3f} got noise; in evaluation it is a plain sigmoid."


@exercise("5a")
def check_round_clip(round_clip: Callable) -> str:
    """Check ``round_clip(block, step, clip)``: clipped, then rounded to multiples of the step."""
    block = torch.randn(20, 30)
    for step, clip in ((0.2, 0.4), (0.3, 0.4)):
        weights = block.double().numpy()
        clipped = weights.clip(-clip, clip)
        mistakes = {
            "It rounds first and clips afterwards, which leaves values that are no multiples of "
            "the step. Hint: clip comes first.": np.clip(
                np.rint(weights / step) * step, -clip, clip
            ),
            "It doesn't clip.": np.rint(weights / step) * step,
            "It doesn't round.": clipped,
            "It rounds down. Hint: to the nearest multiple.": np.floor(clipped / step) * step,
            "It rounds towards 0. Hint: to the nearest multiple.": np.trunc(clipped / step) * step,
            "It returns numbers of steps. Hint: multiply by the step again.": (
                np.rint(clipped / step)
            ),
        }
        answer = values(round_clip(block, step, clip), block.shape)
        wanted = np.rint(clipped / step) * step
        compare(answer, wanted, mistakes, f" at step = {step}, clip = {clip}")
    return "With clip = 2 step five values are left: three bits a weight."


@exercise("5b")
def check_low_rank(low_rank: Callable) -> str:
    """Check ``low_rank(block, rank)``: the best approximation of that rank."""
    for block, rank in ((torch.randn(12, 12), 3), (torch.randn(12, 20), 5)):
        u, s, vh = np.linalg.svd(block.numpy(), full_matrices=False)
        mistakes = {
            "The singular values are missing. Hint: (u * s) @ vh.": u[:, :rank] @ vh[:rank],
            "It keeps the smallest singular values. Hint: they come in falling order.": (
                (u[:, -rank:] * s[-rank:]) @ vh[-rank:]
            ),
            "All singular values are kept. Hint: the first `rank` of them.": block.numpy(),
            "It is of rank + 1. Hint: `[:rank]`.": (
                (u[:, : rank + 1] * s[: rank + 1]) @ vh[: rank + 1]
            ),
        }
        if block.shape[0] == block.shape[1]:
            mistakes["The last factor is transposed. Hint: `torch.linalg.svd` returns vh."] = (
                u[:, :rank] * s[:rank]
            ) @ vh.T[:rank]
        answer = values(low_rank(block, rank), block.shape)
        compare(answer, (u[:, :rank] * s[:rank]) @ vh[:rank], mistakes, f" at rank {rank}")
    return "Its error is the root of the sum of squares of the singular values left out."


@exercise("5c")
def check_compress_gates(compress_gates: Callable) -> str:
    """Check ``compress_gates(weight, method)``: method on the i and f blocks of [4H, D] alone."""
    hidden = 6
    weight = torch.randn(4 * hidden, 7)

    def method(block: Tensor) -> Tensor:
        u, s, vh = np.linalg.svd(block.numpy(), full_matrices=False)
        return torch.from_numpy((u[:, :2] * s[:2]) @ vh[:2])

    blocks = dict(zip("ifgo", weight.chunk(4), strict=True))

    def some(chosen: tuple[str, ...]) -> Tensor:
        return torch.cat([method(b) if gate in chosen else b for gate, b in blocks.items()])

    together = "compressed as one matrix. Hint: each block by itself."
    mistakes = {
        f"i and f are {together}": torch.cat([method(weight[: 2 * hidden]), weight[2 * hidden :]]),
        f"The whole weight is {together}": method(weight),
    }
    for size in range(5):
        for chosen in itertools.combinations("ifgo", size):
            text = f"Compressed are the blocks: {', '.join(chosen) or 'none'}. Hint: i and f, the "
            mistakes[text + "first two in PyTorch's order i, f, g, o."] = some(chosen)
    answer = values(compress_gates(weight, method), weight.shape)
    compare(answer, some(("i", "f")), mistakes)
    return "The blocks g and o are as they were."


@exercise("6a")
def check_forget_gates(forget_gates: Callable) -> str:
    """Check ``forget_gates(model, tokens)``: [T] mean forget gate in evaluation, tokens [T]."""
    dropout = dict.fromkeys(
        ("dropout", "dropout_between", "dropout_embedding", "dropout_words", "weight_dropout"), 0.0
    )
    model = LanguageModel(11, 6, num_layers=1, noise_probability=1.0, **dropout)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randint(11, (9,))
    layer, gates = model.layers[0], {gate: [] for gate in "ifgo"}
    w, v, b, d = (getattr(layer, f"{name}_l0").detach() for name in LSTM_WEIGHTS)
    h, c = torch.zeros(2, 1, 6)
    for x in model.embedding(tokens).detach()[:, None]:  # [1, E]
        for gate, part in zip("ifgo", (x @ w.T + h @ v.T + b + d)[0].chunk(4), strict=True):
            gates[gate].append(torch.sigmoid(part.double()).mean())
        h, c = torch.lstm_cell(x, (h, c), w, v, b, d)
    answer = values(forget_gates(model, tokens), tokens.shape)
    with_noise = "This is training mode, with noise. Hint: `model.eval()` first."
    if not np.array_equal(answer, values(forget_gates(model, tokens), tokens.shape)):
        raise WrongError(with_noise)
    record = recorded(model, True, lambda: model(tokens[:, None]))[0]
    mistakes = {
        "This is the input gate. Hint: `record.forget_gate`.": torch.stack(gates["i"]),
        with_noise: record.forget_gate[:, 0].mean(1),
    }
    compare(answer, torch.stack(gates["f"]), mistakes)
    return "One value a token, in evaluation mode."


@exercise("6b")
def check_decide(decide: Callable) -> str:
    """Check ``decide(effects)``: "drops", "does not drop" or "not enough evidence".

    The rule of the project's report: the 95 % interval of Student's t over the seeds lies below 0,
    above 0, or on both sides; one seed decides nothing.
    """
    cases = [[m - 0.1, m, m + 0.1] for m in (-0.6, -0.3, -0.22, -0.19, -0.15, 0.05, 0.22, 0.3)]
    cases.append([-0.5])

    def decisions(half_width: Callable[[np.ndarray], float]) -> list[str]:
        made = []
        for case in map(np.array, cases):
            mean, half = case.mean(), half_width(case) if len(case) > 1 else np.inf
            below, above = mean + half < 0, mean - half > 0
            made.append("drops" if below else "does not drop" if above else "not enough evidence")
        return made

    t = stats.t.ppf(0.975, 2)
    right = decisions(lambda case: t * stats.sem(case))
    given = [decide(case) for case in cases]
    for answer in given:
        if not isinstance(answer, str):
            raise WrongError(f"It returns {type(answer).__name__}, not one of the three texts.")
    if given == right:
        return "One seed never decides, and three only when they agree well."
    mistakes = {
        "It uses the sign of the mean alone. Hint: the interval around it.": lambda case: 0.0,
        "It takes 1.96 for the quantile. Hint: Student's t with n - 1 degrees of freedom, 4.30 for "
        "three seeds.": lambda case: 1.96 * stats.sem(case),
        "It takes the one-sided quantile. Hint: 97.5 % for an interval of 95 %.": (
            lambda case: stats.t.ppf(0.95, 2) * stats.sem(case)
        ),
        "It takes the standard deviation of single seeds. Hint: that of their mean, divided by "
        "the root of n.": lambda case: t * case.std(ddof=1),
        "It divides by n in the standard deviation. Hint: by n - 1.": (
            lambda case: t * stats.sem(case, ddof=0)
        ),
    }
    for mistake, half_width in mistakes.items():
        made = decisions(half_width)
        if given[:-1] == made[:-1]:
            raise WrongError(mistake)
    if given[:-1] == right[:-1]:
        raise WrongError("One seed has no spread. Hint: that is not enough evidence.")
    wrong = next(i for i, pair in enumerate(zip(given, right, strict=True)) if len(set(pair)) > 1)
    effects = ", ".join(f"{effect:.2f}" for effect in cases[wrong])
    raise WrongError(f"Effects {effects}: it says {given[wrong]!r}, right is {right[wrong]!r}.")
