"""Settings of the training of a language model."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingOptions:
    """How to train; the defaults are AWD-LSTM's for Penn Treebank.

    Attributes:
        epochs: passes over the training text.
        finetune_epochs: further passes with averaged SGD from the best weights (AWD-LSTM's second
            stage); ends early by the rule of ``nonmono``.
        batch_size: parallel strands of text.
        bptt: mean number of steps of truncated back-propagation; jittered as in AWD-LSTM.
        optimizer: "sgd" (turns into averaged SGD by ``nonmono``: NT-ASGD) or "adamw".
        learning_rate: peak learning rate; with "sgd" scaled by segment length / ``bptt``.
        learning_rate_schedule: "constant" or "cosine" (to 0 at the end of ``epochs``).
        warmup: share of the run in which the learning rate rises linearly from 0.
        weight_decay: L2 penalty ("sgd") or decoupled decay ("adamw").
        clip: maximum norm of the gradient.
        alpha: activation regularisation, times the mean square of the dropped-out output.
        beta: temporal activation regularisation, times the mean square change of the raw output.
        nonmono: start averaging when the validation loss is worse than the best of all epochs but
            the ``nonmono`` before it; 0: never ("sgd" only).
        patience: stop after this many epochs without a better validation loss; 0: never.
        precision: "float32" or "bfloat16" (products only, by autocast).
        eval_batch_size: parallel strands of the validation text.
    """

    epochs: int = 750
    finetune_epochs: int = 0
    batch_size: int = 20
    bptt: int = 70
    optimizer: str = "sgd"
    learning_rate: float = 30.0
    learning_rate_schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 1.2e-6
    clip: float = 0.25
    alpha: float = 2.0
    beta: float = 1.0
    nonmono: int = 5
    patience: int = 0
    precision: str = "float32"
    eval_batch_size: int = 10

    def __post_init__(self) -> None:
        choices = {
            "optimizer": ("sgd", "adamw"),
            "learning_rate_schedule": ("constant", "cosine"),
            "precision": ("float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("epochs", "batch_size", "bptt", "eval_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)!r}")
        if self.finetune_epochs and (self.optimizer, self.learning_rate_schedule) != (
            "sgd",
            "constant",
        ):
            raise ValueError(
                f"finetune_epochs={self.finetune_epochs} needs optimizer='sgd' and "
                f"learning_rate_schedule='constant', got {self.optimizer!r} and "
                f"{self.learning_rate_schedule!r}"
            )
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)!r}")
        for name in ("finetune_epochs", "weight_decay", "alpha", "beta", "nonmono", "patience"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)!r}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must be in [0, 1), got {self.warmup!r}")
