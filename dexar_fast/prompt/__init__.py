"""From a question to a model's inputs: chat messages, templates, token ids, checks, which pictures the model saw."""
