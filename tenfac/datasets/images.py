"""Images that scikit-learn ships: handwritten digits and two photographs."""

import numpy as np

from tenfac.core.door import door
from tenfac.core.errors import MissingExtraError, check_option
from tenfac.datasets.dataset import Axis, Dataset

_PHOTOGRAPHS = {"china": "Photograph of a temple in China", "flower": "Photograph of a flower"}
_AUTHORS = {"china": "danielbuechele", "flower": "vultilion"}


@door
def load_digits() -> Dataset:
    """Load handwritten digits, 8 by 8 pixels each.

    ==== ====== ==== ============ ==========
    mode name   size index values kind
    ==== ====== ==== ============ ==========
    0    image  1797 0..1796      labels
    1    row    8    0..7 pixel   continuous
    2    column 8    0..7 pixel   continuous
    ==== ====== ==== ============ ==========

    Returns
    -------
    Dataset
        ``values`` of shape (1797, 8, 8): how many of the 16 cells under each pixel are inked, 0 to 16.
        ``target`` of shape (1797,) is the digit.

    Notes
    -----
    Missing: nothing. Licence: Creative Commons Attribution 4.0 (UCI Machine Learning Repository).

    References
    ----------
    .. [1] E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
       Repository (1998). doi:10.24432/C50P49

    Examples
    --------
    >>> data = load_digits()
    >>> data
    Dataset(digits: 1797 image × 8 row × 8 column)
    >>> data.target[:5]
    array([0, 1, 2, 3, 4])
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    values = np.array(bunch.images, dtype=np.float64)
    return Dataset(
        name="digits",
        values=values,
        modes=(Axis("image", np.arange(len(values))), _pixels("row", 8), _pixels("column", 8)),
        title="Handwritten digits, 8 by 8 pixels",
        value_name="ink",
        unit="cells of 16",
        source="Alpaydin and Kaynak, UCI Machine Learning Repository (1998), doi:10.24432/C50P49",
        licence="CC BY 4.0",
        target=np.asarray(bunch.target, dtype=np.int64),
        target_names=tuple("0123456789"),
    )


@door
def load_sample_image(name: str) -> Dataset:
    """Load a color photograph.

    ==== ====== ==== ================ ==========
    mode name   size index values     kind
    ==== ====== ==== ================ ==========
    0    row    427  0..426 pixel     continuous
    1    column 640  0..639 pixel     continuous
    2    color  3    red, green, blue labels
    ==== ====== ==== ================ ==========

    Parameters
    ----------
    name : {"china", "flower"}
        A building among trees, or a flower before a blurred background.

    Returns
    -------
    Dataset
        ``values`` of shape (427, 640, 3), whole numbers from 0 to 255 as floats.

    Raises
    ------
    DataError
        If there is no photograph of that name.
    MissingExtraError
        If Pillow, which reads the file, is not installed.

    Notes
    -----
    Missing: nothing. Licence: Creative Commons Attribution 2.0.

    References
    ----------
    .. [1] Photographs by danielbuechele ("china") and vultilion ("flower"), 2011, as they ship in
       scikit-learn.

    Examples
    --------
    >>> load_sample_image("china")
    Dataset(china: 427 row × 640 column × 3 color)
    """
    check_option(name, _PHOTOGRAPHS, "load_sample_image", "name")
    from sklearn import datasets

    try:
        values = np.array(datasets.load_sample_image(f"{name}.jpg"), dtype=np.float64)
    except ImportError as error:
        raise MissingExtraError(
            "`load_sample_image` needs Pillow, which comes with matplotlib. "
            "Install it with: pip install 'tenfac[plot]'"
        ) from error
    rows, columns, _ = values.shape
    return Dataset(
        name=name,
        values=values,
        modes=(
            _pixels("row", rows),
            _pixels("column", columns),
            Axis("color", np.array(["red", "green", "blue"])),
        ),
        title=_PHOTOGRAPHS[name],
        value_name="intensity",
        unit="of 255",
        source=f"Photograph by {_AUTHORS[name]} (2011), shipped in scikit-learn",
        licence="CC BY 2.0",
    )


def _pixels(name: str, size: int) -> Axis:
    return Axis(name, np.arange(size, dtype=np.float64), "pixel", continuous=True)
