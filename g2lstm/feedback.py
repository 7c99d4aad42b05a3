"""What a check says of a learner's answer: not solved yet, right, or wrong and in which way."""

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats
from torch import Tensor

# Times the square root of the sample size: a larger Kolmogorov-Smirnov distance comes by chance
# once in 10^8 times.
DISTANCE = 3.2
NOT_SOLVED, RIGHT, WRONG = "not solved yet", "right", "wrong"


@dataclass(frozen=True)
class Verdict:
    """What a check says of an answer; `print` it.

    Attributes:
        exercise: number of the exercise, such as "1a".
        state: "not solved yet", "right" or "wrong".
        message: what is wrong and a hint, or what the right answer shows.
    """

    exercise: str
    state: str
    message: str = ""

    @property
    def solved(self) -> bool:
        """Whether the answer is right."""
        return self.state == RIGHT

    def __str__(self) -> str:
        return f"Exercise {self.exercise}: {self.state}. {self.message}".rstrip()


class _NotSolvedError(Exception):
    """The learner has not written anything yet."""


class WrongError(Exception):
    """The answer is wrong; the message says how."""


def exercise(number: str) -> Callable:
    """Make a check of a function that raises, or returns what a right answer shows."""

    def decorate(check: Callable[[Callable], str]) -> Callable[[Callable], Verdict]:
        def judged(function: Callable) -> Verdict:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                try:
                    return Verdict(number, RIGHT, check(functools.partial(_call, function)))
                except _NotSolvedError:
                    return Verdict(number, NOT_SOLVED)
                except WrongError as wrong:
                    return Verdict(number, WRONG, str(wrong))

        judged.__name__, judged.__doc__ = check.__name__, check.__doc__
        return judged

    return decorate


def _call(function: Callable, *arguments: Any) -> Any:
    """The learner's answer, called with copies of the arguments."""
    copies = copy.deepcopy(arguments)
    try:
        answer = function(*copies)
    except Exception as error:
        if isinstance(error, NotImplementedError) and not error.args:
            raise _NotSolvedError from None
        raise WrongError(f"It stops with {type(error).__name__}: {error}") from error
    if answer is ...:
        raise _NotSolvedError
    if answer is None:
        raise WrongError("It returns None. Hint: is the `return` missing?")
    for before, after in zip(arguments, copies, strict=True):
        if isinstance(before, Tensor) and not torch.equal(before, after):
            raise WrongError("It changes its argument in place. Hint: work on `x.clone()`.")
    return answer


def values(answer: Any, shape: tuple[int, ...]) -> np.ndarray:
    """The answer in double precision, if it is a tensor of this shape and finite."""
    if not isinstance(answer, Tensor):
        raise WrongError(f"It returns {type(answer).__name__}, not a tensor.")
    if answer.shape != shape:
        raise WrongError(f"It returns the shape {tuple(answer.shape)}, wanted is {tuple(shape)}.")
    if not answer.isfinite().all():
        raise WrongError(f"It returns {answer[~answer.isfinite()][0].item()} for some element.")
    return answer.detach().double().numpy()


def _near(answer: np.ndarray | float, wanted: Any) -> bool:
    return np.allclose(answer, wanted, rtol=1e-4, atol=1e-5)


def compare(
    answer: np.ndarray | float, wanted: Any, mistakes: Mapping[str, Any], where: str = ""
) -> None:
    """Raise unless the answer is the wanted one, with the mistake that explains it if one does."""
    if _near(answer, wanted):
        return
    for mistake, result in mistakes.items():
        if _near(answer, result):
            raise WrongError(mistake)
    error = np.abs(answer - np.asarray(wanted)).max()
    raise WrongError(f"It is up to {error:.2g} away from the right values{where}.")


def compare_logistic(sample: np.ndarray, mistakes: Mapping[str, np.ndarray]) -> None:
    """Raise unless a sample is logistic, with the mistake that explains it if one does."""
    sample = sample.flatten()
    if stats.kstest(sample, "logistic").statistic < DISTANCE / np.sqrt(len(sample)):
        return
    for mistake, other in mistakes.items():
        by_chance = DISTANCE * np.sqrt(1 / len(sample) + 1 / len(other))
        if stats.ks_2samp(sample, other).statistic < by_chance:
            raise WrongError(mistake)
    quartiles = ", ".join(f"{q:.2f}" for q in np.quantile(sample, [0.25, 0.5, 0.75]))
    raise WrongError(
        f"The noise isn't logistic: its quartiles are {quartiles}, not -1.10, 0.00, 1.10. Hint: "
        "L = log U - log(1 - U), with the same U twice and natural logarithms."
    )


def check_independence(sample: np.ndarray, again: np.ndarray) -> None:
    if np.array_equal(sample, again):
        raise WrongError(
            "Two calls give the same numbers. Hint: draw anew in every call, and set no seed in it."
        )
    different = len(np.unique(sample))
    if different < 0.9 * sample.size:
        raise WrongError(
            f"Of {sample.size} elements only {different} differ. Hint: every unit, "
            "step and sequence gets a U of its own: `torch.rand(shape)`."
        )
