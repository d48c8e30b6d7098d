"""What runs a model on a request and hands on its tokens: prefill, decode, stream. Maps are computed elsewhere."""
