"""A death at a given time that nothing can hold up: not a lock of the interpreter, not a library that hangs."""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import struct

STDERR = 2  # the descriptor itself: sys.stderr may be something else
_CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0


class KillTimer:
    """Ends this process by SIGKILL, after it has printed its stack (Linux).

    By a signal, because MPI with fault tolerance notices only such deaths: a rank that exits is waited for for ever
    (measured with Open MPI 5.0.11).
    """

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = ctypes.c_void_p()
        event = ctypes.create_string_buffer(struct.pack("qii48x", 0, signal.SIGKILL, _SIGEV_SIGNAL))
        if self._libc.timer_create(_CLOCK_MONOTONIC, event, ctypes.byref(self._timer)) != 0:
            raise OSError(ctypes.get_errno(), "timer_create")

    def arm(self, seconds: float) -> None:
        """Die in so many seconds, unless armed again or disarmed before."""
        faulthandler.dump_traceback_later(seconds, file=STDERR)
        self._set(seconds + 0.5)

    def disarm(self) -> None:
        """Live on."""
        faulthandler.cancel_dump_traceback_later()
        self._set(0.0)

    def _set(self, seconds: float) -> None:
        whole = int(seconds)
        spec = ctypes.create_string_buffer(struct.pack("qqqq", 0, 0, whole, int((seconds - whole) * 1e9)))
        if self._libc.timer_settime(self._timer, 0, spec, None) != 0:
            raise OSError(ctypes.get_errno(), "timer_settime")
