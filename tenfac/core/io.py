"""Save and load: one zip of plain arrays and a JSON header, never pickle.

The layout of the file, version 1: ``header.json`` with the keys ``format`` ("tenfac"), ``format_version``,
``tenfac_version``, ``type`` (a public name), ``state`` (what the object says of itself) and ``arrays`` (name
to library), and one ``NAME.npy`` per array, which ``numpy.load`` can read on its own. The key
``bfloat16`` names the arrays that were written as float32, if there are any.
"""

from __future__ import annotations

import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from tenfac.core.arrays import library_name, namespace_of, to_numpy
from tenfac.core.door import door
from tenfac.core.errors import DataError, MissingExtraError
from tenfac.core.precision import dtype_name

_VERSION = 1
_HEADER = "header.json"
_MODULES = {"torch": "torch", "jax": "jax.numpy", "array_api_strict": "array_api_strict"}


class _Arrays(dict):
    """Arrays by name; a missing one is answered in words."""

    def __missing__(self, name: str) -> Any:
        raise DataError(
            f"load: the file must hold the array {name!r}; got {sorted(self)}. Save the object again."
        )


@door
def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a format or fitted estimator to one file.

    Parameters
    ----------
    obj : Tucker, CP or another savable object
        A tensor of TensorLy, or ``(core, factors)``, is written as the format it is.
    path : str or path-like
        File name, kept as given; an existing file is replaced in one step, only after everything is written.

    Raises
    ------
    DataError
        If the object cannot be saved.

    Notes
    -----
    A zip with one ``.npy`` per array and a JSON header; numbers come back bit by bit, torch arrays as torch
    arrays on the CPU without gradient. Cost: one pass over the arrays.

    References
    ----------
    .. [1] NumPy developers, NEP 1: A simple file format for NumPy arrays.
       https://numpy.org/neps/nep-0001-npy-format.html

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from tenfac import Tucker
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.tenfac")
    ...     save(Tucker(np.ones((1, 1)), [np.ones((3, 1)), np.ones((4, 1))]), path)
    ...     load(path)
    Tucker(shape=(3, 4), rank=(1, 1), numpy.float64, 8 numbers for 12 entries)
    """
    import tenfac
    from tenfac.core.interchange import as_format

    obj = as_format(obj)
    name = type(obj).__name__
    if not hasattr(obj, "_to_state") or _find_public(name) is not type(obj):
        raise DataError(
            "save: the object must be a tenfac format or a fitted estimator; got "
            f"{type(obj).__module__}.{name}. {_instead(obj, path)}"
        )
    state, arrays = obj._to_state()
    brains = [key for key, array in arrays.items() if dtype_name(array.dtype) == "bfloat16"]
    header = {
        "format": "tenfac",
        "format_version": _VERSION,
        "tenfac_version": tenfac.__version__,
        "type": name,
        "state": state,
        "arrays": {key: library_name(array) for key, array in arrays.items()},
        **({"bfloat16": brains} if brains else {}),
    }
    try:
        text = json.dumps(header)
    except (TypeError, ValueError) as error:
        raise DataError(f"save: the state of {name} must be plain JSON; {error}.") from error
    host = {key: _to_host(array) for key, array in arrays.items()}
    for key, array in host.items():
        if array.dtype.hasobject:
            raise DataError(f"save: arrays must hold numbers; {name}.{key} has dtype {array.dtype}.")
    _write(os.path.realpath(path), text, host)


def _instead(obj: Any, path: Any) -> str:
    """What to do with something that is not saved here."""
    if isinstance(obj, str | os.PathLike) and hasattr(path, "_to_state"):
        return "The object comes first: save(obj, path)."
    if hasattr(obj, "named_parameters"):
        return "Save adapters with tenfac.save_adapter, whole models with torch.save."
    if hasattr(obj, "to_datatree"):
        return "Keep its draws by post.to_datatree().to_netcdf(path)."
    return "Save arrays with numpy.save."


def _to_host(array: Any) -> np.ndarray:
    """An array as numpy can write it; bfloat16 as float32, which holds the same numbers."""
    if dtype_name(array.dtype) == "bfloat16":
        array = namespace_of(array).astype(array, namespace_of(array).float32)
    return to_numpy(array)


def _write(path: str, header: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write to a new file beside the target, then put it in its place."""
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"save: there is no folder {folder!r}. Make it first.")
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(6)}.tmp")
    try:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.writestr(_HEADER, header)
                for key, array in arrays.items():
                    with archive.open(f"{key}.npy", "w", force_zip64=True) as entry:
                        np.lib.format.write_array(entry, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise


@door
def load(path: str | os.PathLike[str]) -> Any:
    """Read an object that ``save`` wrote.

    Parameters
    ----------
    path : str or path-like

    Returns
    -------
    object
        Of the type that was saved.

    Raises
    ------
    DataError
        If the file is not a tenfac file, is damaged, lacks an array, or was written by a newer tenfac.
    MissingExtraError
        If its arrays are of a library that is not installed.
    FileNotFoundError
        If there is no such file.

    Notes
    -----
    Nothing in the file is executed: arrays are read without pickle, and only public classes of tenfac are
    built.

    References
    ----------
    .. [1] NumPy developers, NEP 1: A simple file format for NumPy arrays.
       https://numpy.org/neps/nep-0001-npy-format.html

    Examples
    --------
    >>> import os, tempfile
    >>> import numpy as np
    >>> from tenfac import CP
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "x.tenfac")
    ...     save(CP(None, [np.ones((3, 2)), np.ones((4, 2))]), path)
    ...     load(path).at(2, 3)
    np.float64(2.0)
    """
    path = os.fspath(path)
    header, arrays = _read(path)
    saved = header["format_version"]
    if not isinstance(saved, int) or saved > _VERSION:
        raise DataError(
            f"load: {path!r} has file format version {saved} (written by tenfac "
            f"{header.get('tenfac_version')}); this tenfac reads versions up to {_VERSION}. Update it: pip "
            "install -U tenfac."
        )
    missing = sorted(set(header["arrays"]) - set(arrays))
    if missing:
        raise DataError(
            f"load: {path!r} must hold the arrays {missing}; they are missing. Save the object again."
        )
    converted = _Arrays((key, _as_library(arrays[key], lib)) for key, lib in header["arrays"].items())
    for key in header.get("bfloat16", ()):
        xp = namespace_of(converted[key])
        converted[key] = xp.astype(converted[key], getattr(xp, "bfloat16", "bfloat16"))
    try:
        return public_class(header["type"])._from_state(header["state"], converted)
    except (KeyError, AttributeError) as error:
        raise DataError(
            f"load: {path!r} does not describe a {header['type']}: {type(error).__name__} {error}. Save the "
            "object again."
        ) from error


def _read(path: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    remedy = "Write it with tenfac.save."
    if path.endswith(".safetensors"):
        remedy = "Read adapters with tenfac.load_adapter(model, path)."
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if _HEADER not in names:
                raise DataError(f"load: {path!r} is not a tenfac file: it has no {_HEADER}. {remedy}")
            header = json.loads(archive.read(_HEADER))
            arrays = {}
            for name in names:
                if name.endswith(".npy"):
                    with archive.open(name) as entry:
                        arrays[name.removesuffix(".npy")] = np.lib.format.read_array(
                            entry, allow_pickle=False
                        )
                        entry.read()  # to the end, where the checksum is compared
    except zipfile.BadZipFile as error:
        with open(path, "rb") as file:
            ours = file.read(4) == b"PK\x03\x04"
        if not ours:
            raise DataError(f"load: {path!r} is not a tenfac file. {remedy}") from error
        raise DataError(f"load: {path!r} is damaged or cut short: {error}. Copy or save it again.") from error
    except (EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError, NotImplementedError) as error:
        raise DataError(f"load: {path!r} is damaged: {error}. Copy or save it again.") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"load: an array in {path!r} is damaged: {error}. Copy or save it again.") from error
    keys = ("format_version", "type", "state", "arrays")
    if (
        not isinstance(header, dict)
        or header.get("format") != "tenfac"
        or any(key not in header for key in keys)
    ):
        raise DataError(f"load: {path!r} is not a tenfac file: its header says otherwise. {remedy}")
    return header, arrays


def _as_library(array: np.ndarray, library: str) -> Any:
    """Bring a numpy array to the library it was saved from."""
    if library == "numpy":
        return array
    if library not in _MODULES:
        raise DataError(
            f"load: an array was saved from the library {library!r}, which this tenfac does not know."
        )
    try:
        module = import_module(_MODULES[library])
    except ImportError as error:
        package = "tenfac[torch]" if library == "torch" else library
        raise MissingExtraError(
            f"load: the file holds arrays of {library}, which is not installed. Install it with: pip install "
            f"'{package}'."
        ) from error
    return namespace_of(module.asarray(array)).asarray(array)


def _find_public(name: str) -> Any:
    import tenfac

    return getattr(tenfac, name) if name in tenfac.__all__ else None


def public_class(name: str) -> Any:
    """Find a class by its public name in ``tenfac``.

    Raises
    ------
    DataError
        If there is no such class.

    Examples
    --------
    >>> public_class("Discrete")
    <class 'tenfac.core.modes.discrete.Discrete'>
    """
    found = _find_public(name)
    if not isinstance(found, type):
        raise DataError(
            f"load: the file holds a {name!r}, which this tenfac does not know. Update it: pip install -U "
            "tenfac."
        )
    return found
