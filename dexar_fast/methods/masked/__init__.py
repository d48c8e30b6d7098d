"""Methods that hide parts of the pictures and see what becomes of the answer's probability: forwards alone."""
