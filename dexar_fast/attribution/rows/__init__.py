"""Attention probabilities of the rows in question, and what is made of them, in blocks of rows: never all of [S, S]."""
