"""Tensors and bytes on disk: written whole or not at all, read and refused with the file's name."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping

from torch import Tensor

from tenfac.core.errors import DataError, MissingExtraError


def write_tensors(
    path: str | os.PathLike[str], arrays: Mapping[str, Tensor], metadata: Mapping[str, str], where: str
) -> None:
    """Write a safetensors file beside the target, then put it in its place."""
    need_safetensors(where)
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
    need_safetensors(where)
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


def need_safetensors(where: str) -> None:
    """Refuse to go on without safetensors, before anything is written."""
    try:
        import safetensors.torch  # noqa: F401 (whether it is installed is what is asked)
    except ImportError as error:
        raise MissingExtraError(
            f"`{where}` needs safetensors. Install it with: pip install 'tenfac[adapters]'."
        ) from error
