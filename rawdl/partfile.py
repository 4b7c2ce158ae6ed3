"""A file that appears under its name only when it is complete: written as ``NAME.part``, then renamed.

The part is created new (O_EXCL, O_NOFOLLOW) and readable by its owner only; what is found under that name before is
removed if it is a regular file, and refused if it is not.  Whatever is renamed or removed is first seen to be the very
file that was created here.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from rawdl.errors import StorageError
from rawdl.sinks import Sink, close, create, remove, storage_error, write_all, write_pieces

_LONGEST_NAME = 255  # bytes, on nearly every file system (NAME_MAX)


class Destinations:
    """The files that one client is writing at the moment, so that no two tasks write the same one."""

    def __init__(self) -> None:
        self._live: dict[str, PartFile] = {}
        self._umask: int | None = None

    def claim(self, path: str, owner: PartFile) -> None:
        """Reserve a path, from whatever thread, or raise StorageError."""
        if self._live.setdefault(path, owner) is not owner:
            raise StorageError(f"{path} is in use: another download is writing it", path=path)

    def release(self, path: str) -> None:
        """Let another task have it."""
        self._live.pop(path, None)

    def umask(self) -> int:
        """Return the process's umask, as it was at the first file.

        It can only be read by setting it, which another thread may notice; so that is done once.
        """
        if self._umask is None:
            self._umask = os.umask(0o077)
            os.umask(self._umask)
        return self._umask


class PartFile(Sink):
    """Write ``path`` by way of its part."""

    __slots__ = ("_claimed", "_destinations", "_fd", "_final", "_identity", "_mode", "_part", "path")

    path: str

    def __init__(self, path: str, destinations: Destinations) -> None:
        self.path = path
        self._final = os.path.abspath(path)  # the current folder may be another when the task begins
        self._part = part_name(self._final)
        self._destinations = destinations
        self._claimed: str | None = None
        self._fd = -1
        self._identity: tuple[int, int] = (0, 0)
        self._mode: int | None = None  # of the file that will be replaced

    def claim(self) -> None:
        """Reserve the destination until the download has ended, or raise StorageError."""
        folder, name = os.path.split(self._final)
        place = os.path.join(os.path.realpath(folder), name)
        self._destinations.claim(place, self)
        self._claimed = place

    def open(self) -> None:
        if self._claimed is None:
            self.claim()
        try:
            self._mode = self._replaced_mode()
            self._fd = self._create()
            status = os.fstat(self._fd)
        except OSError as exc:
            self.discard()
            if isinstance(exc, StorageError):
                raise
            raise storage_error("cannot create", self._part, exc) from exc
        self._identity = (status.st_dev, status.st_ino)

    def _replaced_mode(self) -> int | None:
        """Look at what is there under the final name: a file's mode is kept, a folder or device is refused."""
        if os.path.basename(self.path) in ("", os.curdir, os.pardir):
            raise StorageError(f"{self.path} is the name of a folder", path=self.path, errno=errno.EISDIR)
        try:
            status = os.lstat(self._final)
        except FileNotFoundError:
            return None
        if stat.S_ISDIR(status.st_mode):
            raise StorageError(f"{self.path} is a folder", path=self.path, errno=errno.EISDIR)
        if stat.S_ISLNK(status.st_mode):
            return None  # the link is replaced, not what it points to
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{self.path} is no regular file", path=self.path, errno=errno.EEXIST)
        return status.st_mode & 0o777  # what came from elsewhere does not run as somebody else

    def _create(self) -> int:
        try:
            return create(self._part)
        except FileExistsError:
            if not stat.S_ISREG(os.lstat(self._part).st_mode):
                raise StorageError(f"{self._part} is no regular file", path=self._part, errno=errno.EEXIST) from None
        os.unlink(self._part)  # left behind by a download that was killed
        return create(self._part)

    def write(self, data: memoryview) -> None:
        write_all(self._fd, data, self._part)

    def write_pieces(self, pieces: list[memoryview]) -> None:
        write_pieces(self._fd, pieces, self._part)

    def splice_target(self) -> int | None:
        return self._fd

    def failed(self, exc: OSError) -> StorageError:
        return storage_error("cannot write", self._part, exc)

    def commit(self) -> None:
        """Give the part its mode and its name."""
        mode = 0o666 & ~self._destinations.umask() if self._mode is None else self._mode
        try:
            if mode != 0o600:  # a file system without modes may refuse; the download is whole all the same
                _quietly(lambda: os.chmod(self._fd if os.chmod in os.supports_fd else self._part, mode))
            fd, self._fd = self._fd, -1
            close(fd, self._part)
            if not self._is_ours(self._part):
                raise StorageError(f"{self._part} was replaced by somebody else", path=self._part)
            os.replace(self._part, self._final)
        except OSError as exc:
            self._remove(self._part)
            if isinstance(exc, StorageError):
                raise
            raise storage_error("cannot rename to", self.path, exc) from exc
        finally:
            self._release()

    def revoke(self) -> None:
        self._remove(self._final)

    def discard(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            _quietly(lambda: os.close(fd))
            self._remove(self._part)
        self._release()

    def _is_ours(self, path: str) -> bool:
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    def _remove(self, path: str) -> None:
        """Remove the file that was created here, and no other that has its name now."""
        if _quietly(lambda: self._is_ours(path)):
            remove(path)

    def _release(self) -> None:
        if self._claimed is not None:
            self._destinations.release(self._claimed)
            self._claimed = None


def part_name(path: str) -> str:
    """Return the name of the part beside ``path``; of a hash of the name, where that would be too long."""
    folder, name = os.path.split(path)
    if len(os.fsencode(name)) + len(".part") <= _LONGEST_NAME:
        return f"{path}.part"
    from hashlib import sha256

    return os.path.join(folder, f"{sha256(os.fsencode(name)).hexdigest()[:32]}.part")


def _quietly(action: Callable[[], object]) -> object:
    """Clean up as far as the operating system lets us: the error that led here is the one to be told."""
    try:
        return action()
    except OSError:
        return None
