"""The project's two models in plain PyTorch: the peers of the training benchmark.

`torch.nn.LSTM`, torch's cross-entropy, the same sizes and the same softmax as the model each is
made for, and nothing else: dropout on the layers' inputs and outputs, but no dropout of words or
weights, no activation regularisation, no gates that are recorded. `losses` is an objective's.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, dropout, linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from g2lstm.batches import collate
from g2lstm.language_model import LanguageModel
from g2lstm.objectives import LanguageModelObjective, TranslationObjective
from g2lstm.translation import TranslationModel


class PlainLanguageModel(nn.Module):
    """Embedding, `torch.nn.LSTM` and a tied softmax with the cutoff of ``model``."""

    def __init__(self, model: LanguageModel, objective: LanguageModelObjective) -> None:
        super().__init__()
        words, size = model.embedding.weight.shape
        self.dropout, self.cutoff, self.strands = model.dropout, model.cutoff, objective.strands
        self.embedding = nn.Embedding(words, size)
        self.lstm = nn.LSTM(size, size, len(model.layers), dropout=model.dropout_between)
        self.bias = nn.Parameter(torch.zeros(words))
        self.tail = nn.Parameter(torch.zeros(1, size))
        self.tail_bias = nn.Parameter(torch.zeros(1))
        self.state = None

    def losses(self, batch: tuple[int, int]) -> tuple[Tensor, Tensor]:
        start, end = batch
        if start == 0:
            self.state = None
        x = dropout(self.embedding(self.strands[start:end]), self.dropout, self.training)
        x, state = self.lstm(x, self.state)
        self.state = tuple(part.detach() for part in state)
        x = dropout(x, self.dropout, self.training).flatten(0, 1)
        targets = self.strands[start + 1 : end + 1].flatten()
        weight, bias, k = self.embedding.weight, self.bias, self.cutoff
        if not k:
            loss = cross_entropy(linear(x, weight, bias), targets)
            return loss, loss
        rare = targets >= k
        head = linear(x, torch.cat([weight[:k], self.tail]), torch.cat([bias[:k], self.tail_bias]))
        loss = cross_entropy(head, targets.clamp(max=k), reduction="sum")
        tail = linear(x[rare], weight[k:], bias[k:])
        loss = loss + cross_entropy(tail, targets[rare] - k, reduction="sum")
        return loss / len(targets), loss / len(targets)


class PlainTranslationModel(nn.Module):
    """The encoder, attention (Bahdanau's), decoder and tied softmax of ``model``."""

    def __init__(self, model: TranslationModel, objective: TranslationObjective) -> None:
        super().__init__()
        words, size = model.target_embedding.weight.shape
        hidden, memory = model.decoder.hidden_size, model.attention.key.in_features
        layers = model.bridge.out_features // hidden
        self.dropout, self.objective = model.dropout, objective
        self.source_embedding = nn.Embedding(len(model.source_embedding.weight), size)
        self.target_embedding = nn.Embedding(words, size)
        self.encoder = nn.LSTM(size, hidden, bidirectional=True)
        upper = model.upper_encoder
        self.upper_encoder = upper and nn.LSTM(2 * hidden, hidden, upper.num_layers)
        self.bridge = nn.Linear(memory, layers * hidden)
        self.decoder = nn.LSTM(size, hidden)
        self.query, self.key = nn.Linear(hidden, hidden), nn.Linear(memory, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)
        self.upper_decoder = layers > 1 and nn.LSTM(hidden + memory, hidden, layers - 1)
        self.readout = nn.Linear(hidden + memory, size)
        self.bias = nn.Parameter(torch.zeros(words))
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=size**-0.5)

    def losses(self, batch: list[int]) -> tuple[Tensor, Tensor]:
        pairs = collate(self.objective.train_pairs, batch)
        lengths = pairs.source_lengths
        x = self._run(self.encoder, self.source_embedding(pairs.source), lengths)
        if self.upper_encoder:
            x = self._run(self.upper_encoder, x, lengths)
        ended = torch.arange(len(x))[:, None] >= lengths
        summary = x.sum(0) / lengths[:, None]
        h = torch.tanh(self.bridge(summary)).unflatten(1, (-1, self.decoder.hidden_size))
        h = h.transpose(0, 1).contiguous().to(summary.dtype)
        y = dropout(self.target_embedding(pairs.inputs), self.dropout)
        y, _ = self.decoder(y, (h[:1], torch.zeros_like(h[:1])))
        sums = self.query(y)[:, None] + self.key(x)[None]  # [T, S, B, H]
        scores = self.score(torch.tanh(sums)).squeeze(-1).masked_fill(ended, -torch.inf)
        context = torch.einsum("tsb,sbc->tbc", scores.softmax(1).to(x.dtype), x)
        if self.upper_decoder:
            y = torch.cat([dropout(y, self.dropout), context], -1)
            y, _ = self.upper_decoder(y, (h[1:], torch.zeros_like(h[1:])))
        y = torch.tanh(self.readout(torch.cat([y, context], -1)))
        y, targets = y.flatten(0, 1), pairs.targets.flatten()
        kept = targets != 0
        logits = linear(dropout(y[kept], self.dropout), self.target_embedding.weight, self.bias)
        smoothing = self.objective.options.label_smoothing
        loss = cross_entropy(logits.float(), targets[kept], label_smoothing=smoothing)
        return loss, loss

    def _run(self, lstm: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
        x = pack_padded_sequence(dropout(x, self.dropout), lengths, enforce_sorted=False)
        return pad_packed_sequence(lstm(x)[0])[0]
