"""Adaptive cross approximation of a function: few fibres, a nested core, residuals."""
