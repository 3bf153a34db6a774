"""A function through scattered, noisy values: a start, the fit, and the search for its size."""
