"""What an explanation holds: its arrays and their schema, its file, a long answer's shards. Nothing here draws."""
