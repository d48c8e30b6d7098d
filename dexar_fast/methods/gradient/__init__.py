"""Methods that take gradients or relevance at the visual embeddings, which the decoder's first layer reads."""
