"""cuDNN's attention, kept out of models on loan: it makes a plan for every number of keys, and each chunk has another.

torch has one switch for the whole process: the first loan turns it off, the last one puts it back.
"""

from __future__ import annotations

from threading import Lock

from torch.backends import cuda

_lock = Lock()
_loans = 0
_was_on = True


def keep_out() -> None:
    """Until `let_in` has been called as often."""
    global _loans, _was_on
    with _lock:
        if _loans == 0:
            _was_on = cuda.cudnn_sdp_enabled()
            cuda.enable_cudnn_sdp(False)
        _loans += 1


def let_in() -> None:
    """One loan less."""
    global _loans
    with _lock:
        _loans -= 1
        if _loans == 0:
            cuda.enable_cudnn_sdp(_was_on)
