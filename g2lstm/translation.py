"""Attentional encoder-decoder for translation with any gate: the paper's second experiment.

The decoder attends after its first layer, not before it: with teacher forcing the first layer runs
over the whole target in one call, attention then serves all steps at once, and the context goes
into the layers above and into the softmax. So no step of attention waits for the one before, and
all recurrences stay in `G2LSTM`'s fast pass. With ``input_feeding`` (Luong et al., 2015) the first
layer also sees the attentional vector of the step before, and the decoder runs step by step. On the
embedded corpus that took 1.4 times the processor time and gained nothing (preset quick, LSTM, seed
1: BLEU 95.2 against 96.9).
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from g2lstm.attention import Attention, Memory
from g2lstm.gate_modes import set_evaluation_gate
from g2lstm.gates import NOISE_EPS, check_probability
from g2lstm.language_model import locked_dropout
from g2lstm.lstm import G2LSTM
from g2lstm.products import Linear, linear


@dataclass(frozen=True)
class DecoderState:
    """State of the decoder between two steps, for N partial translations.

    Attributes:
        layers: (h, c) of the first layer and of the layers above, each [layers, N, H].
        feed: [N, E] attentional vector of the step before; None without input feeding.
    """

    layers: tuple[tuple[Tensor, Tensor], ...]
    feed: Tensor | None

    def select(self, rows: Tensor) -> "DecoderState":
        """The state of some of the translations, by index [M]; one may be taken several times."""
        layers = tuple((h.index_select(1, rows), c.index_select(1, rows)) for h, c in self.layers)
        return DecoderState(layers, None if self.feed is None else self.feed[rows])


class TranslationOutput(NamedTuple):
    """Result of `TranslationModel.decode`."""

    hidden: Tensor  # [T, N, E] attentional vectors after dropout: input of the softmax
    attention: Tensor  # [T, S, N] attention weights, 0 at padding
    state: DecoderState


class TranslationModel(nn.Module):
    """Encoder, decoder with attention, and softmax tied to the target embedding.

    The encoder's first layer runs in both directions, those above it forwards. The decoder starts
    from the mean of the encoder's outputs. Dropout acts on embeddings, between layers and before
    the softmax, with one mask for all steps of a sentence; but in the decoder with input feeding,
    and between the layers above the second, a new one at each step. The paper says little of its
    architecture: this one is ours.

    Args:
        source_size, target_size: numbers of subwords.
        embedding_size: size E of embeddings and attentional vectors.
        hidden_size: units H of each layer and direction.
        encoder_layers, decoder_layers: numbers of layers, at least 1.
        gate, temperature, noise_probability, noise_eps, backend: of every `G2LSTM`.
        noise_distribution, noise_gates, evaluation_gate: of every `G2LSTM` too.
        attention: "bahdanau" or "luong", see `Attention`.
        input_feeding: the decoder's first layer also sees the attentional vector of the step
            before; the decoder then runs step by step, which is slower.
        dropout: dropout probability.
        padding: index of the padding in both vocabularies; never a target.
        share_embeddings: one embedding for source and target; needs one vocabulary.

    Raises:
        ValueError: an argument out of its range, named with its value.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        embedding_size: int = 256,
        hidden_size: int = 256,
        encoder_layers: int = 2,
        decoder_layers: int = 2,
        *,
        gate: str = "gumbel",
        temperature: float | None = None,
        noise_probability: float = 0.2,
        noise_eps: float = NOISE_EPS,
        noise_distribution: str = "logistic",
        noise_gates: str = "input-forget",
        evaluation_gate: str = "plain",
        backend: str = "auto",
        attention: str = "bahdanau",
        input_feeding: bool = False,
        dropout: float = 0.3,
        padding: int = 0,
        share_embeddings: bool = False,
    ) -> None:
        super().__init__()
        sizes = {
            "embedding_size": embedding_size,
            "hidden_size": hidden_size,
            "encoder_layers": encoder_layers,
            "decoder_layers": decoder_layers,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value!r}")
        if share_embeddings and source_size != target_size:
            raise ValueError(
                f"share_embeddings needs one vocabulary, got {source_size} source and "
                f"{target_size} target subwords; learn them jointly"
            )
        self.dropout = check_probability(dropout, "dropout")
        self.input_feeding = input_feeding
        self.gate = gate
        settings = {
            "gate": gate,
            "temperature": temperature,
            "noise_probability": noise_probability,
            "noise_eps": noise_eps,
            "noise_distribution": noise_distribution,
            "noise_gates": noise_gates,
            "evaluation_gate": evaluation_gate,
            "backend": backend,
        }

        def layers(input_size: int, number: int, bidirectional: bool = False) -> G2LSTM:
            return G2LSTM(
                input_size, hidden_size, number,
                dropout=dropout if number > 1 else 0.0, bidirectional=bidirectional, **settings,
            )  # fmt: skip

        self.target_embedding = nn.Embedding(target_size, embedding_size, padding_idx=padding)
        self.source_embedding = (
            self.target_embedding
            if share_embeddings
            else nn.Embedding(source_size, embedding_size, padding_idx=padding)
        )
        self.encoder = layers(embedding_size, 1, bidirectional=True)
        self.upper_encoder = (
            layers(2 * hidden_size, encoder_layers - 1) if encoder_layers > 1 else None
        )
        memory_size = hidden_size if encoder_layers > 1 else 2 * hidden_size
        self.bridge = Linear(memory_size, decoder_layers * hidden_size)
        self.decoder = layers(embedding_size * (2 if input_feeding else 1), 1)
        self.attention = Attention(hidden_size, memory_size, hidden_size, attention)
        self.upper_decoder = (
            layers(hidden_size + memory_size, decoder_layers - 1) if decoder_layers > 1 else None
        )
        self.readout = Linear(hidden_size + memory_size, embedding_size)
        self.output_bias = nn.Parameter(torch.zeros(target_size))
        # In a fixed order, unlike a set's: the seed decides what each of them gets.
        for embedding in dict.fromkeys((self.source_embedding, self.target_embedding)):
            nn.init.normal_(embedding.weight, std=embedding_size**-0.5)
            with torch.no_grad():
                embedding.weight[padding].zero_()

    @property
    def lstms(self) -> list[G2LSTM]:
        """The LSTMs from the encoder's first layer to the decoder's last."""
        return [module for module in self.modules() if isinstance(module, G2LSTM)]

    @property
    def context_columns(self) -> dict[str, slice]:
        """Columns of the decoder's input matrices that see the source through attention."""
        columns = {}
        if self.input_feeding:
            columns["decoder.weight_ih_l0"] = slice(self.target_embedding.embedding_dim, None)
        if self.upper_decoder is not None:
            columns["upper_decoder.weight_ih_l0"] = slice(self.decoder.hidden_size, None)
        return columns

    @property
    def temperature(self) -> float:
        """Temperature of all gates; may be set."""
        return self.encoder.temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        for lstm in self.lstms:
            lstm.temperature = value

    @property
    def evaluation_gate(self) -> str:
        """What all gates are in evaluation, see `G2LSTM`; may be set."""
        return self.encoder.evaluation_gate

    @evaluation_gate.setter
    def evaluation_gate(self, value: str) -> None:
        set_evaluation_gate(self, value)

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        """Run the encoder.

        Args:
            source: [S, B] int64, padded at the end.
            lengths: [B] subwords of each sentence, at least 1.
        """
        lengths = lengths.cpu()
        x = self._drop(self.source_embedding(source))
        x, _ = _run(self.encoder, x, lengths)
        if self.upper_encoder is not None:
            x, _ = _run(self.upper_encoder, self._drop(x), lengths)
        mask = torch.arange(len(x))[:, None] < lengths  # [S, B]
        mask = mask.to(x.device)
        summary = x.sum(0) / mask.sum(0)[:, None]  # outputs after the end are 0
        return Memory(x, self.attention.key(x), mask, summary)

    def start(self, memory: Memory) -> DecoderState:
        """State of the decoder before the first step, a row a sentence."""
        h = torch.tanh(self.bridge(memory.summary)).to(self.bridge.weight.dtype)
        h = h.view(len(h), -1, self.decoder.hidden_size).transpose(0, 1).contiguous()  # [L, B, H]
        parts = [h[:1], h[1:]] if self.upper_decoder is not None else [h]
        layers = tuple((part, torch.zeros_like(part)) for part in parts)
        feed = h.new_zeros(h.shape[1], self.readout.out_features) if self.input_feeding else None
        return DecoderState(layers, feed)

    def decode(
        self,
        inputs: Tensor,
        state: DecoderState,
        memory: Memory,
        lengths: Tensor | None = None,
    ) -> TranslationOutput:
        """Run the decoder on known inputs (teacher forcing).

        Args:
            inputs: [T, N] int64, the target shifted by one, padded at the end.
            state: as `start` or the step before returned it.
            memory: of B sentences; N is a multiple of B, row n belongs to sentence n % B.
            lengths: [N] steps of each row, with N = B; the steps after the end are then left out,
                their outputs are 0. That changes nothing that counts but the gates that
                `record_gates` records.
        """
        x = self._drop(self.target_embedding(inputs))
        if not self.input_feeding:
            return self._decode(x, state, memory, lengths)
        hidden, attention = [], []
        rows = torch.arange(x.shape[1], device=x.device)  # those that still run
        for t, x_t in enumerate(x):
            if lengths is not None:
                kept = (lengths.to(x.device)[rows] > t).nonzero()[:, 0]
                rows, state, memory = rows[kept], state.select(kept), memory.select(kept)
            x_t = torch.cat([x_t[rows], state.feed], -1)[None]
            output = self._decode(x_t, state, memory, None)
            state = replace(output.state, feed=output.hidden[0])
            hidden.append(_spread(output.hidden[0], 0, rows, x.shape[1]))
            attention.append(_spread(output.attention[0], 1, rows, x.shape[1]))
        return TranslationOutput(torch.stack(hidden), torch.stack(attention), state)

    def step(
        self, tokens: Tensor, state: DecoderState, memory: Memory
    ) -> tuple[Tensor, DecoderState]:
        """Log-probabilities [N, V] of the subword after ``tokens`` [N], and the new state."""
        output = self.decode(tokens[None], state, memory)
        return self.log_probabilities(output.hidden[0]), output.state

    def forward(
        self,
        source: Tensor,
        source_lengths: Tensor,
        inputs: Tensor,
        target_lengths: Tensor | None = None,
    ) -> TranslationOutput:
        """Teacher forcing: source [S, B], its lengths [B], inputs [T, B] (target shifted).

        Recorded gates need ``target_lengths`` [B], see `decode`.
        """
        memory = self.encode(source, source_lengths)
        return self.decode(inputs, self.start(memory), memory, target_lengths)

    def losses(
        self, hidden: Tensor, targets: Tensor, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy with and without label smoothing, mean over the targets but padding.

        Args:
            hidden: [T, B, E] as `decode` returns it.
            targets: [T, B] int64.
            label_smoothing: share of the probability that is spread evenly over the vocabulary.
        """
        targets = targets.flatten()
        kept = targets != self.target_embedding.padding_idx
        log_probabilities = self.log_probabilities(hidden.flatten(0, 1)[kept])
        loss = -log_probabilities.gather(1, targets[kept][:, None]).mean()
        smoothed = (1 - label_smoothing) * loss - label_smoothing * log_probabilities.mean()
        return smoothed, loss

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """Log-probabilities [..., V] of the next subword."""
        logits = linear(hidden, self.target_embedding.weight, self.output_bias, ragged=True)
        # In float32 at least: sums over half-precision steps would lose their digits.
        precision = torch.promote_types(self.output_bias.dtype, torch.float32)
        return log_softmax(logits.to(precision), -1)

    def _decode(
        self, x: Tensor, state: DecoderState, memory: Memory, lengths: Tensor | None
    ) -> TranslationOutput:
        h, first = _run(self.decoder, x, lengths, state.layers[0])
        context, weights = self.attention(h, memory)
        layers = (first,)
        if self.upper_decoder is not None:
            x = torch.cat([self._drop(h), context], -1)
            h, above = _run(self.upper_decoder, x, lengths, state.layers[1])
            layers = (first, above)
        hidden = torch.tanh(self.readout(torch.cat([h, context], -1)))
        return TranslationOutput(self._drop(hidden), weights, DecoderState(layers, None))

    def _drop(self, x: Tensor) -> Tensor:
        return locked_dropout(x, self.dropout, self.training)


def _spread(x: Tensor, dimension: int, rows: Tensor, number: int) -> Tensor:
    """x with zeros between its entries, which go to ``rows`` of ``number`` ones."""
    shape = [*x.shape[:dimension], number, *x.shape[dimension + 1 :]]
    return x.new_zeros(shape).index_copy(dimension, rows, x)


def _run(
    lstm: G2LSTM, x: Tensor, lengths: Tensor | None, hx: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The LSTM on x [T, B, D]; with lengths, outputs after the end of a sequence are 0."""
    if lengths is None:
        return lstm(x, hx)
    packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    output, state = lstm(packed, hx)
    return pad_packed_sequence(output, total_length=len(x))[0], state
