"""Sums over many centers: Gaussians, and the potential, field, energy and forces of charges."""
