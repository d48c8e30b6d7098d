"""Models at the door: from a folder or the Hub, with their adapters, whole or refused. What a model is: see model/."""
