"""Models that read their image elsewhere than among the prompt's ids: by cross-attention, an encoder, a mask."""
