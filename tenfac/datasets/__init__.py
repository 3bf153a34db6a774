"""Real data that ships in tenfac's dependencies: named modes, units, index values ascending, no download."""

from tenfac.datasets.catalogue import load, names
from tenfac.datasets.dataset import Axis, Dataset
from tenfac.datasets.images import load_digits, load_sample_image
from tenfac.datasets.measured import load_il2, load_indian_pines, load_kinetic, load_serology

__all__ = [
    "Axis",
    "Dataset",
    "load",
    "load_digits",
    "load_il2",
    "load_indian_pines",
    "load_kinetic",
    "load_sample_image",
    "load_serology",
    "names",
]
