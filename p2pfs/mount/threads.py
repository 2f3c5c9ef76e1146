"""Python's state of each of libfuse's threads, kept until that thread ends.

Python does not know the threads that libfuse starts. For each call-back it makes a thread
state, maps a stack for it, and unmaps it afterwards, which interrupts every other processor.
Kept from one call-back to the next, a cold read of 1 GiB was 12 % faster (medians of five).
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any, Final

_python: Final = ctypes.pythonapi
_states: Final = threading.local()

_at_end: Final[Any] = getattr(ctypes.CDLL(None), "__cxa_thread_atexit_impl", None)
"""What the C library calls destructors of thread-local objects with, last registered first and
before it forgets whose Python's thread state is. musl has no such thing: nothing is kept there."""

_PYTHON: Final = ctypes.cast(_python.PyGILState_Release, ctypes.c_void_p)
"""Some address in the library that must stay loaded until then. It may not be 0."""


def is_our_own() -> None:
    """Note that the calling thread was started by Python, which keeps its state itself."""
    _states.kept = None


def keep_state() -> None:
    """Keep Python's state of the calling thread, which was started by others, until it ends."""
    try:
        _states.kept  # noqa: B018 - at each call-back: 50 ns
    except AttributeError:
        if _at_end is not None and _at_end(_thread_ends, None, _PYTHON) == 0:
            _states.kept = _python.PyGILState_Ensure()  # once more than the call-back did


def _let_go(_nothing: object) -> None:
    """Let the state go at the end of this call-back, which is the thread's last."""
    _python.PyGILState_Release(_states.kept)


_thread_ends: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_let_go)
