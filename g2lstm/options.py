"""Settings of training: those of every experiment, of the language model, of translation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults are AWD-LSTM's for Penn Treebank.

    Attributes:
        epochs: passes over the training text.
        finetune_epochs: further passes with averaged SGD from the best weights (AWD-LSTM's second
            stage); ends early by the rule of ``nonmono``.
        optimizer: "sgd" (turns into averaged SGD by ``nonmono``: NT-ASGD), "adamw" or "adadelta"
            (decay 0.95 and eps 1e-7, as in the authors' translation code).
        learning_rate: peak learning rate.
        learning_rate_schedule: "constant" or "cosine" (to 0 at the end of ``epochs``).
        warmup: share of the run in which the learning rate rises linearly from 0.
        weight_decay: L2 penalty ("sgd", "adadelta") or decoupled decay ("adamw").
        clip: maximum norm of the gradient.
        gate_learning_rate_factor: of the weights of the input and forget gates, times
            ``learning_rate``, see `gate_rates`. The sharpened sigmoid with tau is in effect an LSTM
            with 1 / tau ("adamw").
        gate_initial_scale: by which these weights are multiplied before the training; for the same
            1 / tau.
        nonmono: start averaging when the validation loss is worse than the best of all epochs but
            the ``nonmono`` before it; 0: never ("sgd" only).
        patience: stop after this many epochs without a better validation loss; 0: never.
        precision: "float32" or "bfloat16" (products only, by autocast; see
            `training.precision_of`).
    """

    epochs: int = 750
    finetune_epochs: int = 0
    optimizer: str = "sgd"
    learning_rate: float = 30.0
    learning_rate_schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 1.2e-6
    clip: float = 0.25
    gate_learning_rate_factor: float = 1.0
    gate_initial_scale: float = 1.0
    nonmono: int = 5
    patience: int = 0
    precision: str = "float32"

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("sgd", "adamw", "adadelta"),
            "learning_rate_schedule": ("constant", "cosine"),
            "precision": ("float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        self._check_at_least_one("epochs")
        if self.finetune_epochs and (self.optimizer, self.learning_rate_schedule) != (
            "sgd",
            "constant",
        ):
            raise ValueError(
                f"finetune_epochs={self.finetune_epochs} needs optimizer='sgd' and "
                f"learning_rate_schedule='constant', got {self.optimizer!r} and "
                f"{self.learning_rate_schedule!r}"
            )
        for name in ("learning_rate", "clip", "gate_learning_rate_factor", "gate_initial_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        self._check_not_negative("finetune_epochs", "weight_decay", "nonmono", "patience")
        self._check_below_one("warmup")

    @property
    def step_tokens(self) -> int:
        """Most tokens of a step, or a usual number."""
        raise NotImplementedError

    def _check_at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")

    def _check_below_one(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)!r}")


@dataclass(frozen=True)
class LanguageModelOptions(TrainingOptions):
    """How to train a language model; the defaults are AWD-LSTM's for Penn Treebank.

    Attributes:
        batch_size: parallel strands of text.
        bptt: mean number of steps of truncated back-propagation; jittered as in AWD-LSTM. With
            "sgd" the learning rate is scaled by segment length / ``bptt``.
        alpha: activation regularisation, times the mean square of the dropped-out output.
        beta: temporal activation regularisation, times the mean square change of the raw output.
        eval_batch_size: parallel strands of the validation text.
    """

    batch_size: int = 20
    bptt: int = 70
    alpha: float = 2.0
    beta: float = 1.0
    eval_batch_size: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least_one("batch_size", "bptt", "eval_batch_size")
        self._check_not_negative("alpha", "beta")

    @property
    def step_tokens(self) -> int:
        return self.batch_size * self.bptt


@dataclass(frozen=True)
class TranslationOptions(TrainingOptions):
    """How to train a translation model.

    Attributes:
        batch_tokens: subwords of a batch, padding included: sentences times the longest side.
        batch_sentences: sentence pairs of a batch, whatever their lengths, as in the paper; 0: by
            ``batch_tokens``.
        label_smoothing: share of the target's probability that is spread evenly over all subwords.
    """

    optimizer: str = "adamw"
    learning_rate: float = 2e-3
    learning_rate_schedule: str = "cosine"
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    batch_tokens: int = 1000
    batch_sentences: int = 0
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least_one("batch_tokens")
        self._check_not_negative("batch_sentences")
        self._check_below_one("label_smoothing")

    @property
    def step_tokens(self) -> int:
        return self.batch_sentences or self.batch_tokens
