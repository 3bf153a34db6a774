"""Files of adapters: what comes back, what the file says, and what is refused before anything is touched."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from tenfac import DataError, MissingExtraError, load_adapter, save_adapter, tucker_adapter  # noqa: E402
from tenfac.adapters.files.placing import Placement, fingerprint, place  # noqa: E402
from tenfac.adapters.files.specs import KINDS  # noqa: E402
from tenfac.adapters.layer import Slot, merge_layer  # noqa: E402
from tenfac.adapters.updates import pieces  # noqa: E402
from tenfac.adapters.updates.layout import layout_of  # noqa: E402
from tenfac.adapters.updates.update import Term, Update  # noqa: E402
from tests.adapters.helpers import fill  # noqa: E402
from tests.checks import assert_above, assert_equal, assert_relative, assert_says  # noqa: E402


class Experts(nn.Module):
    """Two stacks of weights that are no layer's own."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 6, 8))

    def forward(self, x: Any) -> Any:
        return torch.einsum("...i,eij->...ej", x, self.up)


def attend(layer: nn.Module, x: Any) -> Any:
    return layer(x, x[..., : layer.kdim], x[..., : layer.vdim])[0]


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 6), {"rank": 2}, (4, 8)),
    "conv1d": (lambda: nn.Conv1d(8, 6, 3), {"rank": 2}, (2, 8, 7)),
    "grouped conv2d": (lambda: nn.Conv2d(8, 12, 3, groups=2, padding=1), {"rank": 2}, (2, 8, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(4, 6, (1, 1, 3)), {"rank": (2, 2, 1, 1, 2)}, (2, 4, 2, 2, 5)),
    "conv transpose": (lambda: nn.ConvTranspose2d(8, 6, 3, groups=2), {"rank": 2}, (2, 8, 4, 4)),
    "embedding": (lambda: nn.Embedding(11, 6, padding_idx=2), {"rank": 2}, ()),
    "packed attention": (lambda: nn.MultiheadAttention(8, 2), {"rank": 2}, (3, 2, 8)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=4), {"rank": 1}, (3, 2, 8)),
    "experts": (Experts, {"parameter": "up", "rank": (2, 3, None)}, (4, 6)),
    "lora": (lambda: nn.Linear(8, 12), {"rank": 2, "structure": "lora", "scale": 0.25}, (4, 8)),
}


def outputs(layer: nn.Module, shape: tuple[int, ...]) -> Any:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=rng) if shape else torch.arange(10).reshape(2, 5)
    with torch.no_grad():
        return attend(layer, x) if isinstance(layer, nn.MultiheadAttention) else layer(x)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))
        self.head = nn.Linear(8, 6)

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x).mean((2, 3)))


def adapted(net: nn.Module | None = None, **options: Any) -> nn.Module:
    net = Net() if net is None else net
    for layer in (net.body[0], net.body[2], net.head):
        fill(tucker_adapter(layer, **{"rank": 2, **options}))
    return net


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adapter.safetensors"


X = (2, 4, 7, 7)


# --- round trips ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_bare_layer_with_the_loaded_adapter_gives_the_same_bits(case: str, path: Path) -> None:
    make, options, shape = CASES[case]
    base = make()
    bare, plain = copy.deepcopy(base), outputs(base, shape)
    layer = fill(tucker_adapter(base, **options))
    save_adapter(layer, path)
    assert load_adapter(bare, path) is bare
    assert_equal(outputs(bare, shape), outputs(layer, shape))
    assert_equal({k: tuple(v.shape) for k, v in bare.state_dict().items()}, shapes(layer))
    assert_equal(type(bare), type(layer))
    assert_above((outputs(bare, shape) - plain).abs().max(), 1e-2, "the adapter must act")


def shapes(layer: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in layer.state_dict().items()}


def test_what_was_learned_is_learned_again_and_what_was_frozen_is_not(path: Path) -> None:
    with pytest.warns(UserWarning, match="principal"):
        net = adapted(init="principal")
    save_adapter(net, path)
    bare = load_adapter(Net(), path)
    want = {name: p.requires_grad for name, p in net.named_parameters()}
    assert_equal({name: p.requires_grad for name, p in bare.named_parameters()}, want)
    assert_equal(len(bare.head.tenfac.named["default"]["weight"].terms), 2)
    assert_equal(outputs(bare, X), outputs(net, X))


def make_piece(kind: str) -> tuple[nn.Module, dict[int, nn.Module]]:
    """A core and factors for a weight of shape (6, 8) that use one kind of piece."""
    core = pieces.FullCore(torch.randn(6, 8))
    if kind == "ScaledCore":
        return pieces.ScaledCore(torch.randn(6), torch.randn(6, 8), 0), {}
    if kind == "KroneckerCore":
        return pieces.KroneckerCore(torch.randn(2, 4), torch.randn(3, 2)), {}
    if kind == "DenseFactor":
        return pieces.FullCore(torch.randn(2, 8)), {0: pieces.DenseFactor(torch.randn(6, 2))}
    if kind == "Selection":
        chosen = pieces.Selection(torch.tensor([5, 1]), 6, torch.float32)
        return pieces.FullCore(torch.randn(2, 8)), {0: chosen}
    if kind == "DiagonalFactor":
        return core, {1: pieces.DiagonalFactor(torch.randn(8))}
    return core, {}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_piece_comes_back(kind: str, path: Path) -> None:
    layer, bare = nn.Linear(8, 6), nn.Linear(8, 6)
    bare.load_state_dict(layer.state_dict())
    core, factors = make_piece(kind)
    assert kind in {type(piece).__name__ for piece in (core, *factors.values())}
    core.requires_grad_(kind != "FullCore")
    update = Update(
        [Term(core, factors, 0.5), Term(pieces.FullCore(torch.ones(6, 8)), {}, -1.5)],
        layout_of(layer, "weight"),
        {},
    )
    place([Placement("", layer, Slot("weight", "weight"), update)], "default", True, "test")
    save_adapter(layer, path)
    load_adapter(bare, path)
    again = bare.tenfac.named["default"]["weight"]
    assert_equal(again.delta().detach(), update.delta().detach())
    assert_equal(
        [p.requires_grad for p in again.parameters()], [p.requires_grad for p in update.parameters()]
    )


def test_a_bfloat16_base_is_told_from_another_and_keeps_its_adapter_in_float32(path: Path) -> None:
    base = nn.Linear(8, 6).bfloat16()
    bare, other = copy.deepcopy(base), nn.Linear(8, 6).bfloat16()
    save_adapter(fill(tucker_adapter(base, rank=2)), path)
    load_adapter(bare, path)
    assert_equal({p.dtype for p in bare.tenfac.parameters()}, {torch.float32})
    assert_equal(bare.weight.float(), base.weight.float())
    with pytest.raises(DataError, match="SHA-256"):
        load_adapter(other, path)


def test_a_cast_base_is_loaded_on_where_asked_and_decides_the_dtype(path: Path) -> None:
    net = adapted()
    wide = Net().double()
    save_adapter(net, path)
    load_adapter(wide, path, strict_base=False)
    assert_equal({p.dtype for p in wide.head.tenfac.parameters()}, {torch.float64})
    with torch.no_grad():
        assert_relative(wide.head.weight.float(), net.head.weight, 1e-6)


def test_an_adapter_for_a_base_without_numbers_keeps_its_own(path: Path) -> None:
    net = adapted()
    save_adapter(net, path)
    empty = load_adapter(Net().to("meta"), path, activate=False)
    assert_equal({p.device.type for p in empty.head.tenfac.parameters()}, {"cpu"})
    empty.load_state_dict(Net().state_dict(), assign=True)
    for layer in (empty.body[0], empty.body[2], empty.head):
        layer.tenfac.active["default"] = 1.0
    assert_equal(outputs(empty, X), outputs(net, X))


def test_two_adapters_stand_side_by_side_and_one_that_is_not_activated_does_nothing(path: Path) -> None:
    net = adapted(structure="lora", name="style")
    save_adapter(net, path, name="style")
    both = adapted()
    alone = outputs(both, X)
    load_adapter(both, path, activate=False)
    assert_equal(outputs(both, X), alone)
    load_adapter(both, path, name="again")
    assert_equal(sorted(both.head.tenfac.named), ["again", "default", "style"])
    assert_equal(both.head.tenfac.active, {"default": 1.0, "again": 1.0})
    delta = both.head.tenfac.named["again"]["weight"].delta().detach()
    assert_equal(delta, net.head.tenfac.named["style"]["weight"].delta().detach())


def test_data_parallel_and_compiled_models_have_the_names_of_the_model_inside(path: Path) -> None:
    net = adapted()
    compiled = nn.Module()
    compiled.add_module("_orig_mod", nn.DataParallel(net))  # what torch.compile returns holds it so
    save_adapter(compiled, path)
    assert_equal(outputs(load_adapter(Net(), path), X), outputs(net, X))
    assert_equal(outputs(load_adapter(nn.DataParallel(Net()), path).module, X), outputs(net, X))


# --- what the file says -----------------------------------------------------------------------------------


def read(path: Path) -> tuple[dict[str, Any], dict[str, tuple[int, ...]]]:
    with safe_open(path, "pt") as file:
        names = list(file.keys())
        return json.loads(file.metadata()["tenfac"]), {n: tuple(file.get_tensor(n).shape) for n in names}


def test_arrays_have_their_own_shapes_under_readable_names(path: Path) -> None:
    save_adapter(adapted(), path)
    _, arrays = read(path)
    want = {
        "body.0.weight.core": (2, 2, 3, 3),
        "body.0.weight.factors.0": (8, 2),
        "body.0.weight.factors.1": (4, 2),
        "body.2.weight.core": (2, 2, 3, 3),
        "body.2.weight.factors.0": (8, 2),
        "body.2.weight.factors.1": (4, 2),
        "head.weight.core": (2, 2),
        "head.weight.factors.0": (6, 2),
        "head.weight.factors.1": (8, 2),
    }
    assert_equal(arrays, want)


def test_several_terms_are_numbered(path: Path) -> None:
    layer = nn.Linear(8, 6)
    with pytest.warns(UserWarning, match="principal"):
        tucker_adapter(layer, rank=2, init="principal")
    save_adapter(layer, path)
    assert_equal(sorted(read(path)[1])[::3], ["weight.0.core", "weight.1.core"])


def test_the_header_says_what_the_adapter_is_and_what_it_was_made_for(path: Path) -> None:
    net = adapted(name="style", scale=0.5)
    save_adapter(net, path, name="style")
    header, _ = read(path)
    assert_equal((header["format_version"], header["name"], len(header["updates"])), (1, "style", 3))
    entry = header["updates"][1]
    said = [entry[key] for key in ("module", "slot", "layer", "kind", "shape", "groups", "rank")]
    assert_equal(said, ["body.2", "weight", "Conv2d", "conv", [8, 4, 3, 3], 2, [2, 2, 3, 3]])
    assert_equal((entry["recipe"]["init"], entry["recipe"]["scale"]), ("orthonormal", 0.5))
    assert_equal(entry["base_sha256"], fingerprint(Net().body[2].weight))


def test_the_fingerprint_is_that_of_the_bytes() -> None:
    import hashlib

    weight = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    bits = weight.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    assert_equal(fingerprint(weight.mT), hashlib.sha256(weight.mT.contiguous().numpy().tobytes()).hexdigest())
    assert_equal(fingerprint(weight.bfloat16()), hashlib.sha256(bits).hexdigest())


def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_adapter(adapted(), path)
    assert_equal(path.read_bytes(), b"old")
    assert_equal(os.listdir(path.parent), [path.name])


# --- refusals ---------------------------------------------------------------------------------------------


def other_shape(net: nn.Module) -> None:
    net.head = nn.Linear(8, 7)


def other_type(net: nn.Module) -> None:
    net.head = nn.Embedding(6, 8)


def other_groups(net: nn.Module) -> None:
    net.body[2] = nn.Conv2d(4, 8, 3)


def other_name(net: nn.Module) -> None:
    net.heads = net.head
    del net.head


def other_bits(net: nn.Module) -> None:
    with torch.no_grad():
        net.head.weight[0, 0] += 1e-3


def taken(net: nn.Module) -> None:
    tucker_adapter(net.body[0], rank=1)


def merged(net: nn.Module) -> None:
    merge_layer(tucker_adapter(net.body[0], rank=1, name="other").eval())


REFUSALS = [
    (other_shape, DataError, "head has a weight of shape (7, 8), where the file has (6, 8)"),
    (other_type, DataError, "head is of type Embedding, where the file has Linear"),
    (other_groups, DataError, "body.2 has 1 groups, where the file has 2"),
    (other_name, DataError, "there is no module 'head' (near: heads)"),
    (other_bits, DataError, "head has other weights than the adapter was made for (SHA-256 differs"),
    (taken, ValueError, "body.0 already has an adapter named 'default'"),
    (merged, ValueError, "body.0 is merged; call unmerge(model) first"),
]


@pytest.mark.parametrize(("change", "kind", "said"), REFUSALS, ids=[case[0].__name__ for case in REFUSALS])
def test_a_model_that_does_not_fit_is_refused_and_left_as_it_was(
    change: Callable[[nn.Module], None], kind: type[Exception], said: str, path: Path
) -> None:
    save_adapter(adapted(), path)
    net = Net()
    change(net)
    before = {name: type(module) for name, module in net.named_modules()}
    with pytest.raises(kind) as error:
        load_adapter(net, path)
    assert_says(error, "load_adapter: ", said)
    assert_equal({name: type(module) for name, module in net.named_modules()}, before)
    assert all(p.requires_grad for p in net.body[2].parameters())


def rewritten(path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """Write the file again with a changed header or arrays."""
    with safe_open(path, "pt") as file:
        arrays = {key: file.get_tensor(key) for key in list(file.keys())}
        header = json.loads(file.metadata()["tenfac"])
    change(header, arrays)
    save_file(arrays, path, {"tenfac": json.dumps(header)})


def newer(header: dict[str, Any], _: dict[str, Any]) -> None:
    header["format_version"] = 2


def unknown_piece(header: dict[str, Any], _: dict[str, Any]) -> None:
    header["updates"][0]["terms"][0]["core"]["kind"] = "Module"


def no_array(_: dict[str, Any], arrays: dict[str, Any]) -> None:
    del arrays["head.weight.core"]


def wrong_array(_: dict[str, Any], arrays: dict[str, Any]) -> None:
    arrays["head.weight.core"] = torch.zeros(2, 3)


def wrong_field(header: dict[str, Any], _: dict[str, Any]) -> None:
    del header["updates"][2]["terms"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (newer, ("has file format version 2", "reads versions up to 1", "pip install -U tenfac")),
        (unknown_piece, ("holds a 'Module', which this tenfac does not know",)),
        (no_array, ("is damaged: KeyError 'head.weight.core'",)),
        (wrong_array, ("mode 1 (in_features) has a factor of shape (8, 2) where (8, 3) is needed",)),
        (wrong_field, ("is damaged: KeyError 'terms'",)),
    ],
)
def test_a_file_that_says_something_else_is_refused(change: Any, said: tuple[str, ...], path: Path) -> None:
    save_adapter(adapted(), path)
    rewritten(path, change)
    net = Net()
    with pytest.raises(DataError) as error:
        load_adapter(net, path)
    assert_says(error, "load_adapter: ", *said)
    assert_equal(type(net.body[0]), nn.Conv2d)


def test_other_files_are_refused(path: Path) -> None:
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(DataError, match=r"is not an adapter of tenfac.*import_peft.*import_lycoris"):
        load_adapter(Net(), path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(DataError, match="must be a safetensors file; it is none, or damaged"):
        load_adapter(Net(), path)
    with pytest.raises(FileNotFoundError):
        load_adapter(Net(), path.with_name("none.safetensors"))


def test_saving_refuses_what_is_not_there(path: Path) -> None:
    net = adapted(name="style")
    with pytest.raises(ValueError, match="must have an adapter named 'default'; it has 'style'"):
        save_adapter(net, path)
    with pytest.raises(ValueError, match="it has none; adapt it first"):
        save_adapter(Net(), path)
    merge_layer(net.eval().head)
    with pytest.raises(ValueError, match=r"head is merged; call unmerge\(model\) first"):
        save_adapter(net, path, name="style")
    with pytest.raises(DataError, match="it is on the meta device"):
        save_adapter(tucker_adapter(nn.Linear(8, 8, device="meta"), rank=2), path)
    assert_equal(os.listdir(path.parent), [])


def test_every_piece_follows_the_dtype_of_another_base(path: Path) -> None:
    layer = fill(tucker_adapter(nn.Linear(6, 8), 2, structure="s2ft"))
    save_adapter(layer, path)
    update = load_adapter(nn.Linear(6, 8).double(), path, strict_base=False).tenfac.named["default"]["weight"]
    term = update.terms[0]
    made = [piece.value().dtype for piece in (term.core, *term.factors.values())]
    assert_equal(made, [torch.float64] * 2)


@pytest.mark.parametrize("name", ["", "a.b", 3, "keys"])
def test_a_name_that_cannot_be_a_key_is_refused(name: Any, path: Path) -> None:
    save_adapter(adapted(), path)
    with pytest.raises(ValueError, match="`name` must"):
        load_adapter(Net(), path, name=name)


def test_without_safetensors_the_extra_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = adapted()
    monkeypatch.setitem(__import__("sys").modules, "safetensors.torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tenfac\[adapters\]'"):
        save_adapter(net, path)


def test_folders_are_named_where_one_is_missing_or_given_for_a_file(tmp_path: Path) -> None:
    net = adapted()
    with pytest.raises(FileNotFoundError, match=r"no folder .*missing.* to write 'adapter'"):
        save_adapter(net, tmp_path / "missing" / "adapter")
    with pytest.raises(DataError, match=r"it is a folder\. .*import_peft"):
        load_adapter(Net(), tmp_path)
