"""Structured updates of the frozen weights of torch layers: a core and one factor per mode of the weight."""

from importlib.util import find_spec

from ..core.errors import MissingExtraError

if find_spec("torch") is None:
    raise MissingExtraError(
        "adapters need torch. Install it with: pip install 'tenfac[adapters]' (CPU: see README, Install)."
    )
