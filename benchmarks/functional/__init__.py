"""Parts of the benchmark of functional Bayesian Tucker; ``benchmarks/functional_tucker.py`` runs them."""
