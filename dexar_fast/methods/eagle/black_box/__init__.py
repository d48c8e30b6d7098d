"""EAGLE for models that only tell probabilities: a function, or a server behind HTTP."""

from dexar_fast.methods.eagle.black_box.endpoint import Endpoint
from dexar_fast.methods.eagle.black_box.explaining import explain_black_box

__all__ = ["Endpoint", "explain_black_box"]
