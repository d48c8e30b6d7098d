"""The searches: each puts the regions of a picture in order, from scores of partly revealed pictures."""
