"""Dropped privileges: a program that was started as root reads what it does not trust as a user without any right."""

from __future__ import annotations

import ctypes
import os
import signal

NOBODY = 65534
_NO_NEW_PRIVILEGES, _PARENT_DEATH_SIGNAL = 38, 1


def drop_rights() -> None:
    """Give up every right for good, and end with the program that started this one. Raises OSError."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)  # takes every capability along
    library = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_NO_NEW_PRIVILEGES, 1), (_PARENT_DEATH_SIGNAL, signal.SIGKILL)):
        if library.prctl(option, int(value), 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")
