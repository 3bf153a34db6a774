"""Small models of the kinds people adapt."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.down = nn.Conv2d(channels, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.down(x))


class ResNet(nn.Module):
    """A stem, two blocks, a head: names like those of torchvision."""

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.layer1 = nn.Sequential(Block(channels))
        self.layer2 = nn.Sequential(Block(channels, 2))
        self.fc = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer2(self.layer1(self.conv1(x))).mean((-2, -1)))


class Experts(nn.Module):
    """A stack of experts as one 3-D parameter each, and heads as a 4-D one."""

    def __init__(self, experts: int = 3, width: int = 12) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(experts, width, 2 * width) / width**0.5)
        self.w2 = nn.Parameter(torch.randn(experts, 2 * width, width) / width**0.5)
        self.heads = nn.Parameter(torch.randn(experts, 2, width, width) / width**0.5)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(torch.einsum("ni,eio->neo", x, self.w1))
        y = torch.einsum("neo,eoi->ei", y, self.w2) * self.scale
        return torch.einsum("ei,ehij->j", y, self.heads)


class MoE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(12, 12)
        self.experts = Experts()

    def forward(self, x: Tensor) -> Tensor:
        return self.experts(self.gate(x))


class Conv1D(nn.Module):
    """A linear layer of someone else's making, its weight (in, out)."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out) / n_in**0.5)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class TiedLM(nn.Module):
    """A language model whose output layer has the weight of its embedding."""

    def __init__(self, words: int = 30, width: int = 16) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.block = nn.TransformerEncoderLayer(width, 4, 32, batch_first=True, dropout=0.0)
        self.mlp = Conv1D(width, width)
        self.lm_head = nn.Linear(width, words, bias=False)
        self.lm_head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.mlp(self.block(self.embed(tokens))))


def resnet() -> ResNet:
    """In evaluation mode, its normalization layers as after some training."""
    torch.manual_seed(0)
    net = ResNet()
    net(torch.randn(8, 3, 8, 8))
    return net.eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def stir(model: nn.Module, size: float = 0.1, seed: int = 0) -> nn.Module:
    """Move every number that trains, so that adapters act."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
                parameter += size * noise.to(parameter.dtype)
    return model


def trainable(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in the state dict."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
