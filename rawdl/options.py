"""The options of `Client.download_file` as a type, for what hands them on to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Required, TypedDict

if TYPE_CHECKING:
    from rawdl.errors import DownloadError
    from rawdl.proto.auth import Credentials
    from rawdl.proto.messages import Limits
    from rawdl.proto.pacing import LowSpeed
    from rawdl.proto.redirects import Redirects
    from rawdl.proto.retry import Retry
    from rawdl.proto.timeouts import Timeouts
    from rawdl.results import DownloadResult


class CommonOptions(TypedDict, total=False):
    """Those that say nothing of what one file is, and where it goes."""

    header: Mapping[str, str | None] | None
    timeout: float | None
    success: Callable[[DownloadResult], object] | None
    fail: Callable[[DownloadError], object] | None
    complete: Callable[[DownloadResult | DownloadError], object] | None
    exists: str
    resume: bool | str
    connections: int
    min_segment: int
    durable: bool
    remote_time: bool
    decode: bool
    timeouts: Timeouts | None
    retry: Retry | None
    redirects: Redirects | None
    limits: Limits | None
    low_speed: LowSpeed | tuple[float, float] | None
    rate_limit: float | None
    auth: Credentials | tuple[str, str] | str | None
    proxy: str | None
    fail_on_status: bool
    use_suggested_name: bool
    progress_interval: float


class MoreOptions(CommonOptions, total=False):
    """Those beside the URL and the path."""

    sink: object
    directory: str | os.PathLike[str] | None
    mirrors: Iterable[str]
    checksum: str | None


class TaskOptions(MoreOptions, total=False):
    """All of them."""

    url: Required[str | None]
    file_path: str | os.PathLike[str] | None
