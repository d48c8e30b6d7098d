"""Other tools' interfaces over this engine, a file a tool. What they show is theirs; what is computed is not here."""

from dexar_fast.compat.dexar import DexarResult, DexarWrapper, visualize, visualize_multi

__all__ = ["DexarResult", "DexarWrapper", "visualize", "visualize_multi"]
