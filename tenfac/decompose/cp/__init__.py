"""CP decomposition (PARAFAC): starts, sweeps, the search, the rank, what two results share."""
