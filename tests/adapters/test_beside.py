"""What trains beside an adapter goes with it into its file, and comes back, or is refused."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from tenfac import (
    DataError,
    adapt,
    adapter_report,
    detach,
    export_lycoris,
    export_peft,
    load_adapter,
    save_adapter,
)
from tenfac.adapters.beside import NOTE
from tests.adapters.nets import bits, images, resnet, stir
from tests.checks import assert_equal, assert_says

HEAD = ["fc.bias", "fc.weight"]


class Net(nn.Module):
    """A body to be adapted and a head with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(12, 16)
        self.head = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x)))


def trained(seed: int = 0, name: str = "default") -> nn.Module:
    net = resnet()
    adapt(net, "all-conv", rank=2, also_train="fc", name=name)
    return stir(net, seed=seed)


def unchanged(net: nn.Module, before: dict[str, Tensor]) -> None:
    now = bits(net)
    assert_equal(now.keys(), before.keys())
    for name, value in before.items():
        assert_equal(
            now[name] if not value.is_meta else now[name].shape, value if not value.is_meta else value.shape
        )


def noted(net: nn.Module) -> list[str]:
    return [name for name, module in net.named_modules() if NOTE in vars(module)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapter.safetensors"


def test_a_head_trained_beside_an_adapter_is_in_its_file_and_trains_on(path: Path) -> None:
    net, x = trained(), images()
    save_adapter(net, path)
    with safe_open(path, "pt") as file:
        assert_equal(sorted(json.loads(file.metadata()["tenfac"])["trained"]), HEAD)
    bare = resnet()
    for name, parameter in bare.named_parameters():
        parameter.requires_grad_(name.startswith("bn"))
    load_adapter(bare, path)
    assert_equal(bare(x).detach(), net(x).detach())
    assert_equal(sorted(adapter_report(bare).also_train), HEAD)


def test_running_statistics_of_layers_that_train_whole_are_in_the_file(path: Path) -> None:
    net, x = Net(), torch.randn(8, 12)
    adapt(net, "body", rank=2, also_train="head")
    net(x).square().sum().backward()
    stir(net)
    save_adapter(net, path)
    assert_equal(load_adapter(Net(), path).eval()(x), net.eval()(x))


@pytest.mark.parametrize("again", ["loaded", "copied"])
def test_what_was_loaded_or_copied_is_saved_again(again: str, path: Path) -> None:
    net = trained()
    save_adapter(net, path)
    other = copy.deepcopy(net) if again == "copied" else load_adapter(resnet(), path)
    first = path.read_bytes()
    save_adapter(other, path)
    assert_equal(path.read_bytes(), first)


def test_a_second_adapter_takes_the_head_that_trains_on_beside_it(path: Path) -> None:
    net = trained(name="a")
    adapt(net, "all-conv", rank=1, name="b")
    stir(net)
    save_adapter(net, path, name="b")
    assert_equal(load_adapter(resnet(), path).fc.weight, net.fc.weight)


def test_two_heads_are_not_written_over_each_other_in_silence(path: Path) -> None:
    save_adapter(trained(seed=1, name="a"), path, name="a")
    net = trained(seed=2, name="b")
    before, weight = bits(net), net.fc.weight.detach().clone()
    with pytest.raises(DataError) as error:
        load_adapter(net, path)
    assert_says(error, "'fc.weight' was trained beside", "also_trained")
    unchanged(net, before)
    load_adapter(net, path, also_trained=False)
    assert_equal(net.fc.weight.detach(), weight)
    same = load_adapter(resnet(), path)
    load_adapter(same, path, name="again")  # the same head twice is no conflict


def test_a_model_that_the_head_does_not_fit_is_refused_and_left_as_it_was(path: Path) -> None:
    save_adapter(trained(), path)
    for change, said in (
        (lambda net: setattr(net, "fc", nn.Linear(16, 7)), "'fc.weight' has shape (7, 16)"),
        (lambda net: setattr(net, "fc", nn.Identity()), "there is no parameter or buffer 'fc.weight'"),
        (lambda net: adapt(net, "fc", rank=2, name="other"), "'fc.weight' has an adapter"),
        (lambda net: net.fc.to("meta"), "'fc.weight' must have numbers"),
    ):
        net = resnet()
        change(net)
        before = bits(net)
        with pytest.raises(DataError) as error:
            load_adapter(net, path)
        assert_says(error, said)
        unchanged(net, before)
        assert_equal(noted(net), [])


def test_an_adapter_that_is_taken_off_takes_its_notes_along() -> None:
    net = trained(name="a")
    adapt(net, "all-conv", rank=1, name="b")
    detach(net, "a")
    assert_equal(noted(net), ["fc"])
    detach(net)
    assert_equal(noted(net), [])
    with pytest.raises(ValueError, match="must match") as error:
        adapt(net, "nothing", also_train="fc")
    assert_says(error, "`targets` must match")
    assert_equal(noted(net), [])


def test_what_files_of_other_libraries_leave_out_is_said(tmp_path: Path) -> None:
    net = Net()
    adapt(net, "body", rank=2, also_train=["head.1", "body.bias"])
    with pytest.warns(UserWarning, match=r"export_peft: .*not in the file \(body.bias\)"):
        export_peft(net, tmp_path / "peft")
    with pytest.warns(UserWarning, match="export_lycoris: .*not in the file"):
        export_lycoris(net, tmp_path / "locon.safetensors")
