"""Scores of maps and answers, each a pure function."""
