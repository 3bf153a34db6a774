"""Exact inference over one index: a Kalman smoother where it is continuous, levels where it is discrete."""
