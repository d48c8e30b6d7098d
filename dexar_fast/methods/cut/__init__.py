"""Pictures cut into regions, and scored with some of them hidden. Which to hide is decided by the search above."""
