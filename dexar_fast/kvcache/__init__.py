"""Keys and values that outlive a request: the pool, its rows, what prompts share. csrc/ manages the blocks."""
