"""Every geometry: factored, fused and merged are the dense layer ``W + sum of updates``."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.layer import merge_layer, unmerge_layer
from tests.adapters.toys import CONVS, FACTORED, adapted, effect, input_of, layer_of, oracle, stir, trained
from tests.checks import assert_above, assert_close, assert_equal, assert_relative

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
PATHS = ("factored", "fused")
BIAS = ["Conv2d k3", "Conv2d groups", "ConvTranspose2d groups", "Linear"]


@pytest.mark.parametrize("case", FACTORED)
def test_a_new_update_changes_no_output_on_either_path(case: str) -> None:
    plain, x = layer_of(case), input_of(case)
    for path in PATHS:
        layer = tucker_adapter(layer_of(case), FACTORED[case][2], path=path)
        assert isinstance(layer, type(plain))
        assert_equal(layer(x).detach(), plain(x).detach())


@pytest.mark.parametrize("case", FACTORED)
def test_factored_fused_and_merged_are_the_dense_layer(case: str) -> None:
    plain, x = layer_of(case), input_of(case)
    layer = adapted(case).eval()
    truth = oracle(layer, plain.double())
    want = truth(x.double() if x.is_floating_point() else x).detach()
    with torch.no_grad():
        before = plain(x.double() if x.is_floating_point() else x)
        assert_above(effect(want, before), 0.05, "effect")
    for path in PATHS:
        layer.tenfac.path = path
        assert_relative(layer(x), want, 1e-6, path)
    merge_layer(layer)
    assert_relative(layer(x), want, 1e-6, "merged")
    unmerge_layer(layer)
    assert_equal(layer._parameters["weight"].detach(), layer_of(case).weight.detach())


@pytest.mark.parametrize("case", FACTORED)
def test_bfloat16_layers_are_the_dense_layer_to_its_precision(case: str) -> None:
    x = input_of(case, torch.bfloat16)
    layer = adapted(case, torch.bfloat16).eval()
    want = oracle(layer, layer_of(case, torch.bfloat16).double())(x.double() if x.is_floating_point() else x)
    for path in PATHS:
        layer.tenfac.path = path
        y = layer(x)
        assert_equal(y.dtype, torch.bfloat16)
        assert_relative(y.double(), want, 2e-2, path)
    merge_layer(layer)
    assert_relative(layer(x).double(), want, 2e-2, "merged")


def gradients(layer: nn.Module, x: torch.Tensor, path: str) -> dict[str, torch.Tensor]:
    """Of a fixed combination of the outputs, in the input and in all that learns."""
    layer.tenfac.path = path
    x = x.clone().requires_grad_(x.is_floating_point())
    layer.zero_grad()
    y = layer(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape)).sum().backward()
    found = {name: p.grad for name, p in trained(layer).items()}
    return found | ({"x": x.grad} if x.requires_grad else {})


@pytest.mark.parametrize("case", FACTORED)
def test_gradients_of_factored_and_fused_agree_in_the_input_and_every_piece(case: str) -> None:
    layer = adapted(case)
    layer._parameters["weight"].requires_grad_(True)  # whoever trains the weight as well is right too
    if getattr(layer, "bias", None) is not None:
        layer.bias.requires_grad_(True)
    factored, fused = (gradients(layer, input_of(case), path) for path in PATHS)
    assert_equal(sorted(factored), sorted(fused))
    for name in fused:
        assert_relative(factored[name], fused[name], 1e-5, name)


def test_gradients_in_the_input_are_those_of_the_dense_layer() -> None:
    for case in BIAS:
        layer, x = adapted(case), input_of(case)
        truth = oracle(layer, layer_of(case))
        copied = x.clone().requires_grad_(True)
        y = truth(copied)
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        assert_relative(gradients(layer, x, "factored")["x"], copied.grad, 1e-5, case)


SMALL = {
    "Linear": (lambda: nn.Linear(4, 5), (2, 4), 1),
    "Conv1d": (
        lambda: nn.Conv1d(4, 4, 3, groups=2, padding=1, padding_mode="circular"),
        (1, 4, 4),
        (1, 1, 2),
    ),
    "Conv2d": (lambda: nn.Conv2d(3, 3, 2, padding="same"), (1, 3, 2, 2), 1),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 4, 3, groups=2, stride=2), (1, 4, 2), (1, 1, 1)),
    "Embedding": (lambda: nn.Embedding(5, 4, padding_idx=1), None, 1),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", SMALL)
def test_gradcheck(kind: str, path: str) -> None:
    make, shape, rank = SMALL[kind]
    layer = stir(tucker_adapter(make().double(), rank, path=path))
    x = (
        torch.randint(0, 5, (3,))
        if shape is None
        else torch.randn(shape, dtype=torch.float64, requires_grad=True)
    )
    names = list(trained(layer))
    if shape is None:  # the row of padding gets no gradient, which is no derivative
        x = torch.tensor([0, 2, 4])

    def run(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    values = [p.detach().clone().requires_grad_(True) for p in trained(layer).values()]
    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("case", CONVS)
def test_one_input_without_batch_is_the_batch_of_one(case: str, path: str) -> None:
    layer, x = adapted(case, path=path), input_of(case)
    assert_close(layer(x[0]).detach(), layer(x[:1])[0].detach())


@pytest.mark.parametrize("path", PATHS)
def test_output_size_of_a_transposed_convolution_is_heeded(path: str) -> None:
    layer, x = adapted("ConvTranspose2d", path=path), input_of("ConvTranspose2d")
    truth = oracle(layer, layer_of("ConvTranspose2d"))
    for size in ([9, 11], [10, 12]):
        want = truth(x, output_size=size).detach()
        assert_relative(layer(x, output_size=size), want, 1e-6)
        assert_relative(layer(x, size), want, 1e-6)
        assert_relative(layer(input=x, output_size=size), want, 1e-6)
        assert_relative(layer(x[0], size), want[0], 1e-6)


@pytest.mark.parametrize(
    "case", ["Conv2d k3", "Conv2d groups", "ConvTranspose2d groups", "Linear 4-D", "Embedding"]
)
def test_inputs_of_any_strides_and_of_no_rows(case: str) -> None:
    x = input_of(case)
    for path in PATHS:
        layer = adapted(case, path=path)
        want = layer(x)
        strided = torch.stack([x, x], -1)[..., 0]
        assert_relative(layer(strided), want, 1e-6)
        assert_relative(layer(x.mT.contiguous().mT), want, 1e-6)
        assert_relative(layer(input=x), want, 0)
        assert_equal(tuple(layer(x[:0]).shape), (0, *want.shape[1:]))
        layer(x[:0]).sum().backward()


@pytest.mark.parametrize("path", PATHS)
def test_channels_last_is_kept(path: str) -> None:
    for case in ("Conv2d k3", "Conv2d stride 2", "Conv2d groups"):
        layer, x = adapted(case, path=path), input_of(case)
        want = layer(x).detach()
        y = layer.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert_relative(y, want, 1e-6)


def bad_calls() -> dict[str, tuple[str, tuple, dict]]:
    return {
        "dtype": ("Linear", (torch.ones(2, 7, dtype=torch.float64),), {}),
        "features": ("Linear", (torch.ones(2, 6),), {}),
        "0-D": ("Linear", (torch.tensor(1.0),), {}),
        "channels": ("Conv2d k3", (torch.ones(2, 5, 9, 8),), {}),
        "too few axes": ("Conv2d k3", (torch.ones(9, 8),), {}),
        "too many axes": ("Conv2d k3", (torch.ones(1, 1, 6, 9, 8),), {}),
        "a list": ("Conv2d k3", ([1.0],), {}),
        "no tensor": ("Linear", (None,), {}),
        "two inputs": ("Linear", (torch.ones(2, 7), torch.ones(2, 7)), {}),
        "unknown word": ("Conv2d k3", (torch.ones(2, 6, 9, 8),), {"stride": 2}),
        "no input": ("Linear", (), {}),
        "floats": ("Embedding", (torch.ones(3),), {}),
        "index": ("Embedding", (torch.tensor([11]),), {}),
        "size": ("ConvTranspose2d", (torch.ones(2, 6, 4, 5), [30, 30]), {}),
        "axes of a transposed one": ("ConvTranspose2d", (torch.ones(2, 6, 4, 5, 5),), {}),
    }


@pytest.mark.parametrize("bad", bad_calls())
def test_a_wrong_call_is_refused_in_torchs_own_words(bad: str) -> None:
    case, args, kwargs = bad_calls()[bad]
    with pytest.raises((RuntimeError, TypeError, ValueError, IndexError)) as want:
        layer_of(case)(*args, **kwargs)
    for path in ("auto", *PATHS):
        with pytest.raises(want.type) as got:
            adapted(case, path=path)(*args, **kwargs)
        words = str(want.value).split(".forward")[-1].split(" - got")[0].splitlines()[0]
        assert words in str(got.value)


# --- tables -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["tucker", "lora", "locon", "flora"])
@pytest.mark.parametrize("path", PATHS)
def test_the_row_of_padding_stays_and_gets_no_gradient(structure: str, path: str) -> None:
    plain = nn.Embedding(11, 6, padding_idx=3)
    layer = tucker_adapter(copy.deepcopy(plain), 2, structure=structure, path=path)
    optimizer = torch.optim.SGD(trained(layer).values(), lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        (layer(torch.arange(11)) - 1).square().sum().backward()
        optimizer.step()
    assert_equal(layer.weight[3].detach(), plain.weight[3].detach())
    assert_above((layer.weight - plain.weight).abs().amax(1).count_nonzero(), 10, "rows that changed")


def test_gradients_scaled_by_frequency_are_torchs() -> None:
    plain = nn.Embedding(11, 6, scale_grad_by_freq=True)
    layer = stir(tucker_adapter(copy.deepcopy(plain), 2))
    x = torch.tensor([1, 1, 1, 2, 7, 7])
    truth = oracle(layer, plain)
    truth(x).square().sum().backward()
    layer(x).square().sum().backward()
    term = layer.tenfac.named["default"]["weight"].terms[0]
    u, v = term.factors["0"].matrix.detach(), term.factors["1"].matrix.detach()
    assert_relative(term.core.tensor.grad, u.mT @ truth.weight.grad @ v, 1e-5)


def test_a_sparse_table_is_updated_by_its_factors() -> None:
    plain = nn.Embedding(11, 6, sparse=True)
    x = input_of("Embedding")
    layer = stir(tucker_adapter(copy.deepcopy(plain), 2))
    want = gradients(adapted("Embedding", path="fused"), x, "fused")
    got = gradients(layer, x, "auto")
    for name in want:
        assert_relative(got[name], want[name], 1e-5, name)
