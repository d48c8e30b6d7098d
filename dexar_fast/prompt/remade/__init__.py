"""The pixels of given inputs made again: of which pictures they are, with which settings, and of other pictures."""
