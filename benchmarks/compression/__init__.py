"""Accuracy against the bytes that clients send."""
