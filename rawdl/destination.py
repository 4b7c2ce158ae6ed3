"""Where a file shall be in the end: who may write there, what is there already, and how it gets there."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from typing import Final

from rawdl.errors import StorageError
from rawdl.sinks import remove, storage_error

_PART: Final = re.compile(r"\.part(?:\.json(?:\.new)?)?$", re.IGNORECASE)
_LONGEST_NAME: Final = 255  # bytes, on nearly every file system (NAME_MAX)
# To open a FIFO must not wait for somebody who writes.
_READ_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# Where hard links do not exist, an empty file of ours takes the name first.
_NO_LINKS: Final = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EXDEV}
)


class Destinations:
    """The files that one client is writing at the moment, so that no two tasks write the same one."""

    def __init__(self) -> None:
        self._live: dict[str, Destination] = {}
        self._umask: int | None = None

    def claim(self, path: str, owner: Destination) -> None:
        """Reserve a path, from whatever thread, or raise StorageError."""
        if self._live.setdefault(path, owner) is not owner:
            raise StorageError(f"{path} is in use: another download is writing it", path=path)

    def release(self, path: str) -> None:
        """Let another task have it."""
        self._live.pop(path, None)

    def umask(self) -> int:
        """Return the process's umask, as it was at the first file."""
        if self._umask is None:
            self._umask = _umask()
        return self._umask


def _umask() -> int:
    """Return the process's umask.

    Elsewhere than on Linux it can only be read by setting it, which another thread may notice; and of two that do so at
    once, one may put back what the other has set.
    """
    with suppress(OSError), open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"Umask:"):
                return int(line[6:], 8)
    umask = os.umask(0o077)
    os.umask(umask)
    return umask


class Destination:
    """One name for a finished file.

    ``exists`` decides over a file that has it already: "overwrite", "error", "rename" (``name.1.ext``) or "skip".

    With a ``tag`` the name is still open, until `name`: the part bears that of ``path`` and the tag.  Nobody could have
    said yes to such a name, so that "overwrite" is "rename" then (CVE-2020-8177).
    """

    __slots__ = ("_all", "_claimed", "_exists", "_final", "_mode", "_placed", "is_open", "part", "path")

    def __init__(self, path: str, destinations: Destinations, exists: str, tag: str = "") -> None:
        self.path = path
        self._final = os.path.abspath(path)  # the current folder may be another when the task begins
        self.part = part_name(f"{self._final}.{tag}" if tag else self._final)
        self.is_open = bool(tag)
        self._all = destinations
        self._exists = "rename" if tag and exists == "overwrite" else exists
        self._claimed: str | None = None
        self._mode: int | None = None  # of the file that will be replaced
        self._placed: str | None = None  # the name that it has got

    def claim(self) -> None:
        """Reserve the name until `release`, or raise StorageError."""
        if self._claimed is None:
            folder, name = os.path.split(self.part if self.is_open else self._final)
            place = os.path.join(os.path.realpath(folder), name)
            self._all.claim(place, self)
            self._claimed = place

    @property
    def whole_path(self) -> str:
        """The path from the root on."""
        return self._final

    def release(self) -> None:
        """Let another task have the name."""
        if self._claimed is not None:
            self._all.release(self._claimed)
            self._claimed = None

    def name(self, suggested: str | None) -> None:
        """Take the name that the server gives, if it gives one; then `look`.

        It is one component, and safe.  None that a later download could take for its own part.
        """
        self.is_open = False
        if suggested is not None:
            if _PART.search(suggested):
                suggested = f"{suggested}_"
            self.path = os.path.join(os.path.dirname(self.path), suggested)
            self._final = os.path.join(os.path.dirname(self._final), suggested)
        self.look()

    def __repr__(self) -> str:
        state = f"open yet, {self._exists}" if self.is_open else self._exists
        return f"<Destination {self.path} ({state}){' claimed' if self._claimed is not None else ''}>"

    # What is there

    def size_to_skip(self) -> int | None:
        """Return how many bytes the file has that is there, if it is to be left at that."""
        if self._exists != "skip" or self.is_open or not os.path.lexists(self._final):
            return None
        try:
            status = os.stat(self._final)
        except OSError as exc:
            raise storage_error("cannot look at", self.path, exc) from exc
        if stat.S_ISDIR(status.st_mode):
            raise self._is_folder()
        return status.st_size

    def read(self, start: int, count: int) -> bytes:
        """Read what is there, under the final name."""
        try:
            fd = os.open(self._final, _READ_FLAGS)
            try:
                os.lseek(fd, start, os.SEEK_SET)
                return os.read(fd, count)
            finally:
                os.close(fd)
        except OSError as exc:
            raise storage_error("cannot read", self.path, exc) from exc

    def _is_folder(self) -> StorageError:
        return StorageError(f"{self.path} is a folder", path=self.path, errno=errno.EISDIR)

    def look(self) -> None:
        """Raise for what is there and must not be replaced; the mode of a file that will be is kept."""
        if self.is_open:
            return
        if os.path.basename(self.path) in ("", os.curdir, os.pardir):
            raise StorageError(f"{self.path} is the name of a folder", path=self.path, errno=errno.EISDIR)
        try:
            status = os.lstat(self._final)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(status.st_mode):
            raise self._is_folder()
        if self._exists == "error":
            raise self._taken()
        if self._exists != "overwrite":
            return
        if stat.S_ISLNK(status.st_mode) and not _leads_to_device(self._final):
            return  # the link is replaced, not what it points to
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{self.path} is no regular file", path=self.path, errno=errno.EEXIST)
        self._mode = status.st_mode & 0o777  # what came from elsewhere does not run as somebody else

    def _taken(self) -> StorageError:
        error = StorageError(f"{self.path} exists already", path=self.path, errno=errno.EEXIST)
        error.__cause__ = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.path)
        return error

    @property
    def mode(self) -> int:
        """The mode that the finished file shall have."""
        return 0o666 & ~self._all.umask() if self._mode is None else self._mode

    # Getting there

    def place(self) -> None:
        """Give the part its name, as `exists` says.  Raises OSError."""
        if self._exists == "overwrite":
            os.replace(self.part, self._final)
            self._placed = self._final
            return
        number = 0
        while self._placed is None:
            final = numbered(self._final, number)
            try:
                _move_to_new(self.part, final)
            except FileExistsError as exc:
                if self._exists != "rename":
                    raise self._taken() from exc
                number += 1
            else:
                self.path, self._placed = numbered(self.path, number), final

    def sync_folder(self) -> None:
        """Have the rename reach the disk.  Raises OSError."""
        if os.name != "posix":
            return
        fd = os.open(os.path.dirname(self._final), os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, identity: tuple[int, int] | None) -> None:
        """Take the file away again, if it is the one that was placed."""
        if self._placed is not None:
            remove_own(self._placed, identity)


def _leads_to_device(link: str) -> bool:
    """Whether a link stands for a device, a pipe, or a descriptor that is open (/dev/stdout, whatever that is)."""
    try:
        kind = stat.S_IFMT(os.stat(link).st_mode)
        return kind not in (stat.S_IFREG, stat.S_IFDIR) or os.readlink(link).startswith("/proc/")
    except OSError:  # it leads nowhere
        return False


def part_name(path: str) -> str:
    """Return the name of the part beside ``path``."""
    return shortened(f"{path}.part")


def shortened(part: str, suffix: str = "") -> str:
    """Return the name of a part, or a hash of it where that would be too long with the suffix."""
    folder, name = os.path.split(part)
    if len(os.fsencode(name)) + len(suffix) <= _LONGEST_NAME:
        return part
    from hashlib import sha256

    return os.path.join(folder, f"{sha256(os.fsencode(name)).hexdigest()[:32]}.part")


def numbered(path: str, number: int) -> str:
    """Return the name with a number before its last suffix (``a.tar.1.gz``); 0 is the name itself."""
    if not number:
        return path
    root, suffix = os.path.splitext(path)
    return f"{root}.{number}{suffix}"


def identity_of(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from all others, whatever its name."""
    return status.st_dev, status.st_ino


def is_own(path: str, identity: tuple[int, int] | None) -> bool:
    """Whether it is that very file which has the name.  Raises OSError."""
    try:
        return identity_of(os.lstat(path)) == identity
    except FileNotFoundError:
        return False


def remove_own(path: str, identity: tuple[int, int] | None) -> None:
    """Remove that very file, and no other that has its name now.  Does not raise."""
    with suppress(OSError):
        if is_own(path, identity):
            remove(path)


def _move_to_new(source: str, target: str) -> None:
    """Rename a file to a name that nothing has, or raise FileExistsError; at no moment could another file be lost."""
    try:
        os.link(source, target)
    except OSError as exc:
        if exc.errno not in _NO_LINKS:
            raise
        # A process that is killed between the two leaves an empty file: there is no better way without links.
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.close(fd)
            os.replace(source, target)
        except OSError:
            remove(target)
            raise
    else:
        remove(source)  # if that fails, it is one more name of the finished file, and no part any more
