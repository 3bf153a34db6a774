"""Adapters in PEFT's files, read and written by the real PEFT."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file  # noqa: E402
from torch import nn  # noqa: E402

from tenfac import DataError, adapt, export_peft, import_peft, tucker_adapter  # noqa: E402
from tenfac.adapters.layer import merge_layer  # noqa: E402
from tests.adapters.helpers import Raw, fill, outputs  # noqa: E402
from tests.checks import assert_above, assert_equal, assert_relative, assert_says  # noqa: E402

TOL = 1e-6


@pytest.fixture(scope="module")
def peft() -> Any:
    """The real PEFT; importing it and transformers warns of things that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("peft")


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 12), {"rank": 3, "scale": 0.5}, (4, 8)),
    "linear, wide core": (lambda: nn.Linear(8, 12), {"rank": (None, 2)}, (4, 8)),
    "linear, lora": (lambda: nn.Linear(8, 12), {"rank": 2, "structure": "lora"}, (4, 8)),
    "conv1d, same": (lambda: nn.Conv1d(6, 8, 3, padding="same"), {"rank": 2}, (2, 6, 9)),
    "conv2d": (lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), {"rank": (3, 2, None, None)}, (2, 6, 9, 9)),
    "conv2d, kernel factors": (lambda: nn.Conv2d(6, 8, 3), {"rank": (3, 2, 2, 1)}, (2, 6, 7, 7)),
    "conv2d, one point": (lambda: nn.Conv2d(8, 8, 1, dilation=2), {"rank": 3}, (2, 8, 5, 5)),
    "conv2d, circular but unpadded": (
        lambda: nn.Conv2d(6, 8, 3, padding_mode="circular"),
        {"rank": 2},
        (2, 6, 7, 7),
    ),
    "conv3d": (lambda: nn.Conv3d(4, 6, (1, 2, 3)), {"rank": 2}, (2, 4, 3, 4, 5)),
    "embedding": (lambda: nn.Embedding(12, 8, padding_idx=3), {"rank": 2, "scale": 2.0}, ()),
    "embedding, lora": (lambda: nn.Embedding(12, 8), {"rank": 2, "structure": "lora"}, ()),
}


def inputs(shape: tuple[int, ...]) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2)) if shape else torch.arange(12)


@pytest.mark.parametrize("case", CASES)
def test_peft_gives_the_same_outputs_and_its_file_comes_back(case: str, peft: Any, tmp_path: Path) -> None:
    make, options, shape = CASES[case]
    base, x = nn.Sequential(make()), inputs(shape)
    net = copy.deepcopy(base)
    fill(tucker_adapter(net[0], **options))
    export_peft(net, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    want = outputs(net, x)
    assert_above((want - outputs(base, x)).norm() / want.norm(), 1e-2, "the adapter must act")
    assert_relative(outputs(theirs, x), want, TOL)
    assert_relative(outputs(import_peft(base, tmp_path), x), want, TOL)


def test_several_terms_are_one_lora_of_their_ranks_together(peft: Any, tmp_path: Path) -> None:
    base, x = nn.Sequential(nn.Conv2d(6, 8, 3)), inputs((2, 6, 7, 7))
    net = copy.deepcopy(base)
    with pytest.warns(UserWarning, match="principal"):
        fill(tucker_adapter(net[0], rank=(3, 2, None, None), init="principal"))
    export_peft(net, tmp_path)
    assert_equal(json.loads((tmp_path / "adapter_config.json").read_text())["r"], 6)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path)
    assert_relative(outputs(theirs, x), outputs(net, x), TOL)


class WithHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(8, 12)
        self.head = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 3))

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(self.body(x)))


def test_modules_trained_beside_the_adapter_are_modules_to_save_both_ways(peft: Any, tmp_path: Path) -> None:
    net, x = WithHead(), inputs((5, 8))
    adapt(net, "body", rank=2, also_train="head")
    net(3 * x + 1)  # moves the running statistics
    fill(net)
    with torch.no_grad():
        net.head[1].weight += 0.5
    export_peft(net, tmp_path)
    want = outputs(net.eval(), x)
    theirs = peft.PeftModel.from_pretrained(WithHead(), str(tmp_path)).eval()
    assert_relative(outputs(theirs, x), want, TOL)
    theirs.save_pretrained(str(tmp_path / "theirs"))
    ours = import_peft(WithHead(), tmp_path / "theirs").eval()
    assert_relative(outputs(ours, x), want, TOL)
    assert_equal(ours.head[1].weight.requires_grad, True)
    other = WithHead()
    other.head[1] = nn.Linear(12, 4)
    before = other.body.weight.detach().clone()
    with pytest.raises(DataError, match=r"'head\.1\.weight' has shape \(4, 12\)"):
        import_peft(other, tmp_path)
    assert_equal(type(other.body), nn.Linear)
    assert_equal(other.body.weight.detach(), before)


def test_the_rank_is_that_of_the_narrower_side_of_the_core(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(8, 12), nn.Conv1d(12, 12, 2))
    fill(tucker_adapter(net[0], rank=(None, 2)))
    fill(tucker_adapter(net[1], rank=(9, 3, None)))
    export_peft(net, tmp_path)
    arrays = load_file(tmp_path / "adapter_model.safetensors")
    want = {"0.lora_A": (2, 8), "0.lora_B": (12, 2), "1.lora_A": (6, 12, 2), "1.lora_B": (12, 6, 1)}
    got = {
        key.removeprefix("base_model.model.").removesuffix(".weight"): tuple(a.shape)
        for key, a in arrays.items()
    }
    assert_equal(got, want)


class Net(nn.Module):
    """Names that end alike: PEFT would take ``inner.fc`` for ``fc``."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 12, 3)
        self.inner = nn.ModuleDict({"fc": nn.Linear(12, 16)})
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Any) -> Any:
        return self.fc(torch.relu(self.inner["fc"](self.conv(x).mean((2, 3)))))


def wrapped(model: Any) -> list[str]:
    return sorted(name for name, module in model.named_modules() if hasattr(module, "lora_A"))


def test_a_whole_model_has_its_rank_for_every_layer_and_no_layer_more(peft: Any, tmp_path: Path) -> None:
    base, x = Net(), inputs((2, 3, 6, 6))
    net = copy.deepcopy(base)
    fill(tucker_adapter(net.conv, rank=3))
    fill(tucker_adapter(net.fc, rank=2))
    export_peft(net, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_equal(wrapped(theirs.base_model.model), ["conv", "fc"])
    assert_relative(outputs(theirs, x), outputs(net, x), TOL)
    fill(tucker_adapter(net.inner["fc"], rank=2))
    export_peft(net, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert_equal(config["rank_pattern"], {"^conv": 3})
    assert_equal(config["target_modules"], ["conv", "inner.fc", "fc"])
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_relative(outputs(theirs, x), outputs(net, x), TOL)


class Attention(nn.Module):
    def __init__(self, **sizes: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.att = nn.MultiheadAttention(8, 2, **sizes)

    def forward(self, x: Any) -> Any:
        return self.att(x, x[..., : self.att.kdim], x[..., : self.att.vdim])[0]


def test_query_key_and_value_are_one_lora_of_the_packed_weight(peft: Any, tmp_path: Path) -> None:
    base, x = Attention().eval(), inputs((5, 2, 8))
    net = copy.deepcopy(base)
    fill(tucker_adapter(net.att, rank=2))
    core = net.att.out_proj.tenfac.named["default"]["weight"].terms[0].core.tensor
    with torch.no_grad():
        core.zero_()
    export_peft(net, tmp_path)
    theirs = peft.PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    assert_relative(outputs(theirs, x), outputs(net, x), TOL)
    again = import_peft(copy.deepcopy(base), tmp_path)
    assert_equal(sorted(again.att.tenfac.named["default"]), ["k", "q", "v"])
    assert_relative(outputs(again, x), outputs(net, x), TOL)


def test_peft_adds_the_update_of_the_output_projection_twice_so_it_is_refused(
    peft: Any, tmp_path: Path
) -> None:
    base, x = Attention().eval(), inputs((5, 2, 8))
    net = copy.deepcopy(base)
    fill(tucker_adapter(net.att, rank=2))
    with pytest.raises(DataError, match=r"att.out_proj is the output projection.*twice.*Merge the adapter"):
        export_peft(net, tmp_path)
    config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["att"], init_lora_weights=False)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    wrapper = theirs.base_model.model.att
    with torch.no_grad():
        wrapper.lora_B["default"].weight.zero_()
        inner = wrapper.base_layer.out_proj
        base.att.out_proj.weight += 2 * inner.lora_B["default"].weight @ inner.lora_A["default"].weight
    assert_relative(outputs(theirs, x), outputs(base, x), TOL)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(DataError, match=r"att.base_layer.out_proj is the output projection.*twice"):
        import_peft(Attention(), tmp_path)


@pytest.mark.parametrize("rslora", [False, True])
def test_a_lora_that_peft_trained_gives_the_same_outputs(rslora: bool, peft: Any, tmp_path: Path) -> None:
    base, x = Net(), inputs((2, 3, 6, 6))
    config = peft.LoraConfig(
        r=2,
        lora_alpha=5,
        rank_pattern={"inner.fc": 3, "conv": 4},
        alpha_pattern={"^fc": 7},
        use_rslora=rslora,
        target_modules=["fc", "conv"],
        init_lora_weights=False,
        lora_dropout=0.1,
    )
    theirs = peft.get_peft_model(copy.deepcopy(base), config).eval()
    theirs.save_pretrained(tmp_path)
    ours = import_peft(base, tmp_path, name="theirs")
    assert_equal(ours.conv.tenfac.named["theirs"]["weight"].rank, (4, 3, 3, 3))
    assert_equal(ours.inner["fc"].tenfac.named["theirs"]["weight"].rank, (3, 12))
    assert_relative(outputs(ours, x), outputs(theirs, x), TOL)


# --- refusals ---------------------------------------------------------------------------------------------


class Custom(nn.Conv2d):
    def forward(self, x: Any) -> Any:
        return torch.relu(super().forward(x))


REFUSED: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], str]] = {
    "groups": (lambda: nn.Conv2d(8, 8, 3, groups=2), {}, "0 has groups=2"),
    "transposed": (lambda: nn.ConvTranspose1d(8, 8, 3), {}, "0 is of type ConvTranspose1d"),
    "dilation": (lambda: nn.Conv2d(8, 8, 3, padding="same", dilation=2), {}, "0 has dilation=(2, 2)"),
    "padding": (lambda: nn.Conv1d(8, 8, 3, padding=1, padding_mode="reflect"), {}, "padding_mode='reflect'"),
    "custom": (lambda: Custom(8, 8, 3), {}, "0 has a forward pass of its own"),
    "raw": (Raw, {"parameter": "w"}, "0 has its update on a parameter that is no layer's own weight"),
    "attention": (lambda: nn.MultiheadAttention(8, 2, kdim=6), {}, "query, key and value of different sizes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_peft_cannot_hold_or_computes_wrongly_is_refused(case: str, tmp_path: Path) -> None:
    make, options, said = REFUSED[case]
    net = nn.Sequential(make())
    fill(tucker_adapter(net[0], rank=2, **options))
    with pytest.raises(DataError) as error:
        export_peft(net, tmp_path / "new")
    assert_says(error, "export_peft: ", said, "Merge the adapter into the weights, and save the model.")
    assert not (tmp_path / "new").exists()


def test_a_layer_alone_and_a_merged_model_are_refused(tmp_path: Path) -> None:
    layer = tucker_adapter(nn.Linear(8, 8), rank=2).eval()
    with pytest.raises(ValueError, match="PEFT wraps modules inside of a model"):
        export_peft(layer, tmp_path)
    net = nn.Sequential(layer)
    with pytest.raises(ValueError, match="must have an adapter named 'x'"):
        export_peft(net, tmp_path, name="x")
    merge_layer(layer)
    with pytest.raises(ValueError, match="0 is merged"):
        export_peft(net, tmp_path)
    with pytest.raises(ValueError, match="0 is merged"):
        import_peft(net, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA of rank 2 of the three layers of ``Net``."""
    net = Net()
    for layer in (net.conv, net.inner["fc"], net.fc):
        fill(tucker_adapter(layer, rank=2))
    export_peft(net, tmp_path)
    return tmp_path


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "LOHA"}, "must hold a LoRA; its peft_type is LOHA"),
        ({"use_dora": True}, "it is a DoRA (use_dora)"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights='pissa_niter_4' changes them"),
        ({"fan_in_fan_out": True}, "is for transposed weights (fan_in_fan_out)"),
        ({"bias": "all"}, "it has bias='all'"),
        ({"use_what_comes_next": 3}, "it has use_what_comes_next=3"),
        ({"r": 4}, "conv must have rank 4, as the settings say; its weights have 2"),
        ({"r": 4, "rank_pattern": {"conv": 2, "fc": 2, "i.*": 4}}, None),
    ],
)
def test_settings_of_anything_but_a_plain_lora_are_refused(
    changes: dict[str, Any], said: str | None, folder: Path
) -> None:
    change_config(folder, **changes)
    net = Net()
    if said is None:  # the pattern of the end of a name comes first
        import_peft(net, folder)
        return
    with pytest.raises(DataError) as error:
        import_peft(net, folder)
    assert_says(error, "import_peft: ", said)
    assert_equal(type(net.conv), nn.Conv2d)


def misnamed(arrays: dict[str, Any]) -> None:
    for side in "AB":
        key = f"base_model.model.inner.fc.lora_{side}.weight"
        arrays[key.replace("inner", "iner")] = arrays.pop(key)


def other_shape(arrays: dict[str, Any]) -> None:
    arrays["base_model.model.fc.lora_B.weight"] = torch.zeros(11, 2)


def magnitude(arrays: dict[str, Any]) -> None:
    arrays["base_model.model.fc.lora_magnitude_vector"] = torch.zeros(10)


def one_side(arrays: dict[str, Any]) -> None:
    del arrays["base_model.model.fc.lora_A.weight"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (misnamed, "there is no 'iner.fc' (near: inner.fc"),
        (
            other_shape,
            "fc must have lora_A of shape (2, 16) and lora_B of shape (10, 2); the file has (2, 16) and",
        ),
        (magnitude, "it has 'base_model.model.fc.lora_magnitude_vector'"),
        (one_side, "['fc'] lacks one or both"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, said: str, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path)
    net = Net()
    with pytest.raises(DataError) as error:
        import_peft(net, folder)
    assert_says(error, "import_peft: ", said)
    assert_equal([type(net.conv), type(net.fc)], [nn.Conv2d, nn.Linear])


def test_a_pickle_is_refused_and_a_name_that_is_taken_too(folder: Path) -> None:
    net = import_peft(Net(), folder, activate=False)
    assert_equal(net.fc.tenfac.active, {})
    with pytest.raises(ValueError, match="already has an adapter named 'default'"):
        import_peft(net, folder)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(DataError, match=r"adapter_model.bin, a pickle, which can run code"):
        import_peft(Net(), folder)


def test_a_lora_of_a_layer_where_peft_is_wrong_is_refused(folder: Path) -> None:
    net = Net()
    net.conv = nn.Conv2d(3, 12, 3, padding="same", dilation=2)
    with pytest.raises(DataError, match=r"conv has dilation=\(2, 2\).*its outputs cannot be kept"):
        import_peft(net, folder)
