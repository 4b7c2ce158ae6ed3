"""Blocks that a file system sets aside for a file which is still to be written, where Linux can have it do so.

They lie close together then, a disk that is too full says so before the first byte, and each write costs less.  The
file's size stays that of what was written, by which a later download goes on.  `os.posix_fallocate` would change it,
and where a file system cannot do it, glibc writes into every block instead.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Final

FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# FS_IOC_RESVSP64 of <linux/falloc.h>: fallocate(2) with FALLOC_FL_KEEP_SIZE, which Python has no other way to.  Its
# argument has 48 bytes, of which the second eight are the first byte, the third eight the length, and all others 0.  A
# machine that numbers its requests otherwise does not know this one (ENOTTY).
_RESERVE: Final = 0x4030582A


def reserve(fd: int, size: int) -> None:
    """Set blocks aside from the end of the file up to ``size`` bytes; do nothing where that cannot be had.

    Not for what is there, nor twice: XFS wants room for all that it is asked for, whether it has blocks already or not.
    And not in memory, which would be taken at once, at the mere word of a server.

    Raises OSError if there is no room for so many: ENOSPC, EDQUOT or EFBIG.  Some may be set aside all the same.
    """
    if sys.platform != "linux" or size >= 1 << 63:
        return
    from fcntl import ioctl

    status = os.fstat(fd)
    written = status.st_size
    if size <= written or is_memory(status.st_dev):
        return
    try:
        ioctl(fd, _RESERVE, bytes(8) + _eight(written) + _eight(size - written) + bytes(24))
    except OSError as exc:
        if exc.errno in FULL:
            raise
    else:
        if os.fstat(fd).st_size != written:  # a file system that does not know what it was asked for
            os.ftruncate(fd, written)


def is_memory(device: int) -> bool:
    """Return whether the file system of a device (``st_dev``) is in memory."""
    if os.major(device):  # a disk; what has none is numbered 0:n
        return False
    name = f"0:{os.minor(device)}".encode()
    try:
        with open("/proc/self/mountinfo", "rb") as mounts:
            kinds = [line.partition(b" - ")[2] for line in mounts if line.split(maxsplit=3)[2] == name]
    except OSError:
        return False
    return any(kind.startswith((b"tmpfs ", b"ramfs ")) for kind in kinds)


def _eight(number: int) -> bytes:
    return number.to_bytes(8, sys.byteorder)
