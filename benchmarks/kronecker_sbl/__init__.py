"""Parts of the benchmark of KroneckerSBL; ``python -m benchmarks.kronecker_sbl`` runs them."""
