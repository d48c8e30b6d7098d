"""The page of `dexar-fast serve`: ask about a picture, and see where each word of the answer came from."""
