"""Any update as the two matrices of LoRA, against the update itself."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from tenfac.adapters.files.lora import lora_matrices, padded  # noqa: E402
from tenfac.adapters.updates.layout import layout_of  # noqa: E402
from tenfac.adapters.updates.pieces import (  # noqa: E402
    DenseFactor,
    DiagonalFactor,
    FullCore,
    KroneckerCore,
    ScaledCore,
    Selection,
)
from tenfac.adapters.updates.update import Term, Update  # noqa: E402
from tests.checks import assert_below, assert_close, assert_equal, assert_relative  # noqa: E402

CONV = nn.Conv2d(4, 6, (2, 3))


def dense(size: int, rank: int) -> DenseFactor:
    return DenseFactor(torch.randn(size, rank))


TERMS = {
    "whole": lambda: [Term(FullCore(torch.randn(6, 4, 2, 3)), {}, 0.5)],
    "tucker": lambda: [Term(FullCore(torch.randn(3, 2, 2, 3)), {0: dense(6, 3), 1: dense(4, 2)})],
    "kernel": lambda: [Term(FullCore(torch.randn(6, 4, 2, 2)), {3: dense(3, 2)}, -2.0)],
    "scaled": lambda: [Term(ScaledCore(torch.randn(2), torch.randn(2, 4, 2, 3), 0), {0: dense(6, 2)})],
    "kronecker": lambda: [Term(KroneckerCore(torch.randn(2, 2, 1, 3), torch.randn(3, 2, 2, 1)), {}, 3.0)],
    "selection": lambda: [
        Term(FullCore(torch.randn(2, 4, 2, 3)), {0: Selection(torch.tensor([4, 1]), 6, torch.float32)})
    ],
    "diagonal": lambda: [
        Term(FullCore(torch.randn(2, 4, 2, 3)), {0: dense(6, 2), 1: DiagonalFactor(torch.randn(4))})
    ],
}
TERMS["all of them"] = lambda: [term for name, make in list(TERMS.items())[:-1] for term in make()]


@pytest.mark.parametrize("case", TERMS)
def test_the_product_of_the_two_is_the_update(case: str) -> None:
    torch.manual_seed(0)
    update = Update(TERMS[case](), layout_of(CONV, "weight"), {})
    a, b = lora_matrices(update)
    assert_equal((a.shape[0], a.shape[1:]), (b.shape[1], CONV.weight.shape[1:]))
    assert_below(a.shape[0], 6, "rank: that of the weight at most")
    with torch.no_grad():
        assert_relative(torch.einsum("or,rikl->oikl", b, a), update.delta(), 1e-6)


def test_modes_are_brought_in_order_where_the_input_comes_first() -> None:
    torch.manual_seed(0)
    layout = layout_of(nn.Embedding(9, 5), "weight")
    factors = {0: dense(9, 3), 1: dense(5, 2)}
    update = Update([Term(FullCore(torch.randn(3, 2)), factors)], layout, {})
    a, b = lora_matrices(update)
    assert_equal((tuple(a.shape), tuple(b.shape)), ((2, 9), (5, 2)))
    with torch.no_grad():
        assert_relative((b @ a).mT, update.delta(), 1e-6)


def test_zeros_raise_the_rank_and_keep_the_product() -> None:
    a, b = torch.randn(2, 4, 3), torch.randn(5, 2)
    wide = padded(a, b, 4)
    assert_equal((tuple(wide[0].shape), tuple(wide[1].shape)), ((4, 4, 3), (5, 4)))
    assert_close(torch.einsum("or,rik->oik", wide[1], wide[0]), torch.einsum("or,rik->oik", b, a))
