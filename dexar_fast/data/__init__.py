"""Synthetic data that ships with the package."""
