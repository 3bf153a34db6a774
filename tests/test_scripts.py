"""The scripts to copy: small tables in, files out, resumed where they were killed."""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tenfac import FunctionalTucker
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
    names = ["mean", "std", "observation_std", "lower_95", "upper_95"]  # what `tenfac predict` calls them
    assert_equal(list(out.columns[:8]), [*new.columns, *names])
    assert_equal(out[list(new.columns)].to_numpy().tolist(), new.to_numpy().tolist())
    spread = out["observation_std"].to_numpy()
    assert_close((out.upper_95 - out.lower_95).to_numpy(), 2 * 1.96 * spread, factor=1e10)
    noise = np.sqrt(spread**2 - out["std"].to_numpy() ** 2)  # of a new measurement, alike in all rows
    assert_close(noise, np.full(noise.size, noise.mean()), factor=1e10)
    draws = out.filter(like="draw_").to_numpy()
    apart = (draws.mean(axis=1) - out["mean"].to_numpy()) / out["std"].to_numpy()
    assert np.abs(apart).max() < 5 / np.sqrt(200), apart
    assert "Calibration" in Path("fit.html").read_text()


def test_a_stream_that_was_killed_goes_on_to_the_same_forecasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain, asked = FunctionalTucker.predict, []

    def predict(self: FunctionalTucker, X: Any, **options: Any) -> Any:
        asked.append(options.get("include_noise"))
        return plain(self, X, **options)

    monkeypatch.setattr(FunctionalTucker, "predict", predict)
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
    assert_equal(set(asked), {True})  # forecasts are of measurements, not of the function alone
    inside = (seen.lower_95 < seen.fluorescence) & (seen.fluorescence < seen.upper_95)
    assert_equal(len(seen), 6 * 16)
    assert inside.sum() >= 84, inside.mean()  # fewer in one stream of 1,000 if 95 % are right
    assert_equal(capsys.readouterr().out.count("RMSE"), 6 + 2 + 4)  # no batch was done twice


@pytest.mark.parametrize(
    ("name", "options", "wrong"),
    [
        ("posterior_from_csv", [], "response"),  # the value of the demo, not of this table
        ("posterior_from_csv", ["--value", "OD", "--log", "dos"], "dos"),
        ("posterior_from_csv", ["--value", "OD", "--log", "strain"], "strain"),
        ("streaming", ["--value", "OD", "--by", "huor"], "huor"),
        ("streaming", ["--value", "OD", "--by", "strain"], "strain"),  # in what order do labels arrive?
    ],
)
def test_a_column_that_is_not_there_or_has_no_numbers_is_named_beside_those_that_are(
    name: str, options: list[str], wrong: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("strain,hour,OD\nwt,0,0.1\nmut,1,0.3\n")
    with pytest.raises(SystemExit):
        script(name)["main"]([str(path), *options])
    said = capsys.readouterr().err
    assert f"no numbers in a column ['{wrong}']" in said, said
    assert "mine.csv, which has ['strain', 'hour', 'OD']" in said, said
