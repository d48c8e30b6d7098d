"""EAGLE (arXiv 2509.22496): which few regions of a picture an answer needs, found by hiding regions in forwards."""

from dexar_fast.methods.eagle.search import search

__all__ = ["search"]
