"""Adapters in files of their own: one safetensors file with true shapes and a header that is checked.

The layout of the file, version 1: arrays ``<module>.<slot>.core`` and ``<module>.<slot>.factors.<mode>``
(with the number of the term after the slot where there are several, and the name of the array at the end
where a core has several), and the metadata key ``tenfac``, a JSON object with ``format_version``,
``tenfac_version``, ``name``, ``updates`` (for each its module, slot, layer, layout, the SHA-256 of the raw
bytes of the weight it was made for, and its terms) and ``trained``, the names of parameters and buffers that
were trained beside the adapter, whose arrays have the names they have in the model.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import DataError, MissingExtraError
from .beside import Beside, find, noted, put
from .checks import check_max_norm, check_name
from .layer import Adapted, Adapters, Slot, adapted_layers, attach
from .layout import Layout, layout_of
from .specs import build_update, describe_update
from .update import Update

VERSION = 1
_KEY = "tenfac"


@dataclass(frozen=True)
class Placement:
    """An update and its place in a model, where it is or is to be."""

    module: str
    layer: nn.Module
    slot: Slot
    update: Update
    path: str = "auto"


def save_adapter(model: nn.Module, path: str | os.PathLike[str], *, name: str = "default") -> None:
    """Write one adapter of a model, without the model's own weights, to one safetensors file.

    Parameters
    ----------
    model : Module
        With an adapter of this name on at least one layer, not merged.
    path : str or path-like
        An existing file is replaced in one step, only after everything is written.
    name : str
        The adapter.

    Raises
    ------
    ValueError
        If the model is merged or has no adapter of this name.
    DataError
        If the model is on the meta device, so that there are no numbers to save.
    MissingExtraError
        If safetensors is not installed.

    Notes
    -----
    Cost: the arrays once, and one pass over the bytes of every adapted weight for its SHA-256. What ``adapt``
    trained beside the adapter (``also_train``: a head, biases, running statistics) is in the file as it is in
    the model now; the weight given to ``activate`` is not.

    References
    ----------
    .. [1] Hugging Face, Safetensors: format. https://huggingface.co/docs/safetensors

    Examples
    --------
    >>> import os, tempfile
    >>> from torch import nn
    >>> from tenfac import tucker_adapter
    >>> model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3))
    >>> _ = tucker_adapter(model[1], rank=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "adapter.safetensors")
    ...     save_adapter(model, path)
    ...     bare = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3))
    ...     _ = bare.load_state_dict(model.state_dict(), strict=False)
    ...     load_adapter(bare, path)[1].tenfac
    Adapters(default: weight (4, 4, 3, 3), 272 trainable numbers; on)
    """
    where = "save_adapter"
    _safetensors(where)
    entries, arrays = [], {}
    for found in updates_of(model, name, where):
        layout = found.update.layout
        key = ".".join(part for part in (found.module, found.slot.name) if part)
        terms, own = describe_update(found.update, key)
        arrays.update(own)
        weight = found.slot.of(found.layer._parameters[found.slot.parameter])
        entries.append(
            {
                "module": found.module,
                "slot": found.slot.name,
                "parameter": found.slot.parameter,
                "rows": found.slot.rows,
                "layer": layer_type(found.layer),
                "kind": layout.kind,
                "shape": layout.shape,
                "groups": layout.groups,
                "base_sha256": None if weight.is_meta else fingerprint(weight),
                "base_dtype": str(weight.dtype).removeprefix("torch."),
                "path": found.path,
                "rank": found.update.rank,
                "recipe": found.update.recipe,
                "terms": terms,
            }
        )
    trained = trained_beside(model, name, where)
    write_tensors(path, {**arrays, **trained}, {_KEY: _header(name, entries, list(trained))}, where)


def trained_beside(model: nn.Module, name: str, where: str) -> dict[str, Tensor]:
    """What was trained beside an adapter, by name."""
    found = {label: beside.value for label, beside in noted(unwrap(model), name)}
    for label, value in found.items():
        if value.is_meta:
            raise DataError(
                f"{where}: {label!r} must have numbers; it is on the meta device. Load them first."
            )
    return found


def _header(name: str, entries: list[dict[str, Any]], trained: list[str]) -> str:
    import tenfac

    return json.dumps(
        {
            "format_version": VERSION,
            "tenfac_version": tenfac.__version__,
            "name": name,
            "updates": entries,
            "trained": trained,
        },
        default=str,
    )


def load_adapter(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    activate: bool = True,
    strict_base: bool = True,
    also_trained: bool = True,
) -> nn.Module:
    """Put an adapter that ``save_adapter`` wrote on a model, bare or already adapted.

    Parameters
    ----------
    model : Module
        Changed in place: its layers keep their classes, its weights are frozen where an update is put.
    path : str or path-like
    name : str, optional
        Name to give the adapter; the file's own by default.
    activate : bool
        Whether it acts at once, with weight 1.
    strict_base : bool
        Whether every weight must have the bytes that the adapter was made for. False allows a cast or
        fine-tuned base of the same shapes.
    also_trained : bool
        Whether what was trained beside the adapter (``also_train`` of ``adapt``: a head) is written into the
        model. It is the model's own from then on, whichever adapter acts, and stays when they are taken off.

    Returns
    -------
    Module
        ``model``.

    Raises
    ------
    DataError
        If the file is not an adapter of tenfac, is damaged or newer than this tenfac, or if the model lacks
        a layer or has one of another type, shape, number of groups or weight; if what was trained beside the
        adapter was trained otherwise beside another one, or is adapted in the model.
    ValueError
        If the model is merged or has an adapter of this name already.
    MissingExtraError
        If safetensors is not installed.

    Notes
    -----
    Everything is checked before anything is touched. Arrays go to the device of their weight, and keep their
    dtype unless the base has another than it had; a base on the meta device cannot be compared, and its
    updates stay on the CPU. Layers that get an update are frozen, and what was trained beside it trains on;
    the others stay as they are.

    References
    ----------
    .. [1] Hugging Face, Safetensors: format. https://huggingface.co/docs/safetensors

    Examples
    --------
    >>> import os, tempfile
    >>> import torch
    >>> from torch import nn
    >>> from tenfac import tucker_adapter
    >>> base = nn.Linear(32, 32)
    >>> bare = nn.Linear(32, 32)
    >>> _ = bare.load_state_dict(base.state_dict())
    >>> adapted = tucker_adapter(base, rank=2, structure="lora")
    >>> _ = torch.nn.init.normal_(adapted.tenfac.named["default"]["weight"].terms[0].factors["0"].matrix)
    >>> x = torch.randn(4, 32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "adapter.safetensors")
    ...     save_adapter(adapted, path)
    ...     torch.equal(load_adapter(bare, path)(x), adapted(x))
    True
    """
    where = "load_adapter"
    if hasattr(path, "named_parameters"):
        raise DataError(
            f"{where}: `path` must name a file; got a {type(path).__name__}. The model comes first."
        )
    path = os.fspath(path)
    header, arrays = _read(path)
    name = header["name"] if name is None else name
    refuse_place(model, name, where)
    modules = modules_of(model)
    problems: list[str] = []
    plans = []
    try:
        for entry in header["updates"]:
            plan = _plan(entry, arrays, modules, strict_base, problems)
            plans += [plan] if plan is not None else []
        beside = _beside(header, arrays, modules, problems) if also_trained else []
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"{where}: {path!r} is damaged: {type(error).__name__} {error}. Copy or save it again."
        ) from error
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise DataError(
            f"{where}: {path!r} must fit the model; {'; '.join(problems[:3])}{more}. Load it on the model it "
            "was made for."
        )
    place(plans, name, activate, where)
    put(beside, name)
    return model


def _beside(
    header: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    problems: list[str],
) -> list[tuple[Beside, Tensor]]:
    """What was trained beside the adapter, and where it is to be put."""
    found = [find(label, arrays[label], modules, problems) for label in header.get("trained", [])]
    return [pair for pair in found if pair is not None]


def _plan(
    entry: Mapping[str, Any],
    arrays: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    strict_base: bool,
    problems: list[str],
) -> Placement | None:
    """The update of one entry of a header, or None and what is wrong with it."""
    module = entry["module"]
    if module not in modules:
        problems.append(f"there is no module {module!r}{near(module, modules)}")
        return None
    layer, rows = modules[module], entry["rows"]
    slot = Slot(entry["slot"], entry["parameter"], None if rows is None else (int(rows[0]), int(rows[1])))
    weight = layer._parameters.get(slot.parameter)
    if weight is None:
        problems.append(f"{module or 'the layer'} has no parameter {slot.parameter!r}")
        return None
    weight = slot.of(weight)
    layout = layout_of(layer, slot.parameter, tuple(weight.shape))
    problem = _misfit(entry, layer, layout, weight, strict_base)
    if problem:
        problems.append(f"{module or 'the layer'} {problem}")
        return None
    same = str(weight.dtype).removeprefix("torch.") == entry["base_dtype"]
    dtype = None if same else torch.promote_types(weight.dtype, torch.float32)
    update = build_update(entry, arrays, layout, dtype)
    return Placement(module, layer, slot, update, entry["path"])


def _misfit(
    entry: Mapping[str, Any], layer: nn.Module, layout: Layout, weight: Tensor, strict_base: bool
) -> str | None:
    if layout.kind != entry["kind"]:
        return f"is of type {layer_type(layer)}, where the file has {entry['layer']}"
    if list(layout.shape) != list(entry["shape"]):
        return f"has a weight of shape {layout.shape}, where the file has {tuple(entry['shape'])}"
    if layout.groups != entry["groups"]:
        return f"has {layout.groups} groups, where the file has {entry['groups']}"
    known = strict_base and not weight.is_meta and entry["base_sha256"] is not None
    if known and fingerprint(weight) != entry["base_sha256"]:
        return (
            "has other weights than the adapter was made for (SHA-256 differs; strict_base=False loads it on "
            "them all the same)"
        )
    return None


# --- models -----------------------------------------------------------------------------------------------


def updates_of(model: nn.Module, name: str, where: str) -> list[Placement]:
    """Every update of one adapter of a model; refused where it is merged, or there is none."""
    layers = list(adapted_layers(unwrap(model)))
    for module, layer in layers:
        if layer.tenfac.merged:
            raise ValueError(f"{where}: {module or 'the layer'} is merged; call unmerge(model) first.")
    found = [
        Placement(module, layer, slot, layer.tenfac.named[name][slot.name], layer.tenfac.path)
        for module, layer in layers
        for slot in layer.tenfac.slots
        if name in layer.tenfac.named and slot.name in layer.tenfac.named[name]
    ]
    if not found:
        names = sorted({key for _, layer in layers for key in layer.tenfac.named})
        has = f"it has {', '.join(map(repr, names))}" if names else "it has none; adapt it first"
        raise ValueError(f"{where}: the model must have an adapter named {name!r}; {has}.")
    if any(p.is_meta for one in found for p in one.update.parameters()):
        raise DataError(f"{where}: the adapter must have numbers; it is on the meta device. Load them first.")
    return found


def refuse_place(model: nn.Module, name: Any, where: str) -> None:
    """Refuse to put an adapter on a model that is merged or has one of this name."""
    check_name(name, where)
    for module, layer in adapted_layers(unwrap(model)):
        at = module or "the layer"
        if layer.tenfac.merged:
            raise ValueError(f"{where}: {at} is merged; call unmerge(model) first.")
        if name in layer.tenfac.named:
            raise ValueError(
                f"{where}: {at} already has an adapter named {name!r}; give another `name`, or detach it "
                "first."
            )


def place(plans: Iterable[Placement], name: str, activate: bool, where: str) -> None:
    """Put updates on their layers, after every one was found to be possible."""
    plans = list(plans)
    for plan in plans:
        check_max_norm(plan.layer, f"{where}: {plan.module or 'the layer'}")
    for plan in plans:
        weight = plan.layer._parameters[plan.slot.parameter]
        adapters: Adapters = attach(plan.layer, (plan.slot,), plan.path)
        if name not in adapters.named:
            adapters.named[name] = nn.ModuleDict()
        adapters.named[name][plan.slot.name] = plan.update.to("cpu" if weight.is_meta else weight.device)
        adapters.train(plan.layer.training)
        if activate:
            adapters.active.setdefault(name, 1.0)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside of ``torch.compile`` and of data-parallel wrappers."""
    while True:
        if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            model = model.module
        elif "_orig_mod" in model._modules:
            model = model._modules["_orig_mod"]
        else:
            return model


def modules_of(model: nn.Module) -> dict[str, nn.Module]:
    """The model's own modules by name, tenfac's left out; a shared one under each of its names."""
    named = unwrap(model).named_modules(remove_duplicate=False)
    return {name: module for name, module in named if "tenfac" not in name.split(".")}


def near(module: str, modules: Mapping[str, nn.Module]) -> str:
    """Names like the one not found, for a message."""
    close = difflib.get_close_matches(module, modules, n=3)
    return f" (near: {', '.join(close)})" if close else ""


def layer_type(layer: nn.Module) -> str:
    """The class of torch that a layer is, or its own where it is none."""
    own = type(layer)._made_of[0] if isinstance(layer, Adapted) else type(layer)
    torch_own = (kind for kind in own.__mro__ if kind.__module__.startswith("torch.nn.modules."))
    kind = next(torch_own, nn.Module)
    return (own if kind is nn.Module else kind).__name__


def fingerprint(weight: Tensor) -> str:
    """SHA-256 of a weight's raw bytes, in C order."""
    raw = weight.detach().cpu().contiguous().view(torch.uint8).numpy()
    return hashlib.sha256(raw).hexdigest()


# --- files ------------------------------------------------------------------------------------------------


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, Tensor], metadata: Mapping[str, str], where: str
) -> None:
    """Write a safetensors file beside the target, then put it in its place."""
    _safetensors(where)
    from safetensors.torch import save

    host = {key: array.detach().cpu().contiguous().clone() for key, array in arrays.items()}
    write_bytes(path, save(host, metadata=dict(metadata)))


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file beside the target, then put it in its place."""
    folder, name = os.path.split(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"there is no folder {folder!r} to write {name!r} to. Make it first.")
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, os.path.join(folder, name))
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


def read_tensors(path: str, where: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and arrays of a safetensors file, on the CPU."""
    _safetensors(where)
    from safetensors import SafetensorError, safe_open

    if os.path.isdir(path):
        raise DataError(
            f"{where}: {path!r} must be a safetensors file; it is a folder. Those of PEFT are read "
            "by import_peft."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DataError(
            f"{where}: {path!r} must be a safetensors file; it is none, or damaged: {error}."
        ) from error


def _read(path: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and arrays of an adapter's file."""
    metadata, arrays = read_tensors(path, "load_adapter")
    try:
        header = json.loads(metadata[_KEY])
        version, saved_by = header["format_version"], header["tenfac_version"]
        known = isinstance(header["name"], str) and isinstance(header["updates"], list)
    except (KeyError, TypeError, json.JSONDecodeError):
        known = False
    if not known:
        raise DataError(
            f"load_adapter: {path!r} is not an adapter of tenfac. Write it with save_adapter; files of PEFT "
            "are read by import_peft, and of LyCORIS by import_lycoris."
        )
    if not isinstance(version, int) or version > VERSION:
        raise DataError(
            f"load_adapter: {path!r} has file format version {version} (written by tenfac {saved_by}); this "
            f"tenfac reads versions up to {VERSION}. Update it: pip install -U tenfac."
        )
    return header, arrays


def _safetensors(where: str) -> None:
    try:
        import safetensors.torch  # noqa: F401 (whether it is installed is what is asked)
    except ImportError as error:
        raise MissingExtraError(
            f"`{where}` needs safetensors. Install it with: pip install 'tenfac[adapters]'."
        ) from error
