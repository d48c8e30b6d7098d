"""Many requests at once: grouped, run side by side, each explained as if it were alone."""
