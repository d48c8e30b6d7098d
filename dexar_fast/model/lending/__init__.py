"""A model lent to one user at a time, in one process, and given back as it was. What it computes is not known here."""
