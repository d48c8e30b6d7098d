"""The mathematics of METHOD.md: one pass over the answer's rows, layer by layer. Nothing here loads or generates."""
