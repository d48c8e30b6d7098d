"""Loads models and their adapters from a folder or the Hub, whole, or refuses them. What a model is: see model/."""
