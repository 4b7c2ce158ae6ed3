"""Folders for tests that write small files by the thousand."""

from __future__ import annotations

import os
from tempfile import TemporaryDirectory

MEMORY = "/dev/shm"  # where Linux has a file system in memory: to sync a file costs nothing there


def scratch_folder() -> TemporaryDirectory[str]:
    """Make a folder for a `with` statement, in memory if possible."""
    return TemporaryDirectory(prefix="rawdl-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None)
