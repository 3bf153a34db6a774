"""The whole way: a table in; a report, a model, a figure and predictions out."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tenfac
from tenfac.cli.baseline import features, nearest_neighbours
from tenfac.cli.observations import Observations, observe, split
from tenfac.cli.report import align
from tenfac.cli.tables import read_table
from tests.checks import assert_below, assert_close, assert_equal, assert_says
from tests.cli.conftest import grid_lines

MEASURES = ("RMSE", "MAE", "NLL", "CRPS", "95 % coverage")


def row_of(out: str, name: str) -> list[str]:
    """Cells of the printed row that begins with a name."""
    found = [line for line in out.splitlines() if line.startswith(name)]
    assert found, f"no row {name!r} in:\n{out}"
    return found[0][len(name) :].split()


def test_fit_prints_the_modes_the_scores_beside_a_baseline_and_how_it_ended(
    command: Callable, grid: str
) -> None:
    run = command("fit", grid, "--value", "response", "--quiet")
    assert_equal((run.code, run.err), (0, ""))
    assert_says(run.out, "60 values of response (54 fitted, 6 held out)", "held-out (6 rows)")
    assert_equal(row_of(run.out, "cell")[:2], ["discrete", "3"])
    assert_equal(row_of(run.out, "time")[:5], ["continuous", "20", "0", "..", "9.5"])
    ours, theirs = (float(row_of(run.out, "RMSE")[k]) for k in (0, 1))
    assert_below(ours, 0.25, "held-out RMSE, where the noise is 0.1")
    assert_below(ours, theirs, "RMSE beside that of the nearest neighbours")
    for name in MEASURES:
        assert_equal(len([cell for cell in row_of(run.out, name) if cell != "%"]), 2)
    assert_below(abs(float(row_of(run.out, "noise sd")[0]) - 0.1), 0.05, "learned noise minus 0.1")
    assert_says(run.out, "log evidence", "converged (", "iterations")


def test_fit_is_repeatable_and_the_seed_chooses_the_rows(command: Callable, grid: str) -> None:
    def scores(seed: str) -> str:
        out = command("fit", grid, "--value", "response", "--quiet", "--random-state", seed).out
        return out[: out.index("fit  ")]

    assert scores("0") == scores("0")
    assert scores("0") != scores("1")


def test_response_and_label_rank_reach_the_model(command: Callable, write: Callable, tmp_path: Path) -> None:
    lines = [f"{k},{t},{np.exp(np.sin(t + ord(k)))}" for k in "abc" for t in range(4)]
    path = tmp_path / "m.tenfac"
    options = ("--response", "log", "--label-rank", "1", "--quiet", "--save", str(path))
    assert_equal(command("fit", write("cell,time,y", *lines), "--value", "y", *options).code, 0)
    model = tenfac.load(path)
    assert_equal((model.response, model.label_rank), ("log", 1))
    assert np.isfinite(model.bounds_[0])


@pytest.mark.parametrize(("option", "value"), [("--response", "logits"), ("--label-rank", "-1")])
def test_a_wrong_response_or_label_rank_is_one_line_and_exit_code_2(
    command: Callable, grid: str, option: str, value: str
) -> None:
    run = command("fit", grid, "--value", "response", option, value)
    assert_equal((run.code, run.out), (2, ""))
    assert_says(run.err, option, value)


def test_without_held_out_rows_there_are_no_scores(command: Callable, grid: str) -> None:
    run = command("fit", grid, "--value", "response", "--quiet", "--holdout", "0")
    assert_equal(run.code, 0)
    assert_says(run.out, "(60 fitted)")
    assert "RMSE" not in run.out


def test_the_figure_and_the_predictions_are_written(
    command: Callable, write: Callable, tmp_path: Path
) -> None:
    table = write(*grid_lines(days=True), name="days.csv")
    new = write("time,cell", "2024-01-05,NK", "2024-01-05T12:00,T reg", "2024-03-01,NK", name="new.csv")
    figure, out = tmp_path / "f.png", tmp_path / "out.csv"
    options = ["--plot", str(figure), "--predict", new, "--out", str(out), "--quiet"]
    run = command("fit", table, "--value", "response", *options)
    assert_equal(run.code, 0)
    assert_says(run.out, "2024-01-01 .. 2024-01-20", "days")
    assert_says(run.err, "1 row outside the range of 'time'", "wrote the figure", "wrote 3 predictions")
    assert_equal(figure.read_bytes()[:4], b"\x89PNG")
    rows = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert_equal(list(rows[0]), ["cell", "time", "mean", "std", "observation_std", "lower_95", "upper_95"])
    assert_equal([row["time"] for row in rows], ["2024-01-05", "2024-01-05T12:00", "2024-03-01"])
    assert_below(abs(float(rows[0]["mean"]) - 2 * np.sin(4 / 5)), 0.3, "prediction minus truth")
    assert float(rows[2]["std"]) > 3 * float(rows[0]["std"])
    assert all(float(row["observation_std"]) > float(row["std"]) for row in rows)


def test_a_saved_model_predicts_the_same_from_the_command_line(
    command: Callable, grid: str, tmp_path: Path
) -> None:
    model, first, second = (str(tmp_path / name) for name in ("m.tenfac", "1.csv", "2.csv"))
    run = command(
        "fit", grid, "--value", "response", "--quiet", "--save", model, "--predict", grid, "--out", first
    )
    assert_equal(run.code, 0)
    assert_says(run.err, "wrote the model")
    assert_equal(command("predict", model, grid, "--out", second).code, 0)
    read = [np.loadtxt(path, delimiter=",", skiprows=1, usecols=(2, 3, 4)) for path in (first, second)]
    assert_equal(read[1], read[0])


def test_progress_goes_to_standard_error(command: Callable, grid: str) -> None:
    run = command("fit", grid, "--value", "response", "--holdout", "0")
    assert_equal(run.code, 0)
    assert "iter" in run.err or "%" in run.err
    assert "%|" not in run.out


def test_repeats_are_kept_if_asked_to(command: Callable, write: Callable) -> None:
    lines = grid_lines()
    table = write(*lines, *lines[1:7])
    run = command("fit", table, "--value", "response", "--duplicates", "keep", "--holdout", "0", "--quiet")
    assert_equal(run.code, 0)
    assert_says(run.out, "(66 fitted)")


def test_a_logarithmic_mode_is_reported_in_its_unit_and_in_decades(
    command: Callable, write: Callable
) -> None:
    lines = [
        f"{10.0**k:g},{t},{np.tanh(k) + 0.1 * np.sin(7 * k * t)}" for k in range(-3, 4) for t in range(4)
    ]
    run = command("fit", write("dose,t,y", *lines), "--value", "y", "--log", "dose", "--quiet")
    assert_equal(run.code, 0)
    assert_equal(row_of(run.out, "dose")[2:5], ["0.001", "..", "1000"])
    assert_equal(row_of(run.out, "dose")[-1], "decades")


# --- the baseline -----------------------------------------------------------------------------------------


def noisy_line(write: Callable, noise: float) -> tuple[Observations, Observations]:
    rng = np.random.default_rng(0)
    rows = [f"{t},{'ab'[t % 2]},{t / 100 + 5 * (t % 2) + noise * rng.standard_normal()}" for t in range(300)]
    return split(observe(read_table(write("t,k,y", *rows)), "y"), 0.2, 0)


def test_neighbours_are_few_without_noise_and_many_with_noise(write: Callable) -> None:
    assert_below(nearest_neighbours(*noisy_line(write, 0.0), 0).k, 3, "k without noise")
    assert_equal(nearest_neighbours(*noisy_line(write, 1.0), 0).k, 20)


def test_the_error_bar_of_the_baseline_is_its_error(write: Callable) -> None:
    train, test = noisy_line(write, 1.0)
    found = nearest_neighbours(train, test, 0)
    assert_below(abs(found.std / np.sqrt(np.mean((found.mean - test.y) ** 2)) - 1), 0.25, "ratio minus 1")


def test_the_baseline_averages_the_nearest_rows_of_a_dense_search(write: Callable) -> None:
    train, test = noisy_line(write, 1.0)
    found = nearest_neighbours(train, test, 0)
    known, asked = features(train, test)
    distance = np.linalg.norm(known - asked[:1], axis=1)
    assert_close(found.mean[0], train.y[np.argsort(distance)[: found.k]].mean())


def test_features_are_scaled_to_unit_deviation_and_one_hot(write: Callable) -> None:
    known, asked = features(*noisy_line(write, 0.0))
    assert_equal((known.shape[1], asked.shape[1]), (3, 3))
    assert_close(known[:, 0].std(), 1.0)
    assert_equal(np.unique(known[:, 1:]), np.array([0.0, 1.0]))
    assert_equal(known[:, 1:].sum(axis=1), np.ones(len(known)))


# --- the command itself -----------------------------------------------------------------------------------


def test_help_and_version_end_with_zero(command: Callable) -> None:
    assert_equal(command("--help").code, 0)
    run = command("fit", "--help")
    assert_equal(run.code, 0)
    assert_says(run.out, "--holdout", "--duplicates", "examples:")
    assert_says(command("--version").out, tenfac.__version__)


def test_info_says_what_is_installed_and_how_to_get_the_rest(
    command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tenfac.cli import info

    installed = info._version
    monkeypatch.setattr(info, "_version", lambda name: None if name == "torch" else installed(name))
    run = command("info")
    assert_equal(run.code, 0)
    assert_says(run.out, tenfac.__version__, np.__version__, "scikit-learn", "processors", "threads")
    assert_equal(" ".join(row_of(run.out, "torch")), "not installed: pip install 'tenfac[torch]'")


def test_datasets_lists_the_names_that_fit_takes(command: Callable) -> None:
    run = command("datasets")
    assert_equal([line.split()[0] for line in run.out.splitlines()], list(tenfac.datasets.names()))


def test_help_loads_no_library_at_all_and_the_module_is_the_command() -> None:
    code = (
        "import sys, tenfac.cli as c\n"
        "code = c.main(['fit', '--help'])\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'tensorly', 'pandas', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else code)"
    )
    for arguments in (["-c", code], ["-m", "tenfac", "--version"]):
        run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr


def test_columns_are_aligned() -> None:
    assert_equal(align([("a", "bb"), ("ccc", "d")], right={1}), ["a    bb", "ccc   d"])


# --- weights ----------------------------------------------------------------------------------------------


def test_trials_are_read_from_the_column_of_weights(
    command: Callable, write: Callable, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    x, trials = np.linspace(0, 1, 40), rng.integers(1, 30, 40)
    wins = rng.binomial(trials, 1 / (1 + np.exp(-4 * np.sin(6 * x))))
    lines = [f"{a:.4f},{n},{k / n:.17g}" for a, n, k in zip(x, trials, wins, strict=True)]
    path = str(tmp_path / "m.tenfac")
    options = (
        "--value",
        "share",
        "--weights",
        "trials",
        "--likelihood",
        "binomial",
        "--save",
        path,
        "--quiet",
    )
    run = command("fit", write("x,trials,share", *lines), *options)
    assert_equal(run.code, 0)
    assert_below(float(row_of(run.out, "RMSE")[0]), 0.2, "error of held-out shares")
    train, _ = split(observe(read_table(str(tmp_path / "table.csv")), "share", weights="trials"), 0.1, 0)
    same = tenfac.FunctionalTucker(likelihood="binomial").fit(train.X, train.y, sample_weight=train.weights)
    assert_equal(tenfac.load(path).predict({"x": x}), same.predict({"x": x}))
    assert_equal(train.modes[0].name, "x")
    assert_below(len(train.modes), 1, "modes")


WEIGHTS = {
    "no such column": (["--weights", "triasl"], ["no column 'triasl'", "Did you mean 'trials'?"]),
    "a mode": (["--weights", "x", "--modes", "x"], ["--weights names 'x'", "a mode"]),
    "zero": (["--weights", "zero"], ["row 2", "'zero'", "positive number; got 0"]),
    "no whole successes": (
        ["--weights", "trials", "--likelihood", "binomial"],
        ["share of successes", "0.3 of 4"],
    ),
    "a report of all rows": (
        ["--weights", "trials", "--holdout", "0", "--report", "r.html"],
        ["--report with --weights", "--holdout above 0"],
    ),
}


@pytest.mark.parametrize(("options", "parts"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_count_nothing_are_refused(
    command: Callable, write: Callable, options: list[str], parts: list[str]
) -> None:
    table = write("x,trials,zero,y", "0,2,1,0.5", "1,4,0,0.3", "2,4,1,0.25")
    run = command("fit", table, "--value", "y", *options)
    assert_equal((run.code, run.out), (2, ""))
    assert_says(run.err, *parts)


def test_what_a_fit_says_of_itself_is_a_note(command: Callable, write: Callable) -> None:
    rng = np.random.default_rng(0)
    y = np.sin(np.arange(120) / 9) + 0.1 * rng.normal(size=120)
    y[::15] += 3.0
    run = command("fit", write("x,y", *(f"{k},{v}" for k, v in enumerate(y))), "--value", "y", "--quiet")
    assert_equal(run.code, 0)
    assert_says(run.err, "note: ", "likelihood='student_t'")
