"""The report: one page that holds every section, says the model's numbers, and escapes what users wrote."""

from __future__ import annotations

import re
from copy import copy
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from tenfac import DataError, FunctionalTucker, ShapeError, plot
from tenfac.plot import html
from tenfac.plot.check import Check, held_out, left_out
from tenfac.plot.wording import Axis
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says

VOID = {"meta", "link", "br", "img"}
SECTIONS = ["data", "model", "modes", "calibration", "residuals", "baselines"]
NASTY = '<script>alert("x")</script>'


class Page(HTMLParser):
    """Tags, ids, visible text and tables of a page; fails where tags do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.drawn: list[str] = []
        self.rows: dict[str, list[str]] = {}
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert_equal(self.open, [])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells = []
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert_equal(self.open.pop(), tag)
        if tag == "tr" and self.cells:
            self.rows.setdefault(self.cells[0], self.cells[1:])

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)
        if self.open and self.open[-1] == "text":
            self.drawn.append(data.strip())
        if {"td", "th"} & set(self.open[-1:]):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def table_of(size: int = 160) -> tuple[dict[str, Any], np.ndarray]:
    rng = np.random.default_rng(0)
    X = {
        "time": rng.integers(0, 40, size) / 4.0,
        "<b>cell</b>": rng.choice([NASTY, "a & b", "$x$", 'id="q"'], size),
    }
    y = np.sin(X["time"]) + 0.5 * (X["<b>cell</b>"] == "$x$") + 0.1 * rng.standard_normal(size)
    return X, y


@pytest.fixture(scope="module")
def fitted() -> tuple[FunctionalTucker, dict[str, Any], np.ndarray]:
    X, y = table_of()
    return FunctionalTucker(max_iter=30, tol=1e-4).fit(X, y), X, y


@pytest.fixture(scope="module")
def written(fitted: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    units = {"time": "h"}
    plot.report(*fitted, path, value="signal<i>", unit="mV", units=units, title=f"T {NASTY}")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def captions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Figures are not drawn, which takes most of the time: their captions are noted."""
    seen: list[str] = []
    monkeypatch.setattr(html, "drawing", lambda _, caption, name: seen.append(caption) or f"<p>{name}</p>")
    return seen


def test_the_page_is_whole_and_needs_no_other_file(written: str) -> None:
    page = Page(written)
    assert written.startswith("<!DOCTYPE html>")
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)
    assert_equal([link for link in page.links if not link.startswith("#")], [])
    assert_equal(len(set(page.ids)), len(page.ids))
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert_equal(page.tags.count("svg"), 7)  # two for modes, calibration and residuals, one for the search


def test_every_section_stands_in_its_order(written: str) -> None:
    assert_equal([name for name in Page(written).ids if name in SECTIONS], SECTIONS)


def test_what_users_wrote_is_shown_and_never_markup(written: str) -> None:
    assert "<script" not in written.lower()
    assert "<b>cell" not in written
    assert_says(Page(written).text, f"T {NASTY}", "signal<i> (mV)", "<b>cell</b>", "a & b", "$x$", 'id="q"')
    assert {"$x$", 'id="q"', "a & b", "<b>cell</b>", "signal<i> (mV)"} <= set(Page(written).drawn)


def test_the_numbers_are_those_of_the_model_and_of_the_data(fitted: Any, written: str) -> None:
    model, X, y = fitted
    rows = Page(written).rows
    cells = len({(t, c) for t, c in zip(X["time"].tolist(), X["<b>cell</b>"].tolist(), strict=True)})
    assert_equal(rows["rows"][0], "160")
    assert_equal(
        rows["missing share of the grid"][0], f"{100 * (1 - cells / (len(set(X['time'])) * 4)):.1f} %"
    )
    assert_equal(rows["repeats"][0].split()[0], str(160 - cells))
    assert_equal(rows["range of signal<i>"][0], f"{y.min():.4g} to {y.max():.4g} mV")
    assert_equal(rows["noise sd"][0], f"{model.noise_:.4g} mV")
    assert_equal(rows["log evidence"][0], f"{model.log_evidence_:.2f}")
    assert_equal(rows["iterations"][0].split(",")[0], str(model.info_.n_iter))
    assert_equal(rows["tol"][0], "0.0001")
    assert_says(Page(written).text, f"{model.lengthscales_['time']:.3g} h", f"{model.constants_['time']:.3g}")


def test_without_held_out_rows_a_tenth_is_left_out_of_a_second_posterior(fitted: Any, written: str) -> None:
    model, X, y = fitted
    check = left_out(model, X, y, 0)
    page = Page(written)
    assert_equal(check.y.size, 16)
    assert_says(page.text, "16 rows, drawn with seed 0", "learned from all rows")
    assert_equal(page.rows["tenfac"][0], f"{np.sqrt(np.mean((check.y - check.mean) ** 2)):.4g}")
    # not the rows' own posterior: that knows their values
    own = model.predict(check.X)
    assert_above(
        np.std(check.y - check.mean) / np.std(check.y - own), 1.05, "error left out over error fitted"
    )


def test_rows_held_out_are_judged_as_given(fitted: Any, tmp_path: Path, captions: list[str]) -> None:
    model, X, y = fitted
    new, values = table_of(40)
    path = tmp_path / "r.html"
    plot.report(model, X, y, path, test=(new, values))
    page = Page(path.read_text(encoding="utf-8"))
    mean, std = model.predict(new, return_std=True, include_noise=True)
    inside = np.mean(np.abs(values - mean) <= 1.959964 * std)
    assert_says(page.text, "40 rows that were held out")
    assert_equal(page.rows["rows"][0], "200 (160 fitted, 40 held out)")
    assert_equal(page.rows["all"][-1], f"{100 * inside:.1f} %")
    worst = int(np.argmax(np.abs(values - mean)))
    assert_says(page.text, f"{values[worst]:.4g} {mean[worst]:.4g} {values[worst] - mean[worst]:.3g}")
    for rival in ("mean of the same", "nearest neighbours (k ="):
        assert any(row.startswith(rival) for row in page.rows), rival


def test_a_fit_that_failed_is_said_at_the_top_with_its_history(
    fitted: Any, tmp_path: Path, captions: list[str]
) -> None:
    model, X, y = fitted
    failed = copy(model)
    info = {"converged": False, "reason": "max_iter=3 reached", "history": (1.0, 2.5, 2.75)}
    failed.info_ = replace(model.info_, warnings=("the basis is <small>",), **info)
    plot.report(failed, X, y, tmp_path / "r.html")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert_says(page.text, "did not converge: max_iter=3 reached", "the basis is <small>")
    assert_equal((captions[0], len(captions)), ("What the fit maximised, step by step.", 7))


def test_coverage_counts_values_inside_their_intervals_and_is_said_when_it_is_off() -> None:
    from tenfac.plot.page import _verdict

    y = np.random.default_rng(0).standard_normal(400)

    def check(std: float) -> Check:
        return Check({}, y, 0 * y, np.full(400, std), y / std, {}, "")

    assert_close(check(1.0).coverage(0.8), float(np.mean(np.abs(y) <= 1.2815515655446004)))
    assert_says(_verdict(check(1.0))[0], "what chance allows")
    assert_says(_verdict(check(2.0))[0], "50% intervals are too wide", "95% intervals are too wide")
    assert_says(_verdict(check(0.5))[0], "50% intervals are too narrow")
    assert_equal([_verdict(check(std))[1] for std in (1.0, 2.0)], ["", "warn"])


def test_indices_are_written_as_the_table_has_them() -> None:
    days = Axis("day", "continuous", "days since 1970-01-01")
    assert_equal(
        (days.text(19723.0), days.text(19723.5), days.distance), ("2024-01-01", "2024-01-01 12:00", "days")
    )
    dose = Axis("log10(dose)", "continuous", "nM")
    assert_equal((dose.text(-2.0), dose.label, dose.distance), ("0.01", "log10(dose / nM)", "decades"))
    assert_equal(dose.span(np.array([-1.0, 2.0])), "0.1 to 100 nM")
    assert_equal(Axis("k", "discrete").text(3.0), "3")


def test_many_labels_are_cut_to_the_furthest_from_the_average(fitted: Any) -> None:
    class Steps:
        mode_names_, kinds_ = ("cell",), ("discrete",)
        indices_ = (np.array([f"c{k:03}" for k in range(100)]),)

        def mode_posterior(self, *_: Any) -> tuple[Any, np.ndarray, np.ndarray]:
            return self.indices_[0], np.arange(100.0), np.ones(100)

    from matplotlib.figure import Figure

    ax = plot.mode_function(Steps(), 0, ax=Figure().subplots(), max_labels=40)
    shown = [tick.get_text() for tick in ax.get_xticklabels()]
    assert_equal(shown, [f"c{k:03}" for k in (*range(20), *range(80, 100))])


def test_what_cannot_be_reported_is_refused(fitted: Any, tmp_path: Path) -> None:
    model, X, y = fitted
    with pytest.raises(ShapeError) as error:
        plot.report(model, X, y[:-1], tmp_path / "r.html")
    assert_says(error, "one value per row", "(159,)", "160 rows")
    with pytest.raises(ShapeError) as error:
        held_out(model, X, y, X, y[:3])
    assert_says(error, "`test` must be (X, y)", "(3,)")
    with pytest.raises(DataError) as error:
        plot.report(model, X, y, tmp_path / "no folder" / "r.html")
    assert_says(error, "cannot write", "no folder")
    with pytest.raises(TypeError) as wrong:
        plot.report(FunctionalTucker(), X, y, tmp_path / "r.html")
    assert_says(wrong, "report: needs a fitted model", "FunctionalTucker().fit(X, y)")
    with pytest.raises(DataError) as error:
        plot.report(model, X, ["high"] * 160, tmp_path / "r.html")
    assert_says(error, "report: `y` must hold real numbers", "'high'")
    shares = FunctionalTucker(likelihood="binomial", max_iter=0).fit([[0.0], [1.0]], [0.5, 1.0], [2, 3])
    with pytest.raises(DataError) as error:
        held_out(shares, [[0.0], [1.0]], np.array([0.5, 1.0]), [[0.5]], np.array([0.5]))
    assert_says(error, "likelihood='binomial'", "sample_weight=trials")
    assert_equal(list(tmp_path.iterdir()), [])


def test_a_table_escapes_its_cells_and_numbers_stand_right() -> None:
    text = html.table([("a<b", 1)], ("x", "&"), numbers=[1])
    assert_says(text, "a&lt;b", "&amp;", '<td class="n">1</td>')
    assert_equal(len(re.findall("<th", text)), 4)  # thead, two columns, one row
    assert_below(text.count("<td"), 1, "cells that name no row")
