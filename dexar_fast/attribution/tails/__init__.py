"""The layer tails whose gradient is known without autograd, and when they are trusted."""
