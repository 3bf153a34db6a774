"""Compression and compensation of a small digits network against plain SVD.

``python -m benchmarks.compression`` trains the network of the table (64-128-128-10, five seeds), compresses
its middle layer at three ranks in five metrics, rounds it to two bits and compensates. Prints test accuracy,
mean and standard deviation over the seeds, and writes ``results/compression.json``.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks import record
from tenfac import compensate, compress

SEEDS = range(5)


def data(seed: int) -> list[torch.Tensor]:
    X, y = load_digits(return_X_y=True)
    parts = train_test_split(X / 16, y, test_size=0.4, random_state=seed, stratify=y)
    return [torch.tensor(part, dtype=torch.float32 if part.ndim == 2 else torch.int64) for part in parts]


def trained(X: torch.Tensor, y: torch.Tensor, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(60):
        for rows in torch.randperm(len(X)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(X[rows]), y[rows]).backward()
            optimizer.step()
    return net.eval()


def fisher_of(net: nn.Sequential, X: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean squared gradient of the middle weight over training examples."""
    total = torch.zeros_like(net[2].weight)
    for row, label in zip(X[:300], y[:300], strict=True):
        loss = nn.functional.cross_entropy(net(row[None]), label[None])
        total += torch.autograd.grad(loss, net[2].weight)[0] ** 2
    return total / 300


@torch.no_grad()
def accuracy(net: nn.Sequential, middle: nn.Module, X: torch.Tensor, y: torch.Tensor) -> float:
    hidden = net[1](net[0](X))
    return 100 * float((net[4](net[3](middle(hidden))).argmax(1) == y).float().mean())


def rounded(layer: nn.Linear, levels: int = 4) -> nn.Linear:
    """The layer with each row of its weight rounded to a few evenly spaced levels."""
    other = copy.deepcopy(layer)
    weight = other.weight.data
    low, high = weight.min(1, keepdim=True).values, weight.max(1, keepdim=True).values
    step = (high - low) / (levels - 1)
    other.weight.data = low + ((weight - low) / step).round() * step
    return other


def one_seed(seed: int) -> dict[str, float]:
    X, X_test, y, y_test = data(seed)
    net = trained(X, y, seed)
    with torch.no_grad():
        hidden = net[1](net[0](X))
    fisher, middle = fisher_of(net, X, y), net[2]
    found = {"original": accuracy(net, middle, X_test, y_test)}
    ways = {
        "SVD": {},
        "FWSVD": {"fisher": fisher},
        "activations": {"inputs": hidden, "bias_correction": False},
        "both": {"inputs": hidden, "fisher": fisher, "bias_correction": False},
        "activations, bias corrected (AFM)": {"inputs": hidden},
    }
    for rank in (2, 4, 8):
        for name, options in ways.items():
            found[f"rank {rank}, {name}"] = accuracy(net, compress(middle, rank, **options), X_test, y_test)
    found["2 bits"] = accuracy(net, rounded(middle), X_test, y_test)
    for rank in (2, 4, 8):
        plain = compensate(middle, rounded(middle), rank)
        aware = compensate(middle, rounded(middle), rank, hidden, bias_correction=False)
        found[f"2 bits + SVD of rank {rank}"] = accuracy(net, plain, X_test, y_test)
        found[f"2 bits + EoRA of rank {rank}"] = accuracy(net, aware, X_test, y_test)
        aware = compensate(middle, rounded(middle), rank, hidden)
        found[f"2 bits + rank {rank}, bias corrected"] = accuracy(net, aware, X_test, y_test)
    return found


def main() -> None:
    torch.set_num_threads(1)
    runs = [one_seed(seed) for seed in SEEDS]
    table = {key: [run[key] for run in runs] for key in runs[0]}
    for key, values in table.items():
        print(f"{key:45s} {np.mean(values):5.1f} +- {np.std(values, ddof=1):.1f}")
    packages = "numpy", "torch", "scikit-learn"
    record.write("compression", {"accuracy": table, "versions": record.versions(*packages, threads=1)})


if __name__ == "__main__":
    main()
