"""Adapters in LyCORIS' files, read and written by the real LyCORIS."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from tenfac import DataError, export_lycoris, import_lycoris, tucker_adapter  # noqa: E402
from tests.adapters.helpers import Raw, fill, outputs  # noqa: E402
from tests.checks import assert_above, assert_equal, assert_relative, assert_says  # noqa: E402

TOL = 1e-6


@pytest.fixture(scope="module")
def lycoris() -> Any:
    """The real LyCORIS, without its log; importing it (and PEFT) warns of things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library = pytest.importorskip("lycoris")
    library.logging.logger.setLevel("ERROR")
    return library


def inputs(shape: tuple[int, ...]) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def applied(lycoris: Any, net: nn.Module, path: Path) -> nn.Module:
    """The net with the file applied by LyCORIS."""
    network, _ = lycoris.create_lycoris_from_weights(1.0, str(path), net)
    network.apply_to()
    assert_equal(len(network.loras), len({key.split(".")[0] for key in load_file(path)}))
    return net


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 12), {"rank": 3, "scale": 0.5}, (4, 8)),
    "linear, lora": (lambda: nn.Linear(8, 12), {"rank": 2, "structure": "lora"}, (4, 8)),
    "conv1d, same": (lambda: nn.Conv1d(8, 8, 3, padding="same"), {"rank": 2}, (2, 8, 9)),
    "conv2d": (lambda: nn.Conv2d(8, 12, 3, stride=2), {"rank": (3, 2, None, None)}, (2, 8, 9, 9)),
    "conv2d, dilated": (lambda: nn.Conv2d(8, 12, 3, dilation=2), {"rank": 2}, (2, 8, 9, 9)),
    "conv2d, groups": (lambda: nn.Conv2d(8, 12, 3, groups=2), {"rank": 2}, (2, 8, 5, 5)),
    "conv2d, one point": (lambda: nn.Conv2d(8, 12, 1), {"rank": 3}, (2, 8, 4, 4)),
    "conv2d, one whole mode": (lambda: nn.Conv2d(8, 12, 3), {"rank": (None, 1, None, None)}, (2, 8, 5, 5)),
    "conv2d, lora": (lambda: nn.Conv2d(8, 12, 3), {"rank": 2, "structure": "lora"}, (2, 8, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(8, 8, (1, 2, 3)), {"rank": (2, 3, 1, 2, 2)}, (2, 8, 3, 4, 5)),
}


@pytest.mark.parametrize("case", CASES)
def test_lycoris_gives_the_same_outputs_and_its_file_comes_back(
    case: str, lycoris: Any, tmp_path: Path
) -> None:
    make, options, shape = CASES[case]
    base, x, path = nn.Sequential(make()), inputs(shape), tmp_path / "locon.safetensors"
    net = copy.deepcopy(base)
    fill(tucker_adapter(net[0], **options))
    export_lycoris(net, path)
    want = outputs(net, x)
    assert_above((want - outputs(base, x)).norm() / want.norm(), 1e-2, "the adapter must act")
    assert_relative(outputs(applied(lycoris, copy.deepcopy(base), path), x), want, TOL)
    assert_relative(outputs(import_lycoris(base, path), x), want, TOL)


def test_terms_stand_on_the_diagonal_of_one_core(lycoris: Any, tmp_path: Path) -> None:
    base, x, path = nn.Sequential(nn.Conv2d(32, 32, 3)), inputs((2, 32, 5, 5)), tmp_path / "x.safetensors"
    net = copy.deepcopy(base)
    with pytest.warns(UserWarning, match="principal"):
        fill(tucker_adapter(net[0], rank=(3, 2, None, None), init="principal"))
    export_lycoris(net, path)
    assert_equal(tuple(load_file(path)["lycoris_0.lora_mid.weight"].shape), (6, 6, 3, 3))
    assert_relative(outputs(applied(lycoris, base, path), x), outputs(net, x), TOL)


def test_unequal_ranks_are_filled_with_zeros_and_the_smaller_form_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    net = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Conv2d(4, 16, 3))
    fill(tucker_adapter(net[0], rank=(4, 2, None, None)))
    fill(tucker_adapter(net[1], rank=(4, 2, None, None)))
    export_lycoris(net, path)
    arrays = load_file(path)
    want = {
        "lycoris_0.alpha": (),
        "lycoris_0.lora_down.weight": (4, 16, 1, 1),
        "lycoris_0.lora_mid.weight": (4, 4, 3, 3),
        "lycoris_0.lora_up.weight": (16, 4, 1, 1),
        "lycoris_1.alpha": (),
        "lycoris_1.lora_down.weight": (4, 4, 3, 3),
        "lycoris_1.lora_up.weight": (16, 4, 1, 1),
    }
    assert_equal({key: tuple(array.shape) for key, array in sorted(arrays.items())}, want)
    assert_equal(int(arrays["lycoris_0.lora_mid.weight"][:, 2:].count_nonzero()), 0)
    assert_equal(float(arrays["lycoris_0.alpha"]), 4.0)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(8, 12, 3)
        self.mid = nn.Sequential(nn.Conv2d(12, 12, 1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1))
        self.fc = nn.Linear(16, 8)

    def forward(self, x: Any) -> Any:
        return self.fc(self.mid(torch.relu(self.conv_in(x))).mean((2, 3)))


@pytest.mark.parametrize("tucker", [False, True])
def test_a_locon_that_lycoris_trained_gives_the_same_outputs(
    tucker: bool, lycoris: Any, tmp_path: Path
) -> None:
    base, x, path = Net(), inputs((2, 8, 7, 7)), tmp_path / "locon.safetensors"
    theirs = copy.deepcopy(base)
    network = lycoris.create_lycoris(
        theirs, 1.0, linear_dim=3, linear_alpha=2, conv_dim=2, conv_alpha=0.5, algo="locon", use_tucker=tucker
    )
    network.apply_to()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(inputs(tuple(parameter.shape)) / 3)
    network.save_weights(str(path), torch.float32, {})
    ours = import_lycoris(base, path, name="theirs")
    want = (2, 2, 3, 3) if tucker else (2, 8, 3, 3)
    assert_equal(ours.conv_in.tenfac.named["theirs"]["weight"].rank, want)
    assert_equal(ours.mid[0].tenfac.named["theirs"]["weight"].terms[0].scale, 2 / 3)
    assert_relative(outputs(ours, x), outputs(theirs, x), TOL)


def test_an_alpha_that_is_missing_or_zero_is_the_rank(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    arrays = {"lycoris_0.lora_up.weight": torch.ones(8, 2), "lycoris_0.lora_down.weight": torch.ones(2, 8)}
    for more in ({}, {"lycoris_0.alpha": torch.tensor(0.0)}):
        save_file({**arrays, **more}, path)
        net = import_lycoris(nn.Sequential(nn.Linear(8, 8)), path)
        assert_equal(net[0].tenfac.named["default"]["weight"].terms[0].scale, 1.0)


def test_keys_of_another_prefix_are_left_out_with_a_warning(tmp_path: Path) -> None:
    path, x = tmp_path / "x.safetensors", inputs((2, 8, 7, 7))
    net = Net()
    fill(tucker_adapter(net.fc, rank=2))
    export_lycoris(net, path, prefix="lora_unet")
    save_file({**load_file(path), "lora_te_fc.alpha": torch.tensor(1.0)}, path)
    with pytest.warns(UserWarning, match=r"1 entries .* do not start with 'lora_unet_' and are left out"):
        ours = import_lycoris(Net(), path, prefix="lora_unet")
    assert_relative(outputs(ours, x), outputs(net, x), TOL)
    with pytest.raises(DataError, match=r"must have keys that start with 'lycoris_'; it has lora_te_fc"):
        import_lycoris(Net(), path)
    with pytest.raises(ValueError, match="`prefix` must be a string without dots"):
        export_lycoris(net, path, prefix="a.b")


# --- refusals ---------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "padding": (
        lambda: nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"),
        {},
        "padding_mode='circular'",
    ),
    "transposed": (lambda: nn.ConvTranspose2d(8, 8, 3), {}, "0 is of type ConvTranspose2d"),
    "embedding": (lambda: nn.Embedding(12, 8), {}, "0 is an Embedding, which LyCORIS does not know"),
    "attention": (lambda: nn.MultiheadAttention(8, 2), {}, "0 belongs to a MultiheadAttention"),
    "raw": (Raw, {"parameter": "w"}, "0 has its update on a parameter that is no layer's own weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_lycoris_cannot_hold_or_computes_wrongly_is_refused(case: str, tmp_path: Path) -> None:
    make, options, said = REFUSED[case]
    net = nn.Sequential(make())
    fill(tucker_adapter(net[0], rank=2, **options))
    with pytest.raises(DataError) as error:
        export_lycoris(net, tmp_path / "x.safetensors")
    assert_says(error, "export_lycoris: ", said, "Merge the adapter into the weights, and save the model.")
    assert not (tmp_path / "x.safetensors").exists()


def test_two_modules_of_one_flat_name_are_refused(tmp_path: Path) -> None:
    net = nn.ModuleDict({"a_b": nn.Linear(8, 8), "a": nn.ModuleDict({"b": nn.Linear(8, 8)})})
    fill(tucker_adapter(net["a_b"], rank=2))
    with pytest.raises(DataError, match=r"'lycoris_a_b' stands for a_b and a.b. Rename one"):
        export_lycoris(net, tmp_path / "x.safetensors")


UP, DOWN = "lycoris_fc.lora_up.weight", "lycoris_fc.lora_down.weight"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lycoris_fc.dora_scale": torch.ones(8, 1)}, "'lycoris_fc.dora_scale' is of a DoRA"),
        ({"lycoris_fc.hada_w1_a": torch.ones(8, 1)}, "'lycoris_fc.hada_w1_a' is of a LoHa"),
        ({"lycoris_fc.lokr_w1": torch.ones(8, 1)}, "'lycoris_fc.lokr_w1' is of a LoKr"),
        ({UP: torch.ones(9, 2)}, "fc must have arrays of shapes"),
        ({"lycoris_fc.lora_mid.weight": torch.ones(3, 2)}, "fc must have arrays of shapes"),
        ({DOWN: None}, "fc must have arrays of shapes"),
        ({"lycoris_fd.alpha": torch.tensor(1.0)}, "there is none (near: lycoris_fc"),
        ({"lycoris_mid.alpha": torch.tensor(1.0)}, "mid must be a layer with a weight; it is a Sequential"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_before_anything_is_touched(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path, net = tmp_path / "x.safetensors", Net()
    fill(tucker_adapter(net.fc, rank=2))
    fill(tucker_adapter(net.conv_in, rank=2))
    export_lycoris(net, path)
    arrays = {**load_file(path), **changes}
    save_file({key: array for key, array in arrays.items() if array is not None}, path)
    bare = Net()
    with pytest.raises(DataError) as error:
        import_lycoris(bare, path)
    assert_says(error, "import_lycoris: ", said)
    assert_equal([type(bare.conv_in), type(bare.fc)], [nn.Conv2d, nn.Linear])


def test_a_locon_of_a_layer_where_lycoris_is_wrong_is_refused(tmp_path: Path) -> None:
    path, net = tmp_path / "x.safetensors", nn.Sequential(nn.Conv1d(8, 8, 3, padding=1))
    fill(tucker_adapter(net[0], rank=2))
    export_lycoris(net, path)
    other = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(DataError, match=r"padding_mode='reflect'.*its outputs cannot be kept"):
        import_lycoris(other, path)
    with pytest.raises(ValueError, match="0 already has an adapter named 'default'"):
        import_lycoris(net, path)
