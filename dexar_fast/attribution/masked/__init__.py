"""Forwards over pictures of which parts are hidden, in batches. Which parts to hide is decided by methods."""
