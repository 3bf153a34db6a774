"""How an observation comes about, given the function: densities, moments and draws of new ones.

The function f is Gaussian on a scale of its own; a response carries it to the mean of y (a rate, a
probability) or, where noise is added to f, to y itself.
"""
