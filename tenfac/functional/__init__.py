"""Functions of several variables as Tucker formats with Chebyshev modes."""
