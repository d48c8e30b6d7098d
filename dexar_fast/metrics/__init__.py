"""Scores of maps and answers."""
