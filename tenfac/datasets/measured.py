"""Measurements that TensorLy ships: fluorescence, dose responses, a hyperspectral image, serology."""

from dataclasses import replace
from typing import Any

import numpy as np

from tenfac.core.door import door
from tenfac.datasets.dataset import Axis, Dataset

_PINES_CLASSES = (
    "background",
    "alfalfa",
    "corn-notill",
    "corn-mintill",
    "corn",
    "grass-pasture",
    "grass-trees",
    "grass-pasture-mowed",
    "hay-windrowed",
    "oats",
    "soybean-notill",
    "soybean-mintill",
    "soybean-clean",
    "wheat",
    "woods",
    "buildings-grass-trees-drives",
    "stone-steel-towers",
)
_SEROLOGY_CLASSES = ("Negative", "Mild", "Moderate", "Severe", "Deceased")


@door
def load_kinetic(*, outliers: bool = False) -> Dataset:
    """Load the fluorescence of reacting catecholamine mixtures over emission, excitation and time.

    ======= ========== ====== ================= =======================
    mode    name       size   index values      kind
    ======= ========== ====== ================= =======================
    0       sample     59     1..62             labels (64 in the file)
    1       emission   12     472..554.5 nm     continuous, equidistant
    2       excitation 10     362..416 nm       continuous, equidistant
    3       time       60     1/3..20 min       continuous, equidistant
    ======= ========== ====== ================= =======================

    Parameters
    ----------
    outliers : bool
        True keeps the five samples that the source marks as outliers (labels 35, 36, 45, 46, 64); ``target``
        then says for each sample whether it is one. False leaves them out.

    Returns
    -------
    Dataset
        ``values`` of shape (59, 12, 10, 60), or (64, 12, 10, 60), fluorescence in arbitrary units.

    Notes
    -----
    Missing: 1,754 of 460,800 entries (0.38 %; 1,715 or 0.40 % without the outliers), flagged by a mask in
    the source, where they hold zeros. 1,560 of them are one block: sample 28 after 15.67 min. Two more zeros
    and eleven small negative values are not flagged and kept. The description in the source names excitation
    before emission; the sizes and the index values agree with the order given here.

    Licence: available for public use, see ``licence``.

    References
    ----------
    .. [1] R. P. H. Nikolajsen, K. S. Booksh, Å. M. Hansen and R. Bro, Quantifying catecholamines using
       multi-way kinetic modelling, Analytica Chimica Acta 475 (2003) 137-150.
       doi:10.1016/S0003-2670(02)01253-8

    Examples
    --------
    >>> data = load_kinetic()
    >>> data
    Dataset(kinetic: 59 sample × 12 emission × 10 excitation × 60 time, 0.40 % missing)
    >>> data.axis("emission")
    Axis(emission: 12 values, 472..554.5 nm)
    """
    from tensorly import datasets

    bunch = datasets.load_kinetic()
    values = _numpy(bunch["tensor"])
    values[_numpy(bunch["missing_values_position"]).astype(bool)] = np.nan
    sample, emission, excitation, time = bunch["ticks"]
    is_outlier = np.zeros(len(sample), dtype=np.int64)
    is_outlier[list(bunch["outlier_measurements_idx"])] = 1
    data = Dataset(
        name="kinetic",
        values=values,
        modes=(
            Axis("sample", np.asarray(sample)),
            _continuous("emission", emission, "nm"),
            _continuous("excitation", excitation, "nm"),
            _continuous("time", time, "min"),
        ),
        title="Fluorescence of catecholamine mixtures during a reaction",
        value_name="fluorescence",
        unit="a.u.",
        source="Nikolajsen, Booksh, Hansen and Bro, Analytica Chimica Acta 475 (2003) 137-150",
        licence="Available for public use with reference to the source (University of Copenhagen)",
        target=is_outlier,
        target_names=("good", "outlier"),
    )
    if outliers:
        return data
    return replace(data.select("sample", is_outlier == 0), target=None, target_names=())


@door
def load_il2() -> Dataset:
    """Load the responses of immune cells to interleukin-2 muteins over time and dose.

    ==== ====== ==== ================== =========================
    mode name   size index values       kind
    ==== ====== ==== ================== =========================
    0    mutein 13   names              labels
    1    time   4    0.5, 1, 2, 4 h     continuous
    2    dose   12   0.000474..84 nM    continuous, scale ``log``
    3    cell   8    names              labels
    ==== ====== ==== ================== =========================

    Returns
    -------
    Dataset
        ``values`` of shape (13, 4, 12, 8): response in units of the largest one, 0 to 1.

    Notes
    -----
    Missing: 192 of 4,992 entries (3.85 %), in two whole blocks: the muteins "H16N N-term (Biv)" and
    "R38Q N-term (Biv)" were not measured at 0.5 h. The source lists times and doses in descending order; here
    they ascend, each dose three times the one before. The source file states no units; those given here,
    hours and nanomolar, are those of the experiment as published [1]_.

    Licence: MIT-style, Copyright 2021 The Regents of the University of California.

    References
    ----------
    .. [1] B. Orcutt-Jahns, P. C. Emmel, E. M. Snyder, C. Posner, S. M. Carlson and A. S. Meyer, Multivalency
       enhances the specificity of Fc-cytokine fusions, bioRxiv (2021).

    Examples
    --------
    >>> data = load_il2()
    >>> data
    Dataset(il2: 13 mutein × 4 time × 12 dose × 8 cell, 3.85 % missing)
    >>> X, y = data.to_table()          # column 2 is log10(dose)
    >>> X.shape, X[:, 2].min().round(3), X[:, 2].max().round(3)
    ((4800, 4), np.float64(-3.324), np.float64(1.924))
    """
    from tensorly import datasets

    bunch = datasets.load_IL2data()
    mutein, time, dose, cell = bunch["ticks"]
    values = _numpy(bunch["tensor"])
    time, values = _ascending(time, values, 1)
    dose, values = _ascending(dose, values, 2)
    return Dataset(
        name="il2",
        values=values,
        modes=(
            Axis("mutein", np.asarray(mutein)),
            _continuous("time", time, "h"),
            _continuous("dose", dose, "nM", scale="log"),
            Axis("cell", np.asarray(cell)),
        ),
        title="Responses of immune cells to interleukin-2 muteins",
        value_name="response",
        unit="relative",
        source="Orcutt-Jahns, Emmel, Snyder, Posner, Carlson and Meyer, bioRxiv (2021)",
        licence="MIT-style, Copyright 2021 The Regents of the University of California",
    )


@door
def load_indian_pines() -> Dataset:
    """Load the Indian Pines hyperspectral image, with the crop of each pixel.

    ==== ========== ==== =================== ==========
    mode name       size index values        kind
    ==== ========== ==== =================== ==========
    0    row        145  0..144 pixel        continuous
    1    column     145  0..144 pixel        continuous
    2    wavelength 200  400.02..2498.96 nm  continuous
    ==== ========== ==== =================== ==========

    Returns
    -------
    Dataset
        ``values`` of shape (145, 145, 200), sensor counts (whole numbers as floats). ``target`` of shape
        (145, 145) is the class of each pixel, ``target_names`` the 17 classes; class 0 is unlabeled
        background.

    Notes
    -----
    Missing: nothing; of 220 bands the 20 in water absorption were removed by the source.

    Wavelengths are the band centres that TensorLy lists. They step back at three places
    (696.50 to 686.91, 1282.55 to 1273.00 and 2270.15 to 2232.07 nm), where two spectrometers of the
    instrument overlap or the list is approximate. Here the bands are sorted by wavelength, so that a few of
    them near those places stand in another order than in the file.

    Licence: Creative Commons Attribution 3.0.

    References
    ----------
    .. [1] M. F. Baumgardner, L. L. Biehl and D. A. Landgrebe, 220 Band AVIRIS Hyperspectral Image Data Set:
       June 12, 1992 Indian Pine Test Site 3, Purdue University Research Repository (2015).
       doi:10.4231/R7RX991C

    Examples
    --------
    >>> data = load_indian_pines()
    >>> data
    Dataset(indian_pines: 145 row × 145 column × 200 wavelength)
    >>> data.target_names[14], int((data.target == 14).sum())
    ('woods', 1265)
    """
    from tensorly import datasets

    bunch = datasets.load_indian_pines()
    classes, wavelength = bunch["ticks"]
    wavelength, values = _ascending(wavelength, _numpy(bunch["tensor"]), 2)
    rows, columns, _ = values.shape
    return Dataset(
        name="indian_pines",
        values=values,
        modes=(
            _continuous("row", range(rows), "pixel"),
            _continuous("column", range(columns), "pixel"),
            _continuous("wavelength", wavelength, "nm"),
        ),
        title="Hyperspectral image of farmland, with the crop of each pixel",
        value_name="radiance",
        unit="counts",
        source="Baumgardner, Biehl and Landgrebe, Purdue University, doi:10.4231/R7RX991C",
        licence="CC BY 3.0",
        target=np.asarray(classes).astype(np.int64),
        target_names=_PINES_CLASSES,
    )


@door
def load_serology() -> Dataset:
    """Load antibody measurements of COVID-19 patients, with the course of the disease.

    ==== ======== ==== ============ ======
    mode name     size index values kind
    ==== ======== ==== ============ ======
    0    sample   438  1..438       labels
    1    antigen  6    names        labels
    2    receptor 11   names        labels
    ==== ======== ==== ============ ======

    Returns
    -------
    Dataset
        ``values`` of shape (438, 6, 11), centered per antigen and receptor by the source, without unit.
        ``target`` of shape (438,) is the course, in ascending severity: 0 negative to 4 deceased.

    Notes
    -----
    Missing: nothing.

    Licence: MIT-style, Copyright 2022 The Regents of the University of California.

    References
    ----------
    .. [1] Z. C. Tan, M. C. Murphy, H. S. Alpay, S. D. Taylor and A. S. Meyer, Tensor-structured decomposition
       improves systems serology analysis, Molecular Systems Biology 17 (2021) e10243.
       doi:10.15252/msb.202110243
    .. [2] T. Zohar et al., Compromised humoral functional evolution tracks with SARS-CoV-2 mortality,
       Cell 183 (2020) 1508-1519. doi:10.1016/j.cell.2020.10.052

    Examples
    --------
    >>> data = load_serology()
    >>> data
    Dataset(serology: 438 sample × 6 antigen × 11 receptor)
    >>> data.target_names[data.target[0]]
    'Negative'
    """
    from tensorly import datasets

    bunch = datasets.load_covid19_serology()
    courses, antigen, receptor = bunch["ticks"]
    return Dataset(
        name="serology",
        values=_numpy(bunch["tensor"]),
        modes=(
            Axis("sample", np.arange(1, len(courses) + 1)),
            Axis("antigen", np.asarray(antigen)),
            Axis("receptor", np.asarray(receptor)),
        ),
        title="Antibody binding in COVID-19 patients, with the course of the disease",
        value_name="binding",
        unit="centered",
        source="Tan, Murphy, Alpay, Taylor and Meyer, Molecular Systems Biology 17 (2021) e10243",
        licence="MIT-style, Copyright 2022 The Regents of the University of California",
        target=np.array([_SEROLOGY_CLASSES.index(course) for course in courses], dtype=np.int64),
        target_names=_SEROLOGY_CLASSES,
    )


def _numpy(tensor: Any) -> np.ndarray:
    """Copy a TensorLy tensor of whatever backend is set to a C-ordered numpy array of doubles."""
    from tensorly import to_numpy

    return np.array(to_numpy(tensor), dtype=np.float64, order="C")


def _continuous(name: str, values: Any, unit: str, scale: str = "linear") -> Axis:
    return Axis(name, np.asarray(values, dtype=np.float64), unit, continuous=True, scale=scale)


def _ascending(values: Any, array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Sort the index values of one axis, and the array with them."""
    values = np.asarray(values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    return values[order], np.ascontiguousarray(np.take(array, order, axis=axis))
