"""The report of a fit: one HTML file that needs nothing else, for a screen, a phone or paper."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tenfac.bayes.columns import numbers_of
from tenfac.bayes.predictive import columns_by_mode
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError
from tenfac.plot import html
from tenfac.plot.check import LEVELS, Check, held_out, left_out
from tenfac.plot.coverage import calibration
from tenfac.plot.diagnostics import pit_histogram, progress, residual_histogram, residual_scatter
from tenfac.plot.modes import mode_function, names_of
from tenfac.plot.style import literal, require_matplotlib
from tenfac.plot.wording import Axis, axes_of, number, percent, rows_text, with_unit

_LARGEST = 10
_LABELS = 40
_TOLERABLE = 0.03  # by which a coverage may be off before the page warns of it
_QUARTER = 5  # fewest rows per quartile of the predicted standard deviation


@door
def report(
    model: Any,
    X: Any,
    y: Any,
    path: str | os.PathLike[str],
    *,
    test: tuple[Any, Any] | None = None,
    value: str = "y",
    unit: str = "",
    units: Mapping[str, str] | None = None,
    title: str = "tenfac report",
    random_state: int = 0,
) -> None:
    """Write what was fitted, and whether to believe it, as one HTML file.

    The page holds a summary of the data, the model with its hyperparameters and convergence, the function of
    each mode with its 95 % band, calibration (probability integral transforms, coverage), residuals, and
    plain baselines beside the model: the mean of a slice, and nearest neighbours. No script, no other file.

    Parameters
    ----------
    model : fitted FunctionalTucker
    X, y : array of shape (N, D), DataFrame or dict of columns; array of shape (N,)
        The rows it was fitted to.
    path : str or path
        The file to write; an older one is replaced.
    test : tuple (X, y), optional
        Rows that it was not fitted to, to judge it on. Without them a second posterior, at the learned
        hyperparameters, leaves out a tenth of the rows; the page says so.
    value : str, default "y"
        What the values are called.
    unit : str, default ""
        Their unit.
    units : dict, optional
        Unit per mode name. ``"days since 1970-01-01"`` are shown as dates, and a mode called ``log10(dose)``
        in the unit of the dose.
    title : str, default "tenfac report"
        Title of the page.
    random_state : int, default 0
        Draws the rows left out, if ``test`` is not given.

    Raises
    ------
    DataError
        If the file cannot be written.
    ShapeError
        If ``y`` does not have one value per row of ``X``.
    MissingExtraError
        If Matplotlib is not installed.

    Examples
    --------
    >>> import os, tempfile
    >>> from tenfac import FunctionalTucker
    >>> x = np.linspace(0, 6, 40)[:, None]
    >>> model = FunctionalTucker(max_iter=20, tol=1e-3).fit(x, np.sin(x[:, 0]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "report.html")
    ...     report(model, x, np.sin(x[:, 0]), path)
    ...     os.path.getsize(path) > 10_000
    True
    """
    require_matplotlib("plot.report")
    folder = os.path.dirname(os.fspath(path)) or "."
    if not os.path.isdir(folder):
        raise DataError(
            f"report: cannot write {os.fspath(path)}: there is no folder {folder}. Make it first."
        )
    names_of(model, "report")
    columns, y = columns_by_mode(model, X), np.asarray(numbers_of(y, "report"), dtype=float)
    if y.shape != next(iter(columns.values())).shape:
        raise ShapeError(
            f"report: `y` must have one value per row of `X`; got shape {y.shape} for "
            f"{next(iter(columns.values())).size} rows."
        )
    check = held_out(model, columns, y, *test) if test else left_out(model, columns, y, random_state)
    text = build(
        model, columns, y, check, value=value, unit=unit, units=units, title=title, apart=test is not None
    )
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise DataError(
            f"report: cannot write {os.fspath(path)}: {error.strerror or error}. Choose another file."
        ) from error


def build(
    model: Any,
    X: Mapping[str, np.ndarray],
    y: np.ndarray,
    check: Check,
    *,
    value: str,
    unit: str,
    units: Mapping[str, str] | None,
    title: str,
    apart: bool,
) -> str:
    """The page as text; ``apart`` says that the rows of ``check`` are not among those of ``X``."""
    axes = axes_of(model, units)
    parts = [
        _lead(model, check, value),
        html.section("data", "Data", _data(axes, X, y, check, value, unit, apart)),
        html.section("model", "Model", _model(model, axes, unit)),
        html.section("modes", "Modes", _modes(model, axes, value, unit)),
        html.section("calibration", "Calibration", _calibration(check, unit)),
        html.section("residuals", "Residuals", _residuals(check, axes, unit)),
        html.section("baselines", "Plain baselines", _baselines(check, unit)),
        _footer(),
    ]
    return html.page(title, parts)


def _lead(model: Any, check: Check, value: str) -> str:
    scores = check.scores()
    ours = scores.pop("tenfac")
    rival, best = min(((name, one["rmse"]) for name, one in scores.items()), key=lambda pair: pair[1])
    ratio = f", {ours['rmse'] / best:.2f} times that of the best plain baseline ({rival})" if best > 0 else ""
    covered = check.coverage(0.95)
    text = (
        f"{value}: root mean square error {number(ours['rmse'])} on {rows_text(check.y.size)} not used"
        f"{ratio}. The 95 % intervals hold {percent(covered)} of these rows."
    )
    parts = [f'<p class="lead">{html.escape(text)}</p>']
    if not model.info_.converged:
        parts.append(html.paragraph(f"The fit did not converge: {model.info_.reason}.", "warn"))
    return "\n".join(parts)


def _footer() -> str:
    from tenfac import __version__

    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return f'<footer class="quiet">tenfac {html.escape(__version__)}, {today}</footer>'


# --- data -------------------------------------------------------------------------------------------------


def _data(
    axes: Sequence[Axis], X: Mapping[str, np.ndarray], y: np.ndarray, check: Check, value: str, unit: str,
    apart: bool,
) -> list[str]:  # fmt: skip
    columns = {axis.name: X[axis.name] for axis in axes}
    if apart:
        columns = {name: np.concatenate([part, check.X[name]]) for name, part in columns.items()}
    values = np.concatenate([y, check.y]) if apart else y
    sizes, cells = _cells(list(columns.values()))
    grid = math.prod(sizes)
    low, first, middle, third, high = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
    split = f" ({y.size:,} fitted, {check.y.size:,} held out)" if apart else ""
    facts = [
        ("rows", f"{values.size:,}{split}"),
        ("cells of the grid", f"{' × '.join(f'{size:,}' for size in sizes)} = {grid:,}"),
        ("missing share of the grid", percent(1 - cells / grid)),
        ("repeats", f"{values.size - cells:,} rows at indices that another row has"),
        (f"range of {value}", with_unit(f"{number(low)} to {number(high)}", unit)),
        ("quartiles", with_unit(f"{number(first)}, {number(middle)}, {number(third)}", unit)),
        ("mean and sd", with_unit(f"{number(values.mean())} ± {number(values.std())}", unit)),
    ]
    rows = [
        (axis.column, axis.kind, f"{size:,}", axis.span(np.unique(columns[axis.name])))
        for axis, size in zip(axes, sizes, strict=True)
    ]
    return [html.table(facts), html.table(rows, ("mode", "kind", "indices", "range"), numbers=[2])]


def _cells(columns: Sequence[np.ndarray]) -> tuple[list[int], int]:
    """Number of indices per mode, and of distinct rows."""
    sizes, key = [], np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        known, code = np.unique(column, return_inverse=True)
        sizes.append(known.size)
        key = np.unique(key * known.size + code, return_inverse=True)[1]
    return sizes, int(key.max()) + 1


# --- model ------------------------------------------------------------------------------------------------


def _model(model: Any, axes: Sequence[Axis], unit: str) -> list[str]:
    info = model.info_
    parts = [html.paragraph(warning, "warn") for warning in info.warnings]
    if not info.converged:
        parts.append(html.paragraph("Not converged: raise max_iter, and do not trust the bands.", "warn"))
    verdict = "converged" if info.converged else "NOT converged"
    outcome = [("fit", f"{verdict}: {info.reason}")]
    if info.n_iter is not None:
        evals = f", {info.n_evals:,} evaluations" if info.n_evals is not None else ""
        outcome.append(("iterations", f"{info.n_iter:,}{evals}"))
    if info.seconds is not None:
        outcome.append(("seconds", f"{info.seconds:.1f}"))
    outcome += _learned(model, unit)
    parts += [html.table(outcome), "<h3>Modes</h3>", _hyperparameters(model, axes)]
    if len(info.history) > 1:
        figure, ax = _panel()
        progress(info.history, ax)
        parts.append(html.drawing(figure, "What the fit maximised, step by step.", "history"))
    settings = [(name, _setting(setting)) for name, setting in model.get_params().items()]
    return [*parts, "<h3>Settings</h3>", html.table(settings)]


def _learned(model: Any, unit: str) -> list[tuple[str, str]]:
    """What is learned beside the modes, as far as this kind of model has it."""
    found = []
    noise = getattr(model, "noise_", None)
    if noise is not None and np.isfinite(noise).all():
        noise = np.atleast_1d(np.asarray(noise, dtype=float))
        text = number(noise[0]) if noise.size == 1 else f"{number(noise.min())} to {number(noise.max())}"
        found.append(("noise sd", with_unit(text, unit)))
    for attribute, name in (
        ("dof_", "degrees of freedom of the noise"),
        ("slice_dof_", "those of a new slice"),
    ):
        dof = getattr(model, attribute, np.inf)
        if np.isfinite(dof):
            found.append((name, number(dof, 3)))
    for name, scales in getattr(model, "slice_scales_", {}).items():
        span = f"{number(np.sqrt(scales.min()), 3)} to {number(np.sqrt(scales.max()), 3)} times that"
        found.append((f"noise sd along {name}", span))
    bounds = getattr(model, "bounds_", (-np.inf, np.inf))
    for name, bound in zip(("floor", "ceiling"), bounds, strict=True):
        if np.isfinite(bound):
            found.append((name, with_unit(number(bound), unit)))
    evidence = getattr(model, "log_evidence_", None)
    if evidence is not None:
        found.append(("log evidence", f"{float(evidence):.2f}"))
    return found


def _hyperparameters(model: Any, axes: Sequence[Axis]) -> str:
    ranks = np.broadcast_to(np.asarray(getattr(model, "rank_", 0)), len(axes)).tolist()
    exact = getattr(model, "exact_mode_", None)
    rows = []
    for n, (axis, rank) in enumerate(zip(axes, ranks, strict=True)):
        scale = getattr(model, "lengthscales_", {}).get(axis.name)
        length = "" if scale is None else with_unit(number(scale, 3), axis.distance)
        constant = getattr(model, "constants_", {}).get(axis.name)
        rows.append(
            (
                axis.column,
                axis.kind,
                f"{rank:,} (exact)" if n == exact else f"{rank:,}" if rank else "",
                length,
                "" if constant is None else number(constant, 3),
            )
        )
    return html.table(
        rows,
        ("mode", "kind", "functions", "lengthscale", "constant"),
        numbers=[2, 3, 4],
        caption="Functions: rank of the mode; the exact mode is integrated out. Constant: variance of what "
        "all indices share, relative to what varies.",
    )


def _setting(setting: Any) -> str:
    return setting if isinstance(setting, str) else repr(setting)


# --- modes ------------------------------------------------------------------------------------------------


def _modes(model: Any, axes: Sequence[Axis], value: str, unit: str) -> list[str]:
    panels = [_panel() for _ in axes]
    for n, (_, ax) in enumerate(panels):
        mode_function(model, n, ax=ax, max_labels=_LABELS)
    low = min(ax.get_ylim()[0] for _, ax in panels)
    high = max(ax.get_ylim()[1] for _, ax in panels)
    figures = []
    for n, (axis, (figure, ax)) in enumerate(zip(axes, panels, strict=True)):
        ax.set(ylim=(low, high), xlabel=literal(axis.label), ylabel=literal(_named(value, unit)))
        if axis.is_date:
            _as_dates(ax)
        size = len(model.indices_[n])
        some = f"; the {_LABELS} of {size:,} labels furthest from the average" if (
            axis.kind == "discrete" and size > _LABELS
        ) else ""  # fmt: skip
        figures.append(html.drawing(figure, f"{axis.column}: mean and 95 % band{some}.", f"mode{n}"))
    scope = (
        "Each mode's function, averaged over the observed indices of the others; " if len(axes) > 1 else ""
    )
    note = f"{scope}{'o' if scope else 'O'}ne vertical scale. Bands are of the function, without noise."
    return [html.paragraph(note, "quiet"), html.side_by_side(figures)]


def _as_dates(ax: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(maxticks=6)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


# --- calibration ------------------------------------------------------------------------------------------


def _calibration(check: Check, unit: str) -> list[str]:
    left, right = _panel(), _panel()
    pit_histogram(check.pit, left[1])
    z = np.clip(check.z, -40, 40)
    calibration(z, 0 * z, np.ones(z.size), ax=right[1])
    flat = "Where values fall in their predictive distributions; a hump: error bars too wide, a bowl: narrow."
    inside = "Share of values inside central intervals of each probability."
    figures = [
        html.drawing(left[0], f"{flat} Gray: 95 % if calibrated.", "pit"),
        html.drawing(right[0], inside, "coverage"),
    ]
    rows = [("all", "", f"{check.y.size:,}", *_shares(check, slice(None)))]
    order = np.argsort(check.std, kind="stable")
    if check.y.size >= 4 * _QUARTER:
        for k, part in enumerate(np.array_split(order, 4)):
            low, high = number(check.std[part[0]], 3), number(check.std[part[-1]], 3)
            span = with_unit(f"{low} to {high}", unit)
            rows.append((f"quartile {k + 1} of sd", span, f"{part.size:,}", *_shares(check, part)))
    n = check.y.size
    noise = ", ".join(f"{level:.0%} ± {196 * math.sqrt(level * (1 - level) / n):.1f}" for level in LEVELS)
    table = html.table(
        rows,
        ("rows", "predicted sd", "number", *(f"{level:.0%} interval" for level in LEVELS)),
        numbers=[2, 3, 4, 5],
        caption=f"Share of values inside. Chance alone moves the first row so much: {noise} points (95 %).",
    )
    verdict = _verdict(check)
    few = [] if len(rows) > 1 else [html.paragraph("Too few rows to look at quartiles of the sd.", "quiet")]
    return [
        html.paragraph(f"Judged on {check.scope}"),
        html.paragraph(*verdict),
        table,
        *few,
        html.side_by_side(figures),
    ]


def _verdict(check: Check) -> tuple[str, str]:
    """Which intervals are wider or narrower than chance explains, and the class of the paragraph."""
    from scipy.stats import binom

    found, most = [], 0.0
    for level in LEVELS:
        share = check.coverage(level)
        low, high = binom.ppf([0.005, 0.995], check.y.size, level) / check.y.size
        if not low <= share <= high:
            found.append(f"the {level:.0%} intervals are too {'narrow' if share < low else 'wide'}")
            most = max(most, abs(share - level))
    if not found:
        return "The coverage of all three intervals is what chance allows (99 %).", ""
    text = f"Beyond what chance explains (99 %): {', '.join(found)}; by {100 * most:.1f} points at most."
    return text, "warn" if most > _TOLERABLE else ""


def _shares(check: Check, rows: np.ndarray | slice) -> list[str]:
    return [percent(check.coverage(level, rows)) for level in LEVELS]


# --- residuals --------------------------------------------------------------------------------------------


def _residuals(check: Check, axes: Sequence[Axis], unit: str) -> list[str]:
    residual = check.y - check.mean
    left, right = _panel(), _panel()
    residual_histogram(check.z, left[1])
    residual_scatter(check.mean, residual, right[1])
    largest = np.argsort(-np.abs(residual), kind="stable")[:_LARGEST]
    rows = [
        (
            *(axis.text(check.X[axis.name][row].item()) for axis in axes),
            number(check.y[row]),
            number(check.mean[row]),
            number(residual[row], 3),
            number(check.std[row], 3),
            f"{check.z[row]:+.1f}",
        )
        for row in largest
    ]
    head = (*(axis.column for axis in axes), "observed", "predicted", "residual", "predicted sd", "in sd")
    drawn = "" if residual.size <= 2000 else " 2,000 rows are drawn, the 100 largest residuals among them."
    return [
        html.side_by_side([
            html.drawing(left[0], "Residuals in units of the predicted sd (as normal quantiles of the "
                         "predictive distribution), beside the standard normal.", "histogram"),
            html.drawing(right[0], f"Residuals against predictions.{drawn}", "scatter"),
        ]),
        f"<h3>Largest {len(rows)} residuals</h3>",
        html.table(rows, head, numbers=range(len(axes), len(head)), caption=f"Unit: {unit}" if unit else ""),
    ]  # fmt: skip


# --- baselines --------------------------------------------------------------------------------------------


def _baselines(check: Check, unit: str) -> list[str]:
    scores = check.scores()
    ours = scores["tenfac"]["rmse"]
    rows = [
        (name, number(one["rmse"]), f"{one['rmse'] / ours:.2f}" if ours > 0 else "", number(one["mae"]),
         number(one["crps"]), number(one["nll"]), percent(one["coverage"]))
        for name, one in scores.items()
    ]  # fmt: skip
    head = ("", "RMSE", "× ours", "MAE", "CRPS", "NLL", "95 % coverage")
    about = (
        "On the rows of the section on calibration. RMSE, MAE and CRPS are in the unit of the values"
        f"{' (' + unit + ')' if unit else ''}; scores are those of normal distributions with the predicted "
        "means and sds, one sd for each baseline."
    )
    return [html.table(rows, head, numbers=range(1, 7), caption=about)]


# --- panels -----------------------------------------------------------------------------------------------


def _panel() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.1), layout="constrained")
    return figure, figure.subplots()


def _named(value: str, unit: str) -> str:
    return f"{value} ({unit})" if unit else value
