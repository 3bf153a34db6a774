"""Sparse Bayesian recovery with Kronecker dictionaries."""
