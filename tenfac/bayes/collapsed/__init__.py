"""The default inference: coefficients integrated out, hyperparameters by evidence."""
