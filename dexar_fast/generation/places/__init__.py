"""Where the visual tokens of a request lie, measured where nobody wrote it down; what was found is kept."""
