"""Files that a command writes: refused before the work if they cannot be, announced after it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tenfac.core.errors import DataError


def check_writable(option: str, path: str | None, *inputs: str | None) -> None:
    """Refuse a file whose folder does not exist or may not be written to, and one that is read as well."""
    if path is None:
        return
    for source in inputs:
        if (
            source is not None
            and os.path.exists(source)
            and os.path.realpath(path) == os.path.realpath(source)
        ):
            raise DataError(f"{option} {path}: this file is read, and would be lost. Choose another file.")
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise DataError(f"{option} {path}: there is no folder {folder}. Make it first.")
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise DataError(f"{option} {path}: cannot write there. Choose another file.")


@contextmanager
def writing(path: str, what: str) -> Iterator[None]:
    """Say what was written where, or why it could not be."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {what} to {path}: {error.strerror or error}.") from error
    sys.stderr.write(f"wrote {what} to {path}\n")
