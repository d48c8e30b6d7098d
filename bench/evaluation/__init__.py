"""What the methods' maps are worth on Shapes: the figures behind dexar_fast/EVALUATION.md."""
