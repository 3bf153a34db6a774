"""Files of charges: which lines are read, and which files are none."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, read_charges
from tests.checks import assert_equal, assert_says


def read(tmp_path, *lines: str) -> tuple[np.ndarray, np.ndarray]:
    file = tmp_path / "atoms.pqr"
    file.write_text("\n".join(lines) + "\n")
    return read_charges(file)


def test_names_may_run_into_numbers_and_a_line_that_lacks_more_is_refused(tmp_path) -> None:
    positions, charges = read(tmp_path, "HETATM12345 HH31 ACE1234 0.5 1.0 -1.5 0.25 1.8")
    assert_equal((positions.tolist(), charges.tolist()), ([[0.5, 1.0, -1.5]], [0.25]))
    with pytest.raises(DataError) as error:
        read(tmp_path, "HETATM12345 ACE1234 0.5 1.0 -1.5 0.25 1.8")
    assert_says(error, "line 1", "x y z charge radius")


JOINED = "ATOM  12345 HH31 ACE A1234    -123.456-234.567-345.678-10.5123"


@pytest.mark.parametrize("radius", ["2", "1.4870", " 1.5 0.00"])
def test_a_radius_ends_a_line_whose_fields_run_together(tmp_path, radius) -> None:
    positions, charges = read(tmp_path, JOINED + radius)
    assert_equal((positions.tolist(), charges.tolist()), ([[-123.456, -234.567, -345.678]], [-10.5123]))


@pytest.mark.parametrize("rest", ["", "   ", " 1.5 C", "1 C"])
def test_a_line_without_a_radius_or_with_a_name_after_it_is_refused(tmp_path, rest) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, JOINED + rest)
    assert_says(error, "line 1", "x y z charge radius")


def test_a_few_ions_of_charge_1_are_charges_and_a_chain_of_them_is_not(tmp_path) -> None:
    ions = [f"ATOM {n} NA NA {n} {n}.0 0.0 0.0 1.0 1.8" for n in range(1, 13)]
    assert_equal(read(tmp_path, *ions[:3])[1].tolist(), [1.0, 1.0, 1.0])
    with pytest.raises(DataError) as error:
        read(tmp_path, *ions)
    assert_says(error, "12 atoms", "occupancy")
    for charge in ("-1.0", "2.0"):  # all of one charge, and none of charge 1
        others = [ion.replace(" 1.0 1.8", f" {charge} 1.8") for ion in ions]
        assert_equal(read(tmp_path, *others)[1].tolist(), [float(charge)] * 12)
    mixed = [*ions[:11], ions[11].replace(" 1.0 1.8", " 0.5 1.8")]
    assert_equal(read(tmp_path, *mixed)[1].tolist(), [1.0] * 11 + [0.5])
