"""Download a URL into a file, as a task that can be listened to and aborted.

    import rawdl

    result = rawdl.download("https://example.org/a.iso", "a.iso")

The names below are the public ones; all else may change between releases.  Each is loaded when it is first used.
"""

from __future__ import annotations

from rawdl.version import __version__

TYPE_CHECKING = False  # as typing has it, without loading typing
if TYPE_CHECKING:
    from typing import Any

    from rawdl.client import Client, download, download_file
    from rawdl.errors import (
        Aborted,
        ChecksumError,
        ConnectError,
        ConnectionLost,
        DecodingError,
        DownloadError,
        IncompleteBody,
        IncompleteHead,
        InvalidURL,
        NetworkError,
        ProtocolError,
        ProxyError,
        RangeError,
        RedirectError,
        ResolveError,
        StatusError,
        StorageError,
        Timeout,
        TLSError,
        TooLarge,
    )
    from rawdl.profile import Profile
    from rawdl.proto.auth import BasicAuth, BearerAuth, DigestAuth
    from rawdl.proto.messages import Headers, Limits
    from rawdl.proto.pacing import LowSpeed
    from rawdl.proto.progress import ProgressUpdate
    from rawdl.proto.redirects import Redirects
    from rawdl.proto.retry import Retry
    from rawdl.proto.timeouts import Phase, Timeouts
    from rawdl.results import DownloadResult, HeadersReceived
    from rawdl.sinks import DiscardSink, MemorySink
    from rawdl.task import DownloadTask, TaskState
    from rawdl.tls import TLS

_WHERE = {
    "client": ("Client", "download", "download_file"),
    "errors": (
        "Aborted",
        "ChecksumError",
        "ConnectError",
        "ConnectionLost",
        "DecodingError",
        "DownloadError",
        "IncompleteBody",
        "IncompleteHead",
        "InvalidURL",
        "NetworkError",
        "ProtocolError",
        "ProxyError",
        "RangeError",
        "RedirectError",
        "ResolveError",
        "StatusError",
        "StorageError",
        "TLSError",
        "Timeout",
        "TooLarge",
    ),
    "proto.auth": ("BasicAuth", "BearerAuth", "DigestAuth"),
    "proto.messages": ("Headers", "Limits"),
    "proto.pacing": ("LowSpeed",),
    "proto.progress": ("ProgressUpdate",),
    "proto.redirects": ("Redirects",),
    "proto.retry": ("Retry",),
    "proto.timeouts": ("Phase", "Timeouts"),
    "profile": ("Profile",),
    "results": ("DownloadResult", "HeadersReceived"),
    "sinks": ("DiscardSink", "MemorySink"),
    "task": ("DownloadTask", "TaskState"),
    "tls": ("TLS",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "TLS",
    "Aborted",
    "BasicAuth",
    "BearerAuth",
    "ChecksumError",
    "Client",
    "ConnectError",
    "ConnectionLost",
    "DecodingError",
    "DigestAuth",
    "DiscardSink",
    "DownloadError",
    "DownloadResult",
    "DownloadTask",
    "Headers",
    "HeadersReceived",
    "IncompleteBody",
    "IncompleteHead",
    "InvalidURL",
    "Limits",
    "LowSpeed",
    "MemorySink",
    "NetworkError",
    "Phase",
    "Profile",
    "ProgressUpdate",
    "ProtocolError",
    "ProxyError",
    "RangeError",
    "RedirectError",
    "Redirects",
    "ResolveError",
    "Retry",
    "StatusError",
    "StorageError",
    "TLSError",
    "TaskState",
    "Timeout",
    "Timeouts",
    "TooLarge",
    "__version__",
    "download",
    "download_file",
]


if not TYPE_CHECKING:  # a type checker is to miss a name that is none of these

    def __getattr__(name: str) -> Any:
        home = _HOME.get(name)
        if home is None:
            raise AttributeError(f"module 'rawdl' has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"rawdl.{home}"), name)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
