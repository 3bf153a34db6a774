"""Between tenfac and xarray: a function or a posterior on a grid with names, a DataArray as a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

from tenfac.core.arrays import byte_guard, is_array, to_numpy
from tenfac.core.door import door
from tenfac.core.errors import DataError, MissingExtraError, ShapeError, nearest_name
from tenfac.core.format import Format
from tenfac.core.interchange import as_format
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.core.modes.gp import GP
from tenfac.core.modes.protocol import Mode
from tenfac.core.tucker import Tucker
from tenfac.functional.from_grid import chebyshev_from_grid
from tenfac.functional.patches import Patches


@door
def to_xarray(
    t: Any,
    dims: Sequence[str] | None = None,
    coords: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    max_bytes: int | None = None,
) -> Any:
    """Evaluate a format or a fitted model on a grid with names: an ``xarray.DataArray``, or a ``Dataset``.

    Parameters
    ----------
    t : Tucker, TuckerTrain, CP, Patches, fitted FunctionalTucker, or draws of ``nuts`` or ``svi``
        Without a batch; TensorLy's tensors too. Patches need `coords` of their continuous modes.
    dims : sequence of D str, optional
        Name of each mode; ``dim_0``, ``dim_1``, ... if not given. A model has the names of its table.
    coords : mapping of str to array or int, optional
        For a continuous mode the places to evaluate at, or a number of equally spaced ones. Without them
        ``Chebyshev`` modes are evaluated at Chebyshev points, a few more than coefficients, from which
        ``from_xarray`` makes the same function again, ``GP`` modes at their knots and ends, and models at the
        indices they have seen. For a discrete mode its labels (of a model: those wanted). ``X.coords`` of a
        DataArray is taken as it is.
    name : str, optional
        Name of the values; of a model ``mean`` and ``std`` if not given, else ``NAME`` and ``NAME_std``.
    max_bytes : int, optional
        Refuse a larger result.

    Returns
    -------
    xarray.DataArray, shape (N_0, ..., N_{D-1}), of a model xarray.Dataset
        Of numpy. The Dataset has the posterior mean of the function, and its standard deviation.

    Raises
    ------
    ShapeError
        If there is a batch, or names and coordinates do not fit the modes.
    DataError
        If a place is outside its mode, or the result would be larger than ``max_bytes``.
    MissingExtraError
        If xarray is not installed.

    References
    ----------
    .. [1] S. Hoyer and J. Hamman, xarray: N-D labeled arrays and datasets in Python, Journal of Open Research
       Software 5 (2017). doi:10.5334/jors.148

    Examples
    --------
    >>> from tenfac import Chebyshev, Discrete
    >>> t = Tucker(np.ones((1, 1)), [np.eye(2)[:, 1:], np.ones((2, 1))], [Chebyshev(2), Discrete(2)])
    >>> X = to_xarray(t, ("x", "cell"), {"x": 5, "cell": ["B", "T"]}, name="height")
    >>> X.sel(cell="T").values
    array([-1. , -0.5,  0. ,  0.5,  1. ])
    """
    xr = _xarray("to_xarray")
    t = as_format(t)
    if not isinstance(coords, Mapping | None):
        raise TypeError(
            f"to_xarray: `coords` must be a dict of dimensions and their places; got "
            f"{type(coords).__name__}. Write coords={{'x': [0.0, 0.5, 1.0]}}, or a number of places."
        )
    given = {} if coords is None else dict(coords)
    if hasattr(t, "predict") and hasattr(t, "_modes"):
        return _of_model(xr, t, dims, given, name, max_bytes)
    if not isinstance(t, (Format, Patches)) or (isinstance(t, Format) and t.batch_shape):
        raise ShapeError(
            "to_xarray: needs one Tucker, TuckerTrain, CP or Patches, without a batch, or a fitted "
            f"FunctionalTucker; got {t!r}."
        )
    names = _names(t, dims)
    axes, along = [], {}
    for dim, mode in zip(names, _modes(t), strict=True):
        x, labels = _axis(dim, mode, given.pop(dim, None))
        axes.append(x)
        if labels is not None:
            along[dim] = labels
    _check_others(given, names)
    values = to_numpy(t.on_grid(*axes, max_bytes=max_bytes))
    return xr.DataArray(values, {**along, **given}, names, name=name)


@door
def from_xarray(
    X: Any,
    tol: float = 1e-10,
    *,
    discrete: Sequence[str] = (),
    domain: Mapping[str, tuple[float, float]] | None = None,
) -> Tucker:
    """Turn a DataArray with coordinates into a function of them.

    Dimensions with numbers for coordinates become continuous, those with labels or without coordinates stay
    discrete; then ``chebyshev_from_grid``: the polynomial through Chebyshev points, cubic splines through
    any others.

    Parameters
    ----------
    X : xarray.DataArray, shape (I_0, ..., I_{D-1})
        Real and finite. Coordinates may come in any order, as latitudes do.
    tol : float
        Allowed error, as a share of the largest value.
    discrete : sequence of str
        Dimensions that stay discrete although their coordinates are numbers: years, channels.
    domain : mapping of str to pair (a, b), optional
        Intervals of some dimensions; the first and last coordinate of the others.

    Returns
    -------
    Tucker
        ``Chebyshev`` and ``Discrete`` modes in the order of ``X.dims``. ``info`` says whether the grid
        resolves the function to ``tol``.

    Raises
    ------
    DataError
        If values are missing or not real, a coordinate repeats, is a date or not finite, or ``tol`` or
        ``domain`` is out of range.
    ShapeError
        If a name is not that of a dimension.
    MissingExtraError
        If xarray is not installed.

    Warns
    -----
    ConvergenceWarning
        If the grid is too coarse for ``tol``.

    Notes
    -----
    For an array as it is, without interpolation, write ``tucker(X, rank)``.

    References
    ----------
    .. [1] S. Hoyer and J. Hamman, xarray: N-D labeled arrays and datasets in Python, Journal of Open Research
       Software 5 (2017). doi:10.5334/jors.148

    Examples
    --------
    >>> import xarray as xr
    >>> x = np.linspace(0, 1, 40)
    >>> X = xr.DataArray(np.outer(np.exp(x), [1.0, 2.0]), {"x": x, "cell": ["B", "T"]})
    >>> F = from_xarray(X, tol=1e-6)
    >>> F.modes
    (Chebyshev(size=7, domain=(0.0, 1.0)), Discrete(size=2))
    >>> bool(abs(F.at(0.321, 1) - 2 * np.exp(0.321)) < 1e-6)
    True
    """
    xr = _xarray("from_xarray")
    if not isinstance(X, xr.DataArray):
        raise DataError(
            f"from_xarray: needs an xarray.DataArray; got {type(X).__name__}. Take one variable of a "
            "Dataset: ds['name']."
        )
    kept = [discrete] if isinstance(discrete, str) else list(discrete)
    box = {} if domain is None else dict(domain)
    for dim in [*kept, *box]:
        if dim not in X.dims:
            raise ShapeError(
                f"from_xarray: `discrete` and `domain` must name dimensions, of {X.dims}; got {dim!r}."
                f"{nearest_name(dim, map(str, X.dims))}"
            )
    axes: list[np.ndarray | None] = []
    for dim in X.dims:
        x = None if dim in kept else _places(X, dim)
        if x is not None and not (np.diff(x) > 0).all():
            order = np.argsort(x)
            X, x = X.isel({dim: order}), x[order]
        axes.append(x)
    values = _values(X)
    stays = [dim for dim, x in zip(X.dims, axes, strict=True) if x is None and dim in box]
    if stays:
        raise ShapeError(f"from_xarray: a discrete dimension has no interval; got `domain` for {stays}.")
    pairs = [None if x is None else box.get(dim, (x[0], x[-1])) for dim, x in zip(X.dims, axes, strict=True)]
    return chebyshev_from_grid(values, axes, tol, domain=pairs)


def _xarray(where: str) -> Any:
    try:
        import xarray
    except ImportError as error:
        raise MissingExtraError(
            f"`{where}` needs xarray. Install it with: pip install 'tenfac[xarray]'."
        ) from error
    return xarray


def _check_others(given: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuse coordinates of no dimension, but those that a DataArray carries beside its own."""
    for other, value in given.items():
        if not hasattr(value, "dims"):
            raise ShapeError(
                f"to_xarray: `coords` must name dimensions, one of {', '.join(names)}; got {other!r}."
                f"{nearest_name(other, names)}"
            )


def _of_model(
    xr: Any, model: Any, dims: Any, given: dict[str, Any], name: str | None, max_bytes: int | None
) -> Any:
    """Mean and standard deviation of a fitted model on a grid of its indices."""
    names = [index.name for index in model._modes]
    if dims is not None and list(dims) != names:
        raise ShapeError(
            f"to_xarray: the modes of a model have names, {', '.join(names)}; got dims={dims!r}. Leave "
            "`dims` out; X.rename(...) gives other names."
        )
    along = {index.name: _wanted(index, given.pop(index.name, None)) for index in model._modes}
    _check_others(given, names)
    axes = [np.asarray(along[dim]) for dim in names]
    shape = tuple(len(axis) for axis in axes)
    byte_guard(shape, 16, max_bytes, "to_xarray", "Give fewer places in coords.")
    grid = np.meshgrid(*axes, indexing="ij")
    found = model.predict({dim: axis.ravel() for dim, axis in zip(names, grid, strict=True)}, return_std=True)
    called = ("mean", "std") if name is None else (name, f"{name}_std")
    values = {key: (names, part.reshape(shape)) for key, part in zip(called, found, strict=True)}
    return xr.Dataset(values, {**along, **given})


def _wanted(index: Any, given: Any) -> Any:
    """Where a mode of a model is evaluated: at what it has seen, in equal steps, or at what is given."""
    if given is None:
        return index.values
    if isinstance(given, Integral) and not isinstance(given, bool) and int(given) > 1 and not index.discrete:
        return np.linspace(index.values[0], index.values[-1], int(given))
    values = np.asarray(to_numpy(given) if is_array(given) else given)
    if values.ndim != 1 or not values.size:
        what = "labels" if index.discrete else "places, or their number, 2 or more"
        raise ShapeError(
            f"to_xarray: coords[{index.name!r}] must be a sequence of {what}; got {given!r}. For one index "
            "write [index], and X.sel afterwards."
        )
    return given if hasattr(given, "dims") else values


class _Interval(NamedTuple):
    """A continuous mode of patches: it has no grid of its own."""

    domain: tuple[float, float]


def _modes(t: Any) -> Sequence[Any]:
    if isinstance(t, Format):
        return t.modes
    pairs = zip(t.domain, t.parts[0].modes, strict=True)
    return [mode if domain is None else _Interval(domain) for domain, mode in pairs]


def _names(t: Any, dims: Any) -> list[str]:
    names = [f"dim_{n}" for n in range(t.ndim)] if dims is None else list(dims)
    if isinstance(dims, str) or len(names) != t.ndim or len(set(names)) < len(names):
        raise ShapeError(
            f"to_xarray: `dims` must be {t.ndim} different names, one per mode of shape {t.shape}; got "
            f"{dims!r}."
        )
    return names


def _axis(dim: str, mode: Mode | _Interval, given: Any) -> tuple[Any, Any]:
    """Where a mode is evaluated, and the coordinate of the dimension; None where there is none."""
    values = np.asarray(to_numpy(given) if is_array(given) else given) if given is not None else None
    if mode.domain is None:
        if values is not None and values.shape != (mode.size,):
            raise ShapeError(
                f"to_xarray: the labels of {dim!r} must be {mode.size}, one per row; got shape "
                f"{values.shape}. Take a part afterwards: X.sel or X.isel."
            )
        return None, given
    if values is None:
        if isinstance(mode, GP):
            places = np.unique([*mode.domain, *mode.grid])
            return places, places
        if not isinstance(mode, Chebyshev):
            raise ShapeError(
                f"to_xarray: say where {dim!r} is evaluated: coords={{{dim!r}: places}}, or their number."
            )
        # the last quarter of the coefficients of this grid is zero, by which it is known to be fine enough
        places = Chebyshev(mode.size + mode.size // 3 + 4, mode.domain).nodes()
        return places, places
    if isinstance(given, Integral) and not isinstance(given, bool) and int(given) > 1:
        places = np.linspace(*mode.domain, int(given))
        return places, places
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise ShapeError(
            f"to_xarray: the places of {dim!r} must be numbers of shape (N,), or their count, 2 or more; got "
            f"{given!r}. For one place take it away first: t.fix({{mode: value}})."
        )
    return values, given


def _places(X: Any, dim: str) -> np.ndarray | None:
    """Coordinates that are numbers; None if the dimension stays discrete."""
    if dim not in X.coords or X.sizes[dim] < 2:
        return None
    x = X.coords[dim].values
    if x.dtype.kind in "mM" or (x.dtype.kind == "O" and hasattr(x[0], "timetuple")):
        raise DataError(
            f"from_xarray: the coordinate {dim!r} must be numbers or labels; got dates ({x.dtype}). Count "
            f"days, X.assign_coords({dim}=(X.{dim} - X.{dim}[0]) / numpy.timedelta64(1, 'D')), or pass "
            f"discrete=[{dim!r}]."
        )
    if x.dtype.kind not in "iuf":
        return None
    x = x.astype(float)
    if not np.isfinite(x).all() or len(np.unique(x)) < len(x):
        raise DataError(
            f"from_xarray: the coordinate {dim!r} must be finite and different places; got {x}. Pass "
            f"discrete=[{dim!r}], or take the mean of equal ones."
        )
    return x


def _values(X: Any) -> np.ndarray:
    """Values as numpy, computed if they are lazy."""
    values = X.values
    if values.dtype.kind not in "biuf":
        raise DataError(f"from_xarray: the values must be real numbers; got {values.dtype}.")
    if not np.isfinite(values).all():
        count = int(values.size - np.isfinite(values).sum())
        raise DataError(
            f"from_xarray: the values must be finite; {count:,} of {values.size:,} are NaN or infinite. Fill "
            "them with X.interpolate_na, or fit FunctionalTucker, which takes what was observed."
        )
    return values
