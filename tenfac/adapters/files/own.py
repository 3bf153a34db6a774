"""Adapters in files of their own: one safetensors file with true shapes and a header that is checked.

The layout of the file, version 1: arrays ``<module>.<slot>.core`` and ``<module>.<slot>.factors.<mode>``
(with the number of the term after the slot where there are several, and the name of the array at the end
where a core has several), and the metadata key ``tenfac``, a JSON object with ``format_version``,
``tenfac_version``, ``name``, ``updates`` (for each its module, slot, layer, layout, the SHA-256 of the raw
bytes of the weight it was made for, and its terms) and ``trained``, the names of parameters and buffers that
were trained beside the adapter, whose arrays have the names they have in the model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.beside import Beside, find, put
from tenfac.adapters.files.disk import need_safetensors, read_tensors, write_tensors
from tenfac.adapters.files.placing import (
    Placement,
    fingerprint,
    layer_type,
    modules_of,
    near,
    place,
    refuse_place,
    trained_beside,
    updates_of,
)
from tenfac.adapters.files.specs import build_update, describe_update
from tenfac.adapters.layer import Slot
from tenfac.adapters.updates.layout import Layout, layout_of
from tenfac.core.door import door
from tenfac.core.errors import DataError

VERSION = 1
_KEY = "tenfac"


@door
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
    DataError
        If the model is merged or has no adapter of this name. If the model is on the meta device, so that
        there are no numbers to save.
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
    _check_order(model, path, where)
    need_safetensors(where)
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


def _check_order(model: Any, path: Any, where: str) -> None:
    """Refuse a model that is none, and a path that is a model: mostly the two in the wrong order."""
    if not isinstance(model, nn.Module):
        raise DataError(
            f"{where}: `model` must be a torch.nn.Module; got a {type(model).__name__}. The model comes "
            "first."
        )
    if isinstance(path, nn.Module):
        raise DataError(
            f"{where}: `path` must name a file; got a {type(path).__name__}. The model comes first."
        )


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


@door
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
        If the file is not an adapter of tenfac, is damaged or newer than this tenfac, or if the model
        lacks a layer or has one of another type, shape, number of groups or weight; if what was trained
        beside the adapter was trained otherwise beside another one, or is adapted in the model. If the
        model is merged or has an adapter of this name already.
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
    _check_order(model, path, where)
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


# --- files ------------------------------------------------------------------------------------------------


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
