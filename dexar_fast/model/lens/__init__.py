"""The logit lens: what a model does between its last decoder layer and its logits, traced from its own forward."""
