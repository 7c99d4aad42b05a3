"""Attention over an encoded sentence: additive (Bahdanau) or multiplicative (Luong)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from g2lstm.products import HALF, Linear

ATTENTIONS = ("bahdanau", "luong")


@dataclass(frozen=True)
class Memory:
    """Encoded source sentences; S steps, B sentences.

    Attributes:
        values: [S, B, C] what attention averages: outputs of the encoder's last layer.
        keys: [S, B, A] what it compares with: the projected values.
        mask: [S, B] True at words, False at padding.
        summary: [B, C] mean of the values over the words.
    """

    values: Tensor
    keys: Tensor
    mask: Tensor
    summary: Tensor

    def select(self, sentences: Tensor) -> "Memory":
        """The memory of some of the sentences, by index [K]."""
        parts = (self.values, self.keys, self.mask)
        return Memory(*(x.index_select(1, sentences) for x in parts), self.summary[sentences])


class Attention(nn.Module):
    """Content-based attention over a `Memory`.

    Args:
        query_size, memory_size: sizes H of the queries and C of the memory's values.
        attention_size: size A in which they are compared.
        kind: "bahdanau" (v . tanh(W q + U m); Bahdanau et al., 2015) or "luong" ((W q) . (U m);
            Luong et al.'s general score, 2015, in factors).
    """

    def __init__(self, query_size: int, memory_size: int, attention_size: int, kind: str) -> None:
        super().__init__()
        if kind not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}, got {kind!r}")
        self.query = Linear(query_size, attention_size)
        self.key = Linear(memory_size, attention_size, bias=False)
        self.score = nn.Linear(attention_size, 1, bias=False) if kind == "bahdanau" else None

    def forward(self, queries: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Contexts [T, N, C] and weights [T, S, N] of queries [T, N, H].

        N is a multiple of the memory's B sentences, and query n belongs to sentence n % B.
        """
        steps, rows = queries.shape[:2]
        sentences = memory.mask.shape[1]
        queries = self.query(queries).reshape(-1, sentences, self.query.out_features)
        if self.score is None:
            scores = torch.einsum("tba,sba->bts", queries, memory.keys)
        else:
            queries, keys = (
                queries.transpose(0, 1)[:, :, None],
                memory.keys.transpose(0, 1)[:, None],
            )
            if queries.dtype in HALF:
                scores = self.score(torch.tanh(queries + keys))  # [B, T, S, 1] of [B, T, S, A]
            else:
                # tanh a = 2 sigmoid(2 a) - 1, and a CPU's sigmoid is the faster one. The softmax
                # does not see the constant, but half precision would lose digits to it.
                scores = 2 * self.score(torch.sigmoid(2 * queries + 2 * keys))
            scores = scores.squeeze(-1)
        scores = scores.to(self.query.weight.dtype).masked_fill(~memory.mask.T[:, None], -torch.inf)
        weights = torch.softmax(scores, -1)
        contexts = torch.bmm(weights, memory.values.transpose(0, 1))  # [B, T, C]
        contexts = contexts.transpose(0, 1).reshape(steps, rows, -1)
        weights = weights.view(sentences, steps, rows // sentences, -1)
        return contexts, weights.permute(1, 3, 2, 0).reshape(steps, -1, rows)
