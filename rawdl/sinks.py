"""Where the bytes of a body go.

A sink is opened before the request, written to in order, and then either committed or discarded, once.  What it raises
becomes a `StorageError` here, at the border, and nowhere else.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rawdl.errors import StorageError, too_large

if TYPE_CHECKING:
    import hashlib


class Sink:
    """The surface of all sinks; the default does nothing with what it is given."""

    __slots__ = ()

    restartable = True  # whether what was written can be taken back, by `restart`
    portion = sys.maxsize  # how many bytes it takes in one turn, where more could hold up the loop

    @property
    def path(self) -> str | None:
        """The file that is written, where it is one."""
        return None

    def open(self) -> None:
        """Get ready for a body that begins at its first byte.  Everything before is forgotten."""

    def restart(self) -> None:
        """Forget what was written since `open`: the body begins anew."""
        self.open()

    def expect(self, count: int) -> None:
        """So many bytes are to come, as the server has it.  StorageError where there is no room for them."""

    def write(self, data: memoryview) -> None:
        """Take all of ``data``, which is valid during the call only."""

    def write_pieces(self, pieces: list[memoryview]) -> None:
        """Take all of the pieces, which follow one another."""
        for data in pieces:
            self.write(data)

    def splice_target(self) -> int | None:
        """Return the descriptor of a regular file that the kernel may write to by itself, at its position; or None."""
        return None

    def splice_offset(self) -> int | None:
        """Return where in that file it shall write; None: at the file's position."""
        return None

    def room(self) -> int:
        """Return how many bytes may be written at most; more are dropped."""
        return sys.maxsize

    def spliced(self, n: int) -> None:
        """Take note that the kernel has written ``n`` bytes."""

    def commit(self) -> None:
        """The body is complete: make it visible."""

    def revoke(self) -> None:
        """Take a commit back."""

    def discard(self) -> None:
        """The body will not be completed: leave nothing behind.  Does not raise; does nothing after a commit."""

    def failed(self, exc: OSError) -> StorageError:
        """Translate an error of the operating system."""
        return storage_error("cannot write", None, exc)


class DiscardSink(Sink):
    """Drop the bytes: for measuring, and for those who want the header only."""

    __slots__ = ("_fd",)

    def __init__(self) -> None:
        self._fd = -1

    def open(self) -> None:
        self.discard()
        with suppress(OSError):  # without it the bytes are dropped here instead of by the kernel
            self._fd = os.open(os.devnull, os.O_WRONLY | getattr(os, "O_CLOEXEC", 0))

    def splice_target(self) -> int | None:
        return self._fd if self._fd >= 0 else None

    def commit(self) -> None:
        self.discard()

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __repr__(self) -> str:
        return f"<DiscardSink {'open' if self._fd >= 0 else 'closed'}>"


class MemorySink(Sink):
    """Keep the body in memory; `getvalue` returns it once the download has succeeded."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def open(self) -> None:
        self._pieces.clear()

    def write(self, data: memoryview) -> None:
        self._pieces.append(bytes(data))

    def revoke(self) -> None:
        self._pieces.clear()

    discard = revoke

    def getvalue(self) -> bytes:
        """Return the body; empty while there is none."""
        if len(self._pieces) > 1:
            self._pieces[:] = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def __repr__(self) -> str:
        return f"<MemorySink {sum(map(len, list(self._pieces)))} bytes>"


@runtime_checkable
class Writable(Protocol):
    """An object with ``write``, such as an open binary file; it is not closed by rawdl."""

    def write(self, data: memoryview, /) -> int | None: ...


class WritableSink(Sink):
    """Write to somebody's object; a short write is continued, an exception becomes the cause of a StorageError."""

    __slots__ = ("_target",)

    restartable = False

    def __init__(self, target: Writable) -> None:
        self._target = target

    def write(self, data: memoryview) -> None:
        while len(data):
            try:
                n = self._target.write(data)
            except Exception as exc:
                raise sink_error("write()", exc) from exc
            if n is None and isinstance(self._target, io.RawIOBase):
                raise StorageError("the sink's write() took nothing: it does not block", errno=errno.EAGAIN)
            if n is None:  # as many a write() returns that took all
                return
            if not hasattr(n, "__index__") or not 0 < n <= len(data):
                raise StorageError(f"the sink's write() took {n!r} of {len(data)} bytes")
            data = data[n:]

    def __repr__(self) -> str:
        return f"<WritableSink to {type(self._target).__name__}>"


class CallableSink(Sink):
    """Hand each piece to somebody's function."""

    __slots__ = ("_function",)

    restartable = False

    def __init__(self, function: Callable[[memoryview], object]) -> None:
        self._function = function

    def write(self, data: memoryview) -> None:
        try:
            self._function(data)
        except Exception as exc:
            raise sink_error("function", exc) from exc

    def __repr__(self) -> str:
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        return f"<CallableSink to {name}>"


class Decoding(Protocol):
    """What takes the content codings off."""

    def pieces(self, data: memoryview, /) -> Iterable[bytes]: ...


class DecodingSink(Sink):
    """Take the content codings off, on the way to another sink."""

    __slots__ = ("_decoding", "_sink")

    # Of gzip a thousand times as many may come: these take some tens of milliseconds then, and mostly less than one.
    portion = 16384

    def __init__(self, sink: Sink, decoding: Decoding) -> None:
        self._sink = sink
        self._decoding = decoding

    def write(self, data: memoryview) -> None:
        for piece in self._decoding.pieces(data):
            self._sink.write(memoryview(piece))

    def __repr__(self) -> str:
        return f"<DecodingSink to {self._sink!r}>"


class LimitedSink(Sink):
    """Refuse the byte after the ``most``-th with `TooLarge`, before anything of its piece is written."""

    __slots__ = ("_left", "_most", "_sink", "portion")

    def __init__(self, sink: Sink, most: int, there: int) -> None:
        self._sink = sink
        self._most = most
        self._left = most - there
        self.portion = sink.portion

    def write(self, data: memoryview) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise too_large(self._most - self._left, self._most)
        self._sink.write(data)

    def __repr__(self) -> str:
        return f"<LimitedSink {self._left} bytes left to {self._sink!r}>"


class HashingTee(Sink):
    """Hash what goes to another sink; ``hashes`` are hashlib objects by name."""

    __slots__ = ("_sink", "hashes")

    def __init__(self, sink: Sink, names: Iterable[str]) -> None:
        import hashlib

        self._sink = sink
        self.hashes: dict[str, hashlib._Hash] = {name: hashlib.new(name) for name in names}

    def write(self, data: memoryview) -> None:
        for digest in self.hashes.values():
            digest.update(data)
        self._sink.write(data)

    def __repr__(self) -> str:
        return f"<HashingTee {', '.join(self.hashes)} to {self._sink!r}>"


class TemporaryFile(Sink):
    """A new file in ``directory`` (None: the system's folder for such), which is the caller's to delete.

    ``suffix`` ends its name.  The file is 0600, as temporary files are.
    """

    __slots__ = ("_directory", "_fd", "_suffix", "path")

    def __init__(self, directory: str | None, suffix: str) -> None:
        self._directory = directory
        self._suffix = suffix
        self._fd = -1
        self.path: str | None = None

    def open(self) -> None:
        directory = self._directory
        if directory is None:
            from tempfile import gettempdir

            directory = gettempdir()
        for _ in range(100):  # as many as tempfile tries by default would be 10000; 64 random bits need one
            path = os.path.join(directory, f"rawdl-{os.urandom(8).hex()}{self._suffix}")
            try:
                self._fd = create(path)
            except FileExistsError:
                continue
            except OSError as exc:
                raise storage_error("cannot create", path, exc) from exc
            self.path = path
            return
        raise StorageError(f"no free name for a temporary file in {directory}", path=directory)

    def restart(self) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        except OSError as exc:
            raise storage_error("cannot truncate", self.path, exc) from exc

    def expect(self, count: int) -> None:
        free = free_bytes(self._fd)
        if free is not None and count > free:
            raise no_room(self.path, count, free)

    def write(self, data: memoryview) -> None:
        write_all(self._fd, data, self.path)

    def write_pieces(self, pieces: list[memoryview]) -> None:
        write_pieces(self._fd, pieces, self.path)

    def splice_target(self) -> int | None:
        return self._fd

    def commit(self) -> None:
        fd, self._fd = self._fd, -1
        try:
            close(fd, self.path)
        except StorageError:
            self.revoke()
            raise

    def revoke(self) -> None:
        if self.path is not None:
            remove(self.path)

    def discard(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.revoke()

    def failed(self, exc: OSError) -> StorageError:
        return storage_error("cannot write", self.path, exc)

    def __repr__(self) -> str:
        return f"<TemporaryFile {self.path or 'without a name'} {'open' if self._fd >= 0 else 'closed'}>"


def as_sink(target: object) -> Sink:
    """Wrap what a caller gave as a sink: one of ours, an object with ``write``, or a callable."""
    if isinstance(target, Sink):
        return target
    if isinstance(target, Writable):
        return WritableSink(target)
    if callable(target):
        return CallableSink(target)
    raise TypeError(f"a sink is a callable or has write(); {type(target).__name__} is neither")


# The border to the operating system

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_CREATE |= getattr(os, "O_BINARY", 0)
_MOST_PIECES = 1024  # in one call of writev (IOV_MAX on Linux and macOS)


def create(path: str) -> int:
    """Open a file that did not exist, for nobody but us to read until it is complete."""
    return os.open(path, _CREATE, 0o600)


def write_all(fd: int, data: memoryview, path: str | None) -> None:
    """Write all of it; a disk may take a part."""
    try:
        n = os.write(fd, data)
        while n < len(data):
            data = data[n:]
            n = os.write(fd, data)
    except OSError as exc:
        raise storage_error("cannot write", path, exc) from exc


def write_pieces(fd: int, pieces: list[memoryview], path: str | None) -> None:
    """Write all the pieces in one call, where that works: a file system likes large writes better than many."""
    if len(pieces) == 1 or len(pieces) > _MOST_PIECES or not hasattr(os, "writev"):
        for data in pieces:
            write_all(fd, data, path)
        return
    try:
        n = os.writev(fd, pieces)
    except OSError as exc:
        raise storage_error("cannot write", path, exc) from exc
    for data in pieces:
        if n < len(data):
            write_all(fd, data[n:], path)
        n = max(0, n - len(data))


def close(fd: int, path: str | None) -> None:
    """Close a written file; some file systems say only now that the bytes did not fit."""
    try:
        os.close(fd)
    except OSError as exc:
        raise storage_error("cannot write", path, exc) from exc


def remove(path: str) -> None:
    """Remove a file of ours, if it is still there."""
    try:
        os.unlink(path)
    except OSError:
        return


def free_bytes(fd: int) -> int | None:
    """Return how much room the file system of an open file has; None if that cannot be told."""
    try:
        system = os.fstatvfs(fd)
    except (OSError, AttributeError):
        return None  # what cannot tell will say so when it is full
    return system.f_bavail * system.f_frsize if system.f_blocks else None


def no_room(path: str | None, missing: int, free: int) -> StorageError:
    """Say that a file will not fit."""
    return StorageError(f"{path} needs {missing} more bytes, and {free} are free", path=path, errno=errno.ENOSPC)


def native_name(name: str) -> str:
    """Return a name as the system can have it: where its encoding lacks a character, as the bytes of UTF-8."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return os.fsdecode(name.encode())
    return name


def storage_error(what: str, path: str | None, exc: OSError) -> StorageError:
    """Say which file, and what the operating system said."""
    where = f" {path}" if path is not None else ""
    return StorageError(f"{what}{where}: {exc.strerror or exc}", path=path, errno=exc.errno)


def sink_error(what: str, exc: Exception) -> StorageError:
    """Say that the caller's own sink raised."""
    errno = exc.errno if isinstance(exc, OSError) else None
    return StorageError(f"the sink's {what} raised {type(exc).__name__}: {exc}", errno=errno)
