"""Layers replaced by smaller ones, and what rounding a weight has lost given back."""
