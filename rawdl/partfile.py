"""A file that appears under its name only when it is complete: written as ``NAME.part``, then renamed.

The part is created new (O_EXCL, O_NOFOLLOW) and readable by its owner only.  One that an earlier download has left is
continued if its journal proves which bytes of which version are in it, else removed; what is no regular file is
refused.  Whatever is renamed or removed is first seen to be the very file that was opened here.

There is one writer at a time: within a client by its `Destinations`, else by a lock on the part (flock) and, since that
lies on network file systems, by the owner that the journal names.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rawdl.destination import Destination, Destinations, identity_of, is_own, remove_own
from rawdl.errors import StorageError
from rawdl.ledger import Ledger
from rawdl.reserve import FULL, reserve
from rawdl.sinks import Sink, close, free_bytes, no_room, storage_error, write_all, write_pieces

if TYPE_CHECKING:
    from rawdl.journal import Ranges, Record
    from rawdl.ledger import Version

_OPEN: Final = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_WORTH_RESERVING: Final = 1 << 20  # bytes: what is smaller lies close together anyway
_ROOM: Final = 65536  # bytes: a block, of whatever file system


class PartFile(Sink):
    """Write ``path`` by way of its part; with a ``tag`` the name is open yet (`Destination`).

    ``url`` is what is downloaded: a part of another URL is not continued.  ``exists`` is the destination's.  ``resume``
    is "auto", True (continue a part or fail, RangeError) or False (an old part is removed).  ``durable``: the file is
    on the disk before it is said to be complete, and each journal before it is counted on.

    ``position`` is how many bytes are in the part, and ``found`` the record of those that an earlier download left.
    """

    __slots__ = (
        "_committed",
        "_date",
        "_durable",
        "_fd",
        "_given_up",
        "_identity",
        "_ledger",
        "_part",
        "_reserved",
        "_segmented",
        "destination",
        "found",
        "position",
    )

    def __init__(
        self,
        path: str,
        destinations: Destinations,
        *,
        url: str = "",
        exists: str = "overwrite",
        resume: bool | str = "auto",
        durable: bool = False,
        segmented: bool = False,
        tag: str = "",
    ) -> None:
        self.destination = Destination(path, destinations, exists, tag)
        self._part = self.destination.part
        self._ledger = Ledger(self._part, url, resume=resume, durable=durable)
        self._durable = durable
        self._segmented = segmented
        self._fd = -1
        self._identity: tuple[int, int] | None = None  # of the part, once there is one of ours
        self._date: int | None = None
        self._committed = False
        self._reserved = 0  # how many bytes the file system may have set blocks aside for, from the first on
        self._given_up = 0  # how many bytes the parts had blocks for that were removed
        self.found: Record | None = None
        self.position = 0

    @property
    def path(self) -> str:
        return self.destination.path

    # Getting it

    def open(self) -> None:
        """Find the part to continue (then ``position`` is above 0), or create a new one."""
        self._committed = False
        try:
            self.destination.claim()
            self.destination.look()
            if not self._adopt():
                self._create()
        except OSError as exc:
            self.close()
            raise self._translated(exc) from exc.__cause__ or exc

    def _translated(self, exc: OSError) -> StorageError:
        return exc if isinstance(exc, StorageError) else storage_error("cannot create", self._part, exc)

    def _create(self) -> None:
        self._ledger.clear()  # whatever interrupts us, it tells of nothing that was in another part
        self.position = self._reserved = 0
        self.found = None
        self._fd = os.open(self._part, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
        self._identity = identity_of(os.fstat(self._fd))  # at once: what fails from here on removes it
        if not self._lock():
            self._ledger.save(0, synced=False)  # so that others can see whose it is

    def _lock(self) -> bool:
        """Keep others out, if the file system can; return whether it can.  StorageError if another process has it."""
        locked = _lock(self._fd)
        if locked is False:
            self._identity = None  # it is theirs, though we may have made it a moment ago
            raise StorageError(f"{self._part} is in use: another process is writing it", path=self._part)
        return locked is not None

    def _adopt(self) -> bool:
        """Take over the part of an earlier download, if it can be continued; else remove it."""
        try:
            self._check_regular(os.lstat(self._part))  # to open a device may already do something
        except FileNotFoundError:
            self._ledger.sweep()
            return False
        self._fd = os.open(self._part, _OPEN)
        locked = self._lock()
        status = os.fstat(self._fd)
        self._check_regular(status)
        record = self._ledger.look(locked=locked)
        self._identity = identity_of(status)  # from here on it is ours to remove
        ranges = self._ledger.adopt(record, status, segmented=self._segmented)
        if not ranges:
            self._remove_part()
            return False
        self.found = record
        self.position = ranges[0][1]
        os.ftruncate(self._fd, ranges[-1][1])
        os.lseek(self._fd, self.position, os.SEEK_SET)
        self._sync()  # or learn that some of it never reached the disk
        return True

    def _check_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{self._part} is no regular file", path=self._part, errno=errno.EEXIST)

    # Writing it

    def write(self, data: memoryview) -> None:
        write_all(self._fd, data, self._part)
        self.position += len(data)

    def write_pieces(self, pieces: list[memoryview]) -> None:
        write_pieces(self._fd, pieces, self._part)
        self.position += sum(map(len, pieces))

    def write_at(self, offset: int, data: memoryview) -> None:
        """Write somewhere in the part; what is there then is told by what `share` was given."""
        try:
            while len(data):
                n = os.pwrite(self._fd, data, offset)
                data, offset = data[n:], offset + n
        except OSError as exc:
            raise self.failed(exc) from exc

    def share(self, coverage: Callable[[], Iterable[tuple[int, int]]]) -> None:
        """Let several write at once: ``coverage`` tells which bytes are there, and ``position`` how many."""
        blank = self._ledger.is_blank
        self._ledger.share(coverage)
        if self.is_described:
            self._save(sync=False, needed=not blank)  # before there are holes

    def splice_target(self) -> int | None:
        return self._fd

    def spliced(self, n: int) -> None:
        self.position += n

    def failed(self, exc: OSError) -> StorageError:
        return storage_error("cannot write", self._part, exc)

    def restart(self) -> None:
        """Begin anew, in a fresh part."""
        self._remove_part()
        try:
            self._create()
        except OSError as exc:
            raise self._translated(exc) from exc.__cause__ or exc

    def read(self, start: int, count: int) -> bytes:
        """Read back what was written."""
        try:
            os.lseek(self._fd, start, os.SEEK_SET)
            data = os.read(self._fd, count)
            os.lseek(self._fd, self.position, os.SEEK_SET)
        except OSError as exc:
            raise storage_error("cannot read", self._part, exc) from exc
        return data

    # What it is of

    def describe(self, version: Version, total: int | None) -> None:
        """Say of which version the bytes will be: without a validator, of none that could be continued.

        Raises StorageError if the file system has no room for what is missing of ``total`` bytes; if it can, it sets
        blocks aside for them.
        """
        self._ledger.version = version
        if total is None or total <= self.position:
            return
        self._check_room(total - self.position)
        if total > self._reserved and total - self.position >= _WORTH_RESERVING:  # not by each try anew
            self._reserved = total
            try:
                reserve(self._fd, total)
            except OSError as exc:
                raise self.failed(exc) from exc

    @property
    def is_described(self) -> bool:
        """Whether a journal could tell of which version the part is."""
        return self._ledger.is_described

    def _check_room(self, missing: int) -> None:
        free = free_bytes(self._fd)
        if free is None or missing <= free:
            return
        missing -= max(0, self._held() - self.position)  # behind it, by an earlier try or a process that was killed
        if missing > free + self._given_up:  # which XFS and Btrfs call free a while later, but have by then
            raise no_room(self.path, missing, free)

    def _held(self) -> int:
        """Return how many bytes the part has blocks for."""
        try:
            blocks: int = getattr(os.fstat(self._fd), "st_blocks", 0)
        except OSError:
            return 0
        return blocks * 512

    def _give_back_room(self) -> None:
        """Let the file system have what was set aside and not used."""
        if self._fd >= 0 and self._reserved > self.position:
            with suppress(OSError):  # then the file holds more than it needs, and is none the worse for it
                os.ftruncate(self._fd, os.fstat(self._fd).st_size)
        self._reserved = 0

    def note(self, now: float) -> None:
        """Write the journal, if that is due.  ``now`` is monotonic, in seconds."""
        if self._ledger.is_due(self.position, now):
            self._save(sync=self._ledger.wants_sync(now), needed=False)

    def _save(self, *, sync: bool, released: bool = False, needed: bool = True) -> None:
        """Write the journal.  With ``sync`` the data is on the disk before the journal says so, and then that is.

        One that is not ``needed`` may find the disk full, by the file's own blocks for instance: that before it stays,
        and is still true.
        """
        self._check_own("was taken over by somebody else")
        if sync:
            self._sync()
        try:
            self._ledger.save(self.position, synced=sync, released=released)
        except StorageError as exc:
            if needed or exc.errno not in FULL:
                raise

    @property
    def ranges(self) -> Ranges:
        """What an earlier download left."""
        return self._ledger.ranges

    def there(self) -> Ranges:
        """Return which bytes are in the part."""
        return self._ledger.there(self.position)

    def _check_own(self, otherwise: str) -> None:
        try:
            own = is_own(self._part, self._identity)
        except OSError as exc:
            raise storage_error("cannot look at", self._part, exc) from exc
        if not own:
            raise StorageError(f"{self._part} {otherwise}", path=self._part)

    def _sync(self) -> None:
        try:
            getattr(os, "fdatasync", os.fsync)(self._fd)
        except OSError as exc:
            raise storage_error("cannot write", self._part, exc) from exc

    # The end of it

    def date(self, modified: int | None) -> None:
        """Have the file bear that time (POSIX seconds), where the file system can."""
        self._date = modified

    def commit(self) -> None:
        """Give the part its mode, its time and its name."""
        self._give_back_room()
        try:
            self._dress()
            fd, self._fd = self._fd, -1
            close(fd, self._part)
            self._check_own("was replaced by somebody else")
            self.destination.place()
        except OSError as exc:
            if isinstance(exc, StorageError):
                raise
            raise storage_error("cannot rename to", self.path, exc) from exc
        self._committed = True
        self._ledger.remove()
        if self._durable:
            self._settle()
        self.destination.release()

    def _settle(self) -> None:
        try:
            self.destination.sync_folder()
        except OSError as exc:
            raise storage_error("it is complete, but may not outlive a power cut: cannot sync", self.path, exc) from exc

    def _dress(self) -> None:
        mode = self.destination.mode
        if mode != 0o600:
            with suppress(OSError):  # a file system without modes may refuse; the download is whole all the same
                os.chmod(self._fd if os.chmod in os.supports_fd else self._part, mode)
        if self._date is not None:
            with suppress(OSError, OverflowError, ValueError):  # and one that cannot hold a date has none
                os.utime(self._fd if os.utime in os.supports_fd else self._part, (self._date, self._date))
        if self._durable:
            os.fsync(self._fd)

    def revoke(self) -> None:
        self.destination.remove(self._identity)

    def keep(self) -> str | None:
        """Close the part and leave it, with its journal, for a later download to continue; return its name.

        If there is nothing to continue it is removed.
        """
        there = self.there()
        if self._committed or not self.is_described or not there or there[0][0]:
            self.discard()
            return None
        self._give_back_room()
        untouched = self._ledger.is_untouched
        try:
            self._save(sync=self._fd >= 0, released=True)
        except StorageError as exc:
            if exc.errno in FULL and untouched:
                return self.close()
            if exc.errno not in FULL or not self._keep_on_full_disk():
                self.discard()
                return None
        return self.close()

    def _keep_on_full_disk(self) -> bool:
        """Give some of the part up for its journal; return whether that did."""
        end = self._ledger.cut(self.position, _ROOM)
        if self._fd < 0 or not end:
            return False
        if not self._ledger.is_shared:
            self.position = end
        try:
            os.ftruncate(self._fd, end)
            self._save(sync=False, released=True)
        except OSError:
            return False
        return True

    def discard(self) -> None:
        if not self._committed:
            self._remove_part()
        self.destination.release()

    def close(self) -> str | None:
        """Let go of the part without touching it; return its name, if there is one of ours."""
        self._close_fd()
        self.destination.release()
        return None if self._identity is None else self._part

    def _close_fd(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with suppress(OSError):
                os.close(fd)

    def _remove_part(self) -> None:
        if self._fd >= 0:
            self._given_up += self._held()
        self._close_fd()
        if self._identity is None:
            return
        try:
            own = is_own(self._part, self._identity)
        except OSError:
            own = True  # as far as we know; `remove_own` will look again
        if own:
            self._ledger.remove()  # first: it must not be found beside another part
        remove_own(self._part, self._identity)
        self._identity = None

    def __repr__(self) -> str:
        state = "committed" if self._committed else "open" if self._fd >= 0 else "closed"
        return f"<PartFile {self._part} {state}, {self.position} bytes>"


def _lock(fd: int) -> bool | None:
    """Lock an open file for as long as it is open here; False if another process has, None where nobody can tell."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True
