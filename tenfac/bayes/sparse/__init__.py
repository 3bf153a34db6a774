"""Sparse Bayesian recovery with Kronecker dictionaries: ``KroneckerSBL`` in ``kronecker_sbl``, and its peers."""
