"""The arrays that are compared with the oracle."""

from __future__ import annotations

ARRAYS = (
    "visual_scores",
    "text_scores",
    "head_weights",
    "token_weights",
    "token_maps",
    "unfiltered_token_maps",
    "sequence_map",
)
