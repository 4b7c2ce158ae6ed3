"""Clients whose tasks are tried once: for tests of what one try does."""

from __future__ import annotations

from typing import Any

import rawdl
from rawdl.proto.retry import Retry

ONE_TRY = Retry(attempts=1)


def client(**options: Any) -> rawdl.Client:
    """Make a client; the options are those of `rawdl.Client`."""
    return rawdl.Client(**{"retry": ONE_TRY, **options})
