"""What the layers of our caches have in common: they count their tokens, and keep every one."""

from __future__ import annotations

from transformers.cache_utils import CacheLayerMixin


class CountingLayer(CacheLayerMixin):
    """A layer of `length` tokens, of which any number can be dropped at the end."""

    is_croppable = True
    length = 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1  # transformers' word for none
