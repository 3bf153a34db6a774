"""Structured updates of the frozen weights of torch layers: a core and one factor per mode of the weight."""

from importlib.util import find_spec

from tenfac.core.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError(
        "tenfac's adapters need PyTorch. Install it with: pip install 'tenfac[adapters]' (for the CPU build, "
        "see README, Install)."
    )
