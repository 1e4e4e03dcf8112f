"""Differential privacy: what is released, what it costs, and what has been spent."""
