"""What a GPU tells within a minute, before anything is timed at length."""
