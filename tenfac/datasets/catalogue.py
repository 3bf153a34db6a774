"""Data sets by name."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial

from tenfac.core.door import door
from tenfac.core.errors import DataError
from tenfac.datasets.dataset import Dataset
from tenfac.datasets.images import load_digits, load_sample_image
from tenfac.datasets.measured import load_il2, load_indian_pines, load_kinetic, load_serology

_CATALOGUE: dict[str, tuple[Callable[[], Dataset], str]] = {
    "kinetic": (
        load_kinetic,
        "59 × 12 × 10 × 60, fluorescence over sample, emission, excitation and time, 0.40 % missing",
    ),
    "il2": (load_il2, "13 × 4 × 12 × 8, responses over mutein, time, dose and cell, 3.85 % missing"),
    "indian_pines": (
        load_indian_pines,
        "145 × 145 × 200, radiance over row, column and wavelength, with classes",
    ),
    "serology": (
        load_serology,
        "438 × 6 × 11, antibody binding over sample, antigen and receptor, with classes",
    ),
    "digits": (load_digits, "1797 × 8 × 8, handwritten digits over image, row and column, with classes"),
    "china": (partial(load_sample_image, "china"), "427 × 640 × 3, photograph over row, column and color"),
    "flower": (partial(load_sample_image, "flower"), "427 × 640 × 3, photograph over row, column and color"),
}


@door
def names() -> dict[str, str]:
    """List the data sets that `load` knows.

    Returns
    -------
    dict of str to str
        Name, and sizes, modes and missing entries in one line. Nothing is loaded.

    Examples
    --------
    >>> list(names())
    ['kinetic', 'il2', 'indian_pines', 'serology', 'digits', 'china', 'flower']
    >>> names()["il2"]
    '13 × 4 × 12 × 8, responses over mutein, time, dose and cell, 3.85 % missing'
    """
    return {name: line for name, (_, line) in _CATALOGUE.items()}


@door
def load(name: str) -> Dataset:
    """Load a data set by its name.

    Parameters
    ----------
    name : str
        One of `names`.

    Returns
    -------
    Dataset
        What the function of that data set returns with its defaults.

    Raises
    ------
    DataError
        If no data set has that name; the message lists near names.

    Examples
    --------
    >>> load("il2").shape
    (13, 4, 12, 8)
    """
    if name not in _CATALOGUE:
        near = get_close_matches(str(name).lower(), _CATALOGUE, n=2, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise DataError(
            f"datasets.load: no data set is named {name!r}. {hint}Known: {', '.join(_CATALOGUE)}."
        )
    return _CATALOGUE[name][0]()
