"""AWD-LSTM language model (Merity et al., 2018) with any gate: the paper's first experiment."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, log_softmax

from g2lstm.gate_modes import set_evaluation_gate
from g2lstm.gates import NOISE_EPS, check_probability
from g2lstm.lstm import G2LSTM
from g2lstm.products import linear

State = list[tuple[Tensor, Tensor]]


class LanguageModelOutput(NamedTuple):
    """Result of `LanguageModel.forward`."""

    hidden: Tensor  # [T, B, E] output of the last layer after dropout: input of the softmax
    raw: Tensor  # [T, B, E] the same before dropout
    state: State  # per layer (h, c), each [1, B, H]


class LanguageModel(nn.Module):
    """Word-level LSTM language model with the regularisers of AWD-LSTM.

    The defaults are those of AWD-LSTM's recipe for Penn Treebank, which the paper follows.

    Dropout on whole words of the embedding matrix, and locked dropout (one mask for all time steps)
    on embeddings, between layers and on the output; DropConnect on the recurrent weights; softmax
    tied to the embedding. Activation regularisation belongs to the loss (`training`).

    Args:
        vocabulary_size: number of words V.
        embedding_size: size E of the embeddings (paper: 400).
        hidden_size: units of every layer but the last (paper: 1150); the last has
            ``embedding_size`` units if the softmax is tied, else ``hidden_size``.
        num_layers: number of LSTM layers (paper: 3).
        gate, temperature, noise_probability, noise_eps, backend: of every `G2LSTM`.
        noise_distribution, noise_gates, evaluation_gate: of every `G2LSTM` too.
        dropout: locked dropout on the output of the last layer (paper: 0.4).
        dropout_between: locked dropout between layers (paper: 0.25).
        dropout_embedding: locked dropout on the embeddings (paper: 0.4).
        dropout_words: dropout of whole words (paper: 0.1).
        weight_dropout: DropConnect on the recurrent weights (paper: 0.5).
        tie_weights: use the embedding matrix as the softmax's weights (paper: yes).
        cutoff: size k of the head of a two-level softmax over words in order of frequency, which is
            faster and still a normalised distribution: the head has the k most frequent words and
            one entry for all others, the tail the others (AWD-LSTM's split cross-entropy, used by
            its authors on large vocabularies). 0, or at least V: an ordinary softmax (paper).

    Raises:
        ValueError: a size below 1, a probability outside [0, 1], an unknown gate or backend.
    """

    def __init__(
        self,
        vocabulary_size: int,
        embedding_size: int = 400,
        hidden_size: int = 1150,
        num_layers: int = 3,
        *,
        gate: str = "gumbel",
        temperature: float | None = None,
        noise_probability: float = 0.2,
        noise_eps: float = NOISE_EPS,
        noise_distribution: str = "logistic",
        noise_gates: str = "input-forget",
        evaluation_gate: str = "plain",
        dropout: float = 0.4,
        dropout_between: float = 0.25,
        dropout_embedding: float = 0.4,
        dropout_words: float = 0.1,
        weight_dropout: float = 0.5,
        tie_weights: bool = True,
        cutoff: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        sizes = {
            "vocabulary_size": vocabulary_size,
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "num_layers": num_layers,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size!r}")
        if cutoff < 0:
            raise ValueError(f"cutoff must not be negative, got {cutoff!r}")
        self.cutoff = cutoff if cutoff < vocabulary_size else 0
        self.dropout = check_probability(dropout, "dropout")
        self.dropout_between = check_probability(dropout_between, "dropout_between")
        self.dropout_embedding = check_probability(dropout_embedding, "dropout_embedding")
        self.dropout_words = check_probability(dropout_words, "dropout_words")
        last_size = embedding_size if tie_weights else hidden_size
        widths = [embedding_size] + [hidden_size] * (num_layers - 1) + [last_size]
        self.embedding = nn.Embedding(vocabulary_size, embedding_size)
        self.layers = nn.ModuleList(
            G2LSTM(
                widths[layer],
                widths[layer + 1],
                gate=gate,
                temperature=temperature,
                noise_probability=noise_probability,
                noise_eps=noise_eps,
                noise_distribution=noise_distribution,
                noise_gates=noise_gates,
                evaluation_gate=evaluation_gate,
                weight_dropout=weight_dropout,
                backend=backend,
            )
            for layer in range(num_layers)
        )
        self.decoder = None if tie_weights else nn.Linear(last_size, vocabulary_size, bias=False)
        self.decoder_bias = nn.Parameter(torch.zeros(vocabulary_size))
        if self.cutoff:
            self.tail_weight = nn.Parameter(torch.zeros(1, last_size))
            self.tail_bias = nn.Parameter(torch.zeros(1))
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        if self.decoder is not None:
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    @property
    def gate(self) -> str:
        """The gate of every layer."""
        return self.layers[0].gate

    @property
    def temperature(self) -> float:
        """Temperature of every gate; settable, so that a schedule can anneal it."""
        return self.layers[0].temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        for layer in self.layers:
            layer.temperature = value

    @property
    def evaluation_gate(self) -> str:
        """What every gate is in evaluation, see `G2LSTM`; settable."""
        return self.layers[0].evaluation_gate

    @evaluation_gate.setter
    def evaluation_gate(self, value: str) -> None:
        set_evaluation_gate(self, value)

    def forward(self, tokens: Tensor, state: State | None = None) -> LanguageModelOutput:
        """Run the LSTM layers over ``tokens`` [T, B] from ``state`` (default: zeros)."""
        x = self._embed(tokens)  # [T, B, E]
        states = []
        last = len(self.layers) - 1
        raw = x
        for index, layer in enumerate(self.layers):
            raw, layer_state = layer(x, None if state is None else state[index])
            states.append(layer_state)
            rate = self.dropout if index == last else self.dropout_between
            x = locked_dropout(raw, rate, self.training)
        return LanguageModelOutput(x, raw, states)

    def loss(self, hidden: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy (nats) of ``targets`` [N] given ``hidden`` [N, E]; "mean" or "sum".

        Of half-precision scores it is computed in float32.
        """
        head, tail = self._softmax_parts()
        if tail is None:
            return cross_entropy(_single(linear(hidden, *head)), targets, reduction=reduction)
        rare = targets >= self.cutoff
        logits = _single(linear(hidden, *head))
        rare_logits = _single(linear(hidden[rare], *tail, ragged=True))
        total = cross_entropy(logits, targets.clamp(max=self.cutoff), reduction="sum")
        total = total + cross_entropy(rare_logits, targets[rare] - self.cutoff, reduction="sum")
        return total / len(targets) if reduction == "mean" else total

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Log-probabilities of the next word [..., V] from ``hidden`` [..., E]."""
        head, tail = self._softmax_parts()
        log_head = log_softmax(_single(linear(hidden, *head)), -1)
        if tail is None:
            return log_head
        log_tail = log_softmax(_single(linear(hidden, *tail)), -1)
        return torch.cat([log_head[..., :-1], log_head[..., -1:] + log_tail], -1)

    def _softmax_parts(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
        """Weights and biases of the head and, with a cutoff, of the tail."""
        weight = self.embedding.weight if self.decoder is None else self.decoder.weight
        if not self.cutoff:
            return (weight, self.decoder_bias), None
        sizes = [self.cutoff, len(weight) - self.cutoff]
        head_weight, tail_weight = weight.split(sizes)
        head_bias, tail_bias = self.decoder_bias.split(sizes)
        head = torch.cat([head_weight, self.tail_weight]), torch.cat([head_bias, self.tail_bias])
        return head, (tail_weight, tail_bias)

    def _embed(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.training and self.dropout_words > 0:
            # One decision a word, for all its occurrences: the mask is looked up like the words.
            mask = dropout(x.new_ones(self.embedding.num_embeddings), self.dropout_words)
            x = x * mask[tokens].unsqueeze(-1)
        return locked_dropout(x, self.dropout_embedding, self.training)


def _single(scores: Tensor) -> Tensor:
    """Scores of half precision in float32: a sum of losses needs more digits."""
    return scores.float() if scores.element_size() < 4 else scores


def locked_dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Dropout on ``x`` [T, B, H] with one mask [1, B, H] for all steps (Gal and Ghahramani)."""
    if not training or probability == 0.0:
        return x
    return x * dropout(x.new_ones(1, *x.shape[1:]), probability)


def detach(state: State) -> State:
    """The same state cut off from the graph: truncated back-propagation through time."""
    return [(h.detach(), c.detach()) for h, c in state]
