"""MiniLM's encoder in torch, with BERT's names for its parameters. Imported on demand: torch is an extra."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTH, HEADS, LAYERS, HIDDEN = 384, 12, 6, 1536
WORDS, POSITIONS, TYPES = 30522, 512, 2


class SelfAttention(nn.Module):
    """Twelve heads of 32 over `[B, S, 384]`."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def split(self, x: Tensor) -> Tensor:
        """`[B, S, 384]` to `[B, 12, S, 32]`."""
        return x.view(*x.size()[:-1], HEADS, WIDTH // HEADS).permute(0, 2, 1, 3)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        query, key, value = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        scores = torch.matmul(query, key.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5 + bias
        context = torch.matmul(torch.softmax(scores, dim=-1), value).permute(0, 2, 1, 3).contiguous()
        return context.view(*context.size()[:-2], WIDTH)


class Residual(nn.Module):
    """A dense layer, added to its input and normalized."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dense(x) + residual)


class Layer(nn.Module):
    """Attention, then two dense layers with GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Residual(WIDTH)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(WIDTH, HIDDEN)})
        self.output = Residual(HIDDEN)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, bias), x)
        return self.output(nn.functional.gelu(self.intermediate["dense"](x)), x)


class Embeddings(nn.Module):
    """Words, positions and types, added and normalized: `[B, S]` to `[B, S, 384]`."""

    def __init__(self) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(WORDS, WIDTH)
        self.position_embeddings = nn.Embedding(POSITIONS, WIDTH)
        self.token_type_embeddings = nn.Embedding(TYPES, WIDTH)
        self.LayerNorm = nn.LayerNorm(WIDTH, eps=1e-12)
        self.register_buffer("positions", torch.arange(POSITIONS)[None], persistent=False)

    def forward(self, ids: Tensor, types: Tensor) -> Tensor:
        positions = self.positions[:, : ids.size(1)]
        x = self.word_embeddings(ids) + self.token_type_embeddings(types)
        return self.LayerNorm(x + self.position_embeddings(positions))


class Encoder(nn.Module):
    """Six layers; returns the last hidden state and its normalized mean over the real tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = Embeddings()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer() for _ in range(LAYERS))})

    def forward(self, ids: Tensor, attention_mask: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embeddings(ids, types)
        bias = (1 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.encoder["layer"]:
            x = layer(x, bias)
        mask = attention_mask[:, :, None].to(x.dtype)
        mean = (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return x, nn.functional.normalize(mean)


def encoder(weights: Path) -> Encoder:
    """The module in evaluation mode, with the weights of a safetensors file."""
    model = Encoder()
    missing, unexpected = model.load_state_dict(load_file(weights), strict=False)
    ignored = {"embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias"}
    if missing or set(unexpected) - ignored:
        raise ValueError(f"{weights} does not fit: missing {missing}, unexpected {unexpected}")
    return model.eval()
