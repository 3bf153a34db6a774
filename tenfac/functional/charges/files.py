"""``read_charges``: positions and charges from PQR files, and from tables of four columns."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from tenfac.core.door import door
from tenfac.core.errors import DataError

# Atoms of charge 1, and none other, that a file may have; more are the occupancies of a plain PDB file.
_IONS = 4


@door
def read_charges(path: str | PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
    """Read positions and charges of the atoms in a text file.

    Parameters
    ----------
    path : str or path
        A PQR file (lines ``ATOM`` and ``HETATM``, the last five fields ``x y z charge radius``, or the
        columns
        of the PDB format with the charge in those of the occupancy), or a table with the columns ``x y z
        charge``
        separated by blanks or commas, ``#`` before comments. Of several models the first is read.

    Returns
    -------
    positions : array, shape (N, 3)
        In the file's unit of length; ångström in PQR files.
    charges : array, shape (N,)
        In the file's unit; elementary charges in PQR files.

    Raises
    ------
    DataError
        If a line cannot be read, with its number; if there are no atoms; or if no atom has a charge, as in
        plain
        PDB files.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "ion.pqr"
    >>> _ = file.write_text("ATOM  1  NA  NA  1  0.5 1.0 1.5  1.0 1.8")
    >>> read_charges(file)
    (array([[0.5, 1. , 1.5]]), array([1.]))
    """
    lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    tagged = any(line.startswith(("ATOM", "HETATM")) for line in lines)
    rows = []
    for number, line in enumerate(lines, 1):
        if tagged and line.startswith("ENDMDL"):
            break
        if tagged and not line.startswith(("ATOM", "HETATM")):
            continue
        text = line if tagged else line.partition("#")[0]
        if not text.strip():
            continue
        row = _pqr(text) if tagged else _numbers(text.replace(",", " ").split(), 4)
        if row is None or not np.isfinite(row).all():
            want = "end in the numbers x y z charge radius" if tagged else "be the numbers x y z charge"
            raise DataError(
                f"read_charges: line {number} of {Path(path).name} must {want}; got {line.strip()!r}. A "
                f"PDB file "
                "has no partial charges: make a PQR file of it, for example with pdb2pqr."
            )
        rows.append(row)
    if not rows:
        raise DataError(
            f"read_charges: {Path(path).name} must have an atom or more; got none in {len(lines)} lines."
        )
    table = np.array(rows)
    if not table[:, 3].any():
        raise DataError(
            f"read_charges: an atom must have a charge; got {len(table)} atoms of charge 0 in "
            f"{Path(path).name}."
        )
    if tagged and len(table) > _IONS and (table[:, 3] == 1).all():
        raise DataError(
            f"read_charges: the charges of {Path(path).name} must be charges; got 1.00 for all "
            f"{len(table)} atoms, the "
            "occupancy of a plain PDB file. Make a PQR file of it, for example with pdb2pqr."
        )
    return table[:, :3], table[:, 3]


def _pqr(line: str) -> list[float] | None:
    """x y z charge of an atom, by fields; by the columns of PDB where fields run together."""
    fields = line.split()
    found = _numbers(fields[-5:], 5) if len(fields) >= 8 else None
    rest = line[62:]
    if found is None and not rest.strip(" .0123456789"):
        found = _numbers([line[30:38], line[38:46], line[46:54], line[54:62], *rest.split()[:1]], 5)
    return None if found is None else found[:-1]


def _numbers(fields: list[str], count: int) -> list[float] | None:
    if len(fields) != count:
        return None
    try:
        return [float(field) for field in fields]
    except ValueError:
        return None
