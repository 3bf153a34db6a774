"""Real data that ships in dependencies: named modes, units, index values ascending, no download; makers."""

from tenfac.datasets.catalogue import load, names
from tenfac.datasets.dataset import Axis, Dataset
from tenfac.datasets.images import load_digits, load_sample_image
from tenfac.datasets.irs import IRSChannel, make_irs_channel
from tenfac.datasets.measured import load_il2, load_indian_pines, load_kinetic, load_serology
from tenfac.datasets.sparse import SparseProblem, make_kronecker_sparse

__all__ = [
    "Axis",
    "Dataset",
    "IRSChannel",
    "SparseProblem",
    "load",
    "load_digits",
    "load_il2",
    "load_indian_pines",
    "load_kinetic",
    "load_sample_image",
    "load_serology",
    "make_irs_channel",
    "make_kronecker_sparse",
    "names",
]
