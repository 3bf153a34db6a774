"""Parts of the benchmark of adapters; ``python -m benchmarks.adapters`` runs them."""
