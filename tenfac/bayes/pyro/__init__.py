"""The same model as a Pyro program: NUTS and stochastic variational inference."""
