"""Interfaces of other tools over this engine, one file for each tool. They only translate: nothing is computed here."""

from dexar_fast.compat.dexar import DexarResult, DexarWrapper, visualize, visualize_multi

__all__ = ["DexarResult", "DexarWrapper", "visualize", "visualize_multi"]
