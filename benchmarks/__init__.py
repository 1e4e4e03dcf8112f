"""Measurements: of results, and of speed."""
