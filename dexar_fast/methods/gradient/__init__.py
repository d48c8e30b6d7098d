"""Methods that take gradients or relevance at the visual embeddings: what the decoder's first layer reads of a picture."""
