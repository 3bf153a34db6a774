"""Layers of every geometry beside the dense layer they must equal."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.layer import Adapted
from tenfac.adapters.updates.update import Update

Case = tuple[Callable[[], nn.Module], tuple[int, ...], Any]  # layer, shape of an input, rank


class Standardized(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        flat = self.weight.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / (flat.std(1, keepdim=True) + 1e-3)
        return functional.conv2d(x, flat.reshape(self.weight.shape), self.bias, padding=1)


class Experts(nn.Module):
    """A stack of matrices, applied to every input."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.stack = nn.Parameter(torch.randn(shape))
        self.gate = nn.Parameter(torch.randn(3, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("bi,...oi->b...o", x, self.stack)
        return y.flatten(1).sum(1)[:, None, None] * torch.einsum("bi,goi->bgo", x, self.gate)


def conv_cases() -> dict[str, Case]:
    """Convolutions: padding of every mode and kind, strides, groups, kernels, transposed."""
    cases: dict[str, Case] = {
        "Conv1d k3": (lambda: nn.Conv1d(6, 8, 3), (2, 6, 9), 2),
        "Conv1d same circular": (
            lambda: nn.Conv1d(6, 8, 4, padding="same", padding_mode="circular"),
            (2, 6, 9),
            2,
        ),
        "Conv2d k3": (lambda: nn.Conv2d(6, 8, 3), (2, 6, 9, 8), (2, 3, None, None)),
        "Conv2d stride 2": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (2, 6, 9, 8), (3, 2, 2, 2)),
        "Conv2d (1,5)": (lambda: nn.Conv2d(6, 8, (1, 5), padding=(0, 2)), (2, 6, 9, 8), 2),
        "Conv2d 1x1": (lambda: nn.Conv2d(6, 8, 1, bias=False), (2, 6, 5, 4), 2),
        "Conv2d dilation": (lambda: nn.Conv2d(6, 8, 3, dilation=2, padding=2), (2, 6, 9, 8), 2),
        "Conv2d dilation same": (lambda: nn.Conv2d(6, 8, 3, dilation=2, padding="same"), (2, 6, 9, 8), 2),
        "Conv2d same even": (lambda: nn.Conv2d(6, 8, (4, 2), padding="same"), (2, 6, 9, 8), (2, 2, 2, 1)),
        "Conv2d valid": (lambda: nn.Conv2d(6, 8, 3, padding="valid"), (2, 6, 9, 8), 2),
        "Conv2d whole input mode": (lambda: nn.Conv2d(6, 8, 3), (2, 6, 5, 5), (2, None, None, None)),
        "Conv2d whole output mode": (lambda: nn.Conv2d(6, 8, 3, groups=2), (2, 6, 5, 5), (None, 1, 2, 1)),
        "Conv2d groups": (lambda: nn.Conv2d(6, 8, 3, groups=2, padding=1), (2, 6, 9, 8), (2, 2, None, None)),
        "Conv2d depthwise k7": (lambda: nn.Conv2d(8, 8, 7, groups=8, padding=3), (2, 8, 9, 8), 2),
        "Conv2d multiplier": (lambda: nn.Conv2d(4, 12, 3, groups=4), (2, 4, 6, 5), (2, None, None, 2)),
        "Conv3d k3": (lambda: nn.Conv3d(4, 6, 3, padding=1), (2, 4, 4, 5, 4), 2),
        "Conv3d (1,1,3)": (lambda: nn.Conv3d(4, 6, (1, 1, 3)), (2, 4, 3, 4, 5), 2),
        "Conv3d groups": (lambda: nn.Conv3d(4, 6, 3, groups=2), (2, 4, 4, 5, 4), (2, 1, 2, 2, 2)),
        "ConvTranspose1d": (lambda: nn.ConvTranspose1d(6, 8, 3, stride=2), (2, 6, 5), 2),
        "ConvTranspose2d": (lambda: nn.ConvTranspose2d(6, 8, 3, stride=2), (2, 6, 4, 5), (3, 2, 2, None)),
        "ConvTranspose2d groups": (
            lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, output_padding=1, groups=2, dilation=2, padding=1),
            (2, 6, 4, 5),
            (3, 2, None, None),
        ),
        "ConvTranspose2d groups whole input": (
            lambda: nn.ConvTranspose2d(6, 8, 3, groups=2, bias=False),
            (2, 6, 4, 5),
            (None, 2, 2, 2),
        ),
        "ConvTranspose2d groups whole output": (
            lambda: nn.ConvTranspose2d(6, 8, 3, groups=2),
            (2, 6, 4, 5),
            (2, None, None, None),
        ),
        "ConvTranspose2d depthwise": (lambda: nn.ConvTranspose2d(6, 6, 4, groups=6), (2, 6, 4, 5), 2),
        "ConvTranspose3d": (lambda: nn.ConvTranspose3d(4, 6, 2, groups=2), (2, 4, 3, 3, 2), 2),
    }
    for mode in ("circular", "reflect", "replicate"):
        for groups in (1, 2):
            cases[f"Conv2d {mode} groups {groups}"] = (
                lambda mode=mode, groups=groups: nn.Conv2d(
                    6, 8, 3, padding=(2, 1), stride=(1, 2), dilation=(1, 2), padding_mode=mode, groups=groups
                ),
                (2, 6, 9, 8),
                2,
            )
    return cases


def other_cases() -> dict[str, Case]:
    """Linear with inputs of every rank, and tables."""
    return {
        "Linear": (lambda: nn.Linear(7, 9), (5, 7), 2),
        "Linear 1-D": (lambda: nn.Linear(7, 9), (7,), (2, 3)),
        "Linear 4-D": (lambda: nn.Linear(7, 9, bias=False), (2, 3, 1, 7), (None, 2)),
        "Linear whole input": (lambda: nn.Linear(7, 9), (5, 7), (2, None)),
        "Embedding": (lambda: nn.Embedding(11, 6), (3, 4), 2),
        "Embedding 0-D": (lambda: nn.Embedding(11, 6, padding_idx=3), (), (2, 2)),
        "Embedding padding": (lambda: nn.Embedding(11, 6, padding_idx=3), (3, 9), (2, None)),
        "Embedding whole table": (lambda: nn.Embedding(11, 6, padding_idx=-1), (3, 9), (None, 2)),
    }


CONVS, OTHERS = conv_cases(), other_cases()
FACTORED = CONVS | OTHERS


def layer_of(case: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The plain layer of a case."""
    torch.manual_seed(0)
    return FACTORED[case][0]().to(dtype)


def input_of(case: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """An input of a case."""
    rng = torch.Generator().manual_seed(1)
    shape = FACTORED[case][1]
    if case.startswith("Embedding"):
        return torch.randint(0, 11, shape, generator=rng)
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype)


def adapted(case: str, dtype: torch.dtype = torch.float32, **how: Any) -> nn.Module:
    """The layer of a case with an update that has an effect."""
    return stir(tucker_adapter(layer_of(case, dtype), FACTORED[case][2], **how))


def stir(model: nn.Module, seed: int = 2, size: float = 0.5) -> nn.Module:
    """Fill every trained number of every update, as training would; a row that must stay zero stays so."""
    rng = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, Update):
            for parameter in module.parameters():
                if parameter.requires_grad:
                    drawn = torch.randn(parameter.shape, generator=rng, dtype=torch.float64)
                    parameter.data.copy_(drawn * size)
    for module in model.modules():
        if isinstance(module, Adapted) and getattr(module, "padding_idx", None) is not None:
            for update in module.tenfac.named.values():
                _clear_padding(module, update["weight"])
    return model


def _clear_padding(layer: nn.Module, update: Update) -> None:
    for term in update.terms:
        table = term.factors["0"].matrix if "0" in term.factors else term.core.tensor
        table.data[layer.padding_idx] = 0


def dense(update: Update) -> Tensor:
    """An update as an array, by one einsum over its stored numbers, in float64."""
    total = torch.zeros(update.layout.shape, dtype=torch.float64)
    for term in update.terms:
        core = term.core.tensor.detach().double()
        letters, made = "abcdef"[: core.ndim], list("abcdef"[: core.ndim])
        operands, spec = [core], [letters]
        for n, letter in enumerate(letters):
            if str(n) in term.factors:
                operands.append(term.factors[str(n)].matrix.detach().double())
                made[n] = letter.upper()
                spec.append(made[n] + letter)
        total += term.scale * torch.einsum(f"{','.join(spec)}->{''.join(made)}", *operands)
    return total


def oracle(layer: nn.Module, plain: nn.Module) -> nn.Module:
    """A plain layer that holds ``W + sum of updates``."""
    plain = copy.deepcopy(plain)
    with torch.no_grad():
        for name, module in plain.named_modules():
            twin = layer.get_submodule(name)
            for slot in twin.tenfac.slots if isinstance(twin, Adapted) else ():
                target = slot.of(module._parameters[slot.parameter])
                for adapter, weight in twin.tenfac.active.items():
                    if slot.name in twin.tenfac.named[adapter]:
                        delta = weight * dense(twin.tenfac.named[adapter][slot.name])
                        target.copy_((target.double() + delta).to(target.dtype))
    return plain


def trained(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: p for name, p in layer.named_parameters() if p.requires_grad}


def effect(got: Tensor, without: Tensor) -> float:
    """Share of an output that the updates make."""
    return ((got - without).norm() / got.norm()).detach().item()
