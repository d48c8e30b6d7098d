"""Makes verdicts: a kernel is checked in a process of its own, timed against what it would replace, and kept or not."""
