"""Keys and values that outlive a question: the pool, its rows, what prompts share. csrc/ manages the blocks."""
