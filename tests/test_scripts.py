"""The scripts to copy: small tables in, files out, resumed where they were killed."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import load
from tests.checks import assert_close, assert_equal

SCRIPTS = Path(__file__).resolve().parents[1] / "tutorials" / "scripts"
pd = pytest.importorskip("pandas")


def script(name: str) -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / f"{name}.py"))


def thin(path: Path, **kept: int) -> None:
    """Keep the first so many values of some columns."""
    table = pd.read_csv(path)
    for name, count in kept.items():
        table = table[table[name].isin(table[name].unique()[:count])]
    table.to_csv(path, index=False)


def test_every_script_is_short_enough_to_be_read_before_it_is_copied() -> None:
    names = {path.name: len(path.read_text().splitlines()) for path in SCRIPTS.glob("*.py")}
    assert_equal(sorted(names), ["posterior_from_csv.py", "streaming.py"])
    assert max(names.values()) < 80, names


def test_a_csv_becomes_predictions_draws_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main = script("posterior_from_csv")["main"]
    main(["table.csv", "--demo"])
    thin(tmp_path / "table.csv", mutein=4)
    thin(tmp_path / "new.csv", mutein=4)
    main(["table.csv", "--log", "dose", "--new", "new.csv", "--draws", "200", "--report", "fit.html"])
    said = capsys.readouterr().out.splitlines()
    scores = {line.split(" RMSE ")[0].strip(): float(line.split()[-6]) for line in said if " RMSE " in line}
    assert scores["FunctionalTucker"] < scores["3 nearest neighbours"], said
    out, new = pd.read_csv("predictions.csv"), pd.read_csv("new.csv")
    assert_equal(list(out.columns[:7]), [*new.columns, "mean", "std", "lower_95", "upper_95"])
    assert_equal(out[list(new.columns)].to_numpy().tolist(), new.to_numpy().tolist())
    assert_close((out.upper_95 - out.lower_95).to_numpy(), 2 * 1.96 * out["std"].to_numpy(), factor=1e10)
    draws = out.filter(like="draw_").to_numpy()
    apart = (draws.mean(axis=1) - out["mean"].to_numpy()) / out["std"].to_numpy()
    assert np.abs(apart).max() < 5 / np.sqrt(200), apart
    assert "Calibration" in Path("fit.html").read_text()


def test_a_stream_that_was_killed_goes_on_to_the_same_forecasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main = script("streaming")["main"]
    main(["table.csv", "--demo"])
    thin(tmp_path / "table.csv", time=12)
    main(["table.csv", "--first", "6", "--out", "whole", "--model", "whole.tenfac"])
    main(["table.csv", "--first", "6", "--batches", "2", "--out", "parts"])
    assert_equal(len(os.listdir("parts")), 2)
    main(["table.csv", "--first", "6", "--out", "parts"])
    main(["table.csv", "--first", "6", "--out", "parts"])  # nothing new: nothing to do
    assert_equal(sorted(os.listdir("parts")), sorted(os.listdir("whole")))
    assert_equal(len(os.listdir("whole")), 6)
    for name in os.listdir("whole"):
        assert_equal(Path("parts", name).read_text(), Path("whole", name).read_text())
    seen = pd.concat([pd.read_csv(path) for path in sorted(Path("whole").glob("*.csv"))])
    noise = load("whole.tenfac").noise_
    assert (seen["std"] >= noise).all(), (seen["std"].min(), noise)  # of a measurement, not of the function
    inside = (seen.lower_95 < seen.fluorescence) & (seen.fluorescence < seen.upper_95)
    assert_equal(len(seen), 6 * 16)
    assert inside.sum() >= 84, inside.mean()  # fewer in one stream of 1,000 if 95 % are right
    assert_equal(capsys.readouterr().out.count("RMSE"), 6 + 2 + 4)  # no batch was done twice
