"""The dense form of an update: the same by every order of multiplication, and added to the weight at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tenfac.adapters.updates.layout import Layout, layout_of
from tenfac.adapters.updates.pieces import DenseFactor, DiagonalFactor, FullCore
from tenfac.adapters.updates.update import Term, Update, first_mode_last
from tests.checks import assert_close, assert_equal


def term_of(layout: Layout, rank: tuple[int | None, ...], scale: float) -> tuple[Term, torch.Tensor]:
    """A drawn term in float64, and what it stands for by einsum."""
    rng = torch.Generator().manual_seed(len(layout.shape) + sum(r or 0 for r in rank))

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=rng, dtype=torch.float64)

    core = draw(*(r or size for r, size in zip(rank, layout.shape, strict=True)))
    factors = {n: draw(layout.shape[n], r) for n, r in enumerate(rank) if r is not None}
    want = core
    for n, factor in factors.items():
        letters = "abcde"[: core.ndim]
        want = torch.einsum(f"{letters},z{letters[n]}->{letters.replace(letters[n], 'z')}", want, factor)
    return Term(FullCore(core), {n: DenseFactor(f) for n, f in factors.items()}, scale), scale * want


WEIGHTS = [
    (nn.Conv2d(6, 8, 3), (2, 3, None, None)),
    (nn.Conv2d(6, 8, 3), (2, 3, 2, 1)),
    (nn.Conv2d(6, 8, 3), (7, 1, None, None)),
    (nn.Conv2d(6, 8, 3), (2, None, None, None)),
    (nn.Conv2d(6, 8, 3), (None, 2, None, None)),
    (nn.ConvTranspose2d(6, 8, 3), (2, 3, None, 2)),
    (nn.Linear(6, 8), (3, 2)),
    (nn.Embedding(9, 4), (3, 2)),
]


@pytest.mark.parametrize(("layer", "rank"), WEIGHTS)
def test_delta_is_the_einsum_and_added_is_the_weight_plus_it(layer, rank) -> None:
    layout = layout_of(layer, "weight")
    term, want = term_of(layout, rank, 0.5)
    weight = layer.weight.detach().double()
    assert_close(term.delta(layout), want)
    assert_close(term.added(weight, layout, -2.0), weight - 2 * want)
    other, more = term_of(layout, rank, -3.0)
    assert_close(Update([term, other], layout, {}).added(weight), weight + want + more)


def test_stacked_matrices_and_diagonal_factors_are_added_too() -> None:
    layout = Layout("parameter", (4, 6, 8), 1, 2, ("axis 0", "axis 1", "axis 2"))
    term, want = term_of(layout, (2, 3, None), 1.0)
    weight = torch.ones(4, 6, 8, dtype=torch.float64)
    assert_close(term.added(weight, layout), weight + want)
    scales = torch.arange(1.0, 9.0, dtype=torch.float64)
    term.factors["2"] = DiagonalFactor(scales)
    assert_close(term.added(weight, layout), weight + want * scales)


def test_a_weight_of_another_precision_or_memory_order_gives_the_wider_precision_and_keeps_the_order() -> (
    None
):
    layer = nn.Conv2d(6, 8, 3).double()
    term, want = term_of(layout_of(layer, "weight"), (2, 3, None, None), 1.0)
    layout = layout_of(layer, "weight")
    half = layer.weight.detach().to(torch.bfloat16)
    assert_close(term.added(half, layout), half.double() + want)
    last = layer.weight.detach().to(memory_format=torch.channels_last)
    added = term.added(last, layout)
    assert_close(added, last + want)
    assert_equal(added.is_contiguous(memory_format=torch.channels_last), True)


def test_mode_0_is_multiplied_last_unless_its_rank_is_far_the_larger() -> None:
    assert_equal(first_mode_last((8, 8, 3, 3), (64, 64, 3, 3)), True)
    assert_equal(first_mode_last((8, 64, 3, 3), (64, 64, 3, 3)), True)
    assert_equal(first_mode_last((16, 8, 3, 3), (64, 64, 3, 3)), True)
    assert_equal(first_mode_last((48, 2, 3, 3), (64, 64, 3, 3)), False)
