"""What runs a model on a question and hands on its tokens: prefill, decode, stream. Maps are computed elsewhere."""
