"""What makes many forwards of one model fast."""
