"""Structured updates of the frozen weights of torch layers: a core and one factor per mode of the weight."""
