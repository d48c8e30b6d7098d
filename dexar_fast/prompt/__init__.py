"""From a question to a model's inputs: chat messages, templates, token ids, and what is checked of them."""
