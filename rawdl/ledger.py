"""What is known of the bytes in a part, and when its journal is to say so."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from rawdl.errors import RangeError, StorageError

if TYPE_CHECKING:
    from rawdl.journal import Journal, Owner, Ranges, Record

# When the journal is to be written anew: after so many seconds, or so many bytes.  A part with holes is believed only
# as far as its journal goes, so that more is lost there.
_IN_ORDER: Final = (1.0, 16 << 20)
_SHARED: Final = (0.1, 2 << 20)
# However fast the bytes come, no sooner than this: it costs some 200 µs.
_LEAST_SECONDS: Final = 0.01
# The first comes earlier: without one nothing is believed.  What is complete by then needs none.
_FIRST_SECONDS: Final = 0.1
# After a power cut only what was synced is believed; the kernel lets a written page wait for 30 s anyway.
_SYNC_SECONDS: Final = 30.0
_ODD_NAME: Final = 60  # characters, of up to four bytes each


class Version(Protocol):
    """Which version of what the bytes are of; a validator proves that others are of the same."""

    @property
    def shown_url(self) -> str: ...
    @property
    def validator(self) -> tuple[str, str] | None: ...
    @property
    def total(self) -> int | None: ...


class Found(NamedTuple):
    """The version that a journal tells of."""

    shown_url: str
    validator: tuple[str, str] | None
    total: int | None


class Ledger:
    """Keep the account of one part, whose file is somebody else's.

    ``url`` is what it is downloaded from, and ``resume`` whether an old part may ("auto"), must (True) or must not
    (False) be continued.  ``ranges`` are those that an earlier download left, and ``version`` is that of the bytes.
    """

    __slots__ = (
        "_coverage",
        "_durable",
        "_journal",
        "_owner",
        "_part",
        "_resume",
        "_saved",
        "_saved_at",
        "_synced",
        "_synced_at",
        "_url",
        "ranges",
        "version",
    )

    def __init__(self, part: str, url: str, *, resume: bool | str, durable: bool) -> None:
        self._part = part
        self._url = url
        self._resume = resume
        self._durable = durable
        self._journal: Journal | None = None  # once there was reason to look at it
        self._owner: Owner | None = None
        self.version: Version | None = None
        self.clear()

    def clear(self) -> None:
        """There is nothing in the part."""
        self._saved = 0  # how many bytes the journal tells of
        self._saved_at = self._synced_at = 0.0
        self._synced: Ranges = ()  # what is on the disk for certain
        self._coverage: Callable[[], Iterable[tuple[int, int]]] | None = None  # if bytes do not come in order
        self.ranges: Ranges = ()
        self.version = None

    # What an earlier download left

    def sweep(self) -> None:
        """Remove a journal whose part is gone: it would be taken for that of the next one."""
        # A journal has another name only where this would be too long; to look at a name costs less than to import it.
        if len(os.path.basename(self._part)) > _ODD_NAME or os.path.lexists(f"{self._part}.json"):
            from rawdl.journal import Journal

            Journal(self._part).remove()

    def look(self, *, locked: bool) -> Record | None:
        """Read what stands beside the part, and refuse what another process is writing.

        One of this machine would have the lock, if there are locks (which this process may not be able to see its own
        of: NFS has them by process).
        """
        from rawdl.journal import Journal

        self._journal = Journal(self._part)
        record = self._journal.load()
        if record is None or (locked and record.owner.is_local and record.owner.pid != os.getpid()):
            return record
        if record.owner.is_alive(self._journal.idle):
            raise StorageError(f"{self._part} is in use by process {record.owner.pid}", path=self._part)
        return record

    def adopt(self, record: Record | None, status: os.stat_result, *, segmented: bool) -> Ranges:
        """Return which bytes in the part are proved to be those of the file, none if they are not to be continued.

        Without segments only the first of them can be.  Raises RangeError if they must be continued and cannot.
        """
        why = self._objection(record, status)
        if why is not None and self._resume is True:
            raise RangeError(f"{self._part} cannot be continued: {why}")
        if why is not None or record is None or self._resume is False:
            return ()
        ranges = _believed(record, status.st_size)
        self.ranges = self._synced = ranges if segmented and record.total is not None else ranges[:1]
        self._saved = sum(stop - start for start, stop in self.ranges)
        self.version = Found(record.final_url, record.validator, record.total)
        return self.ranges

    def _objection(self, record: Record | None, status: os.stat_result) -> str | None:
        from rawdl.journal import key_of, shown

        if status.st_nlink > 1:
            return "it has another name too"  # and may be somebody's finished file
        if record is None or not _is_strong(record.validator):
            return "there is no record of what it is of"
        if (record.url, record.url_key) != (shown(self._url), key_of(self._url)):
            return f"it is of another URL, {record.url}"
        ranges = _believed(record, status.st_size)
        if not ranges or ranges[0][0]:
            return "its first bytes are missing"
        if status.st_size < ranges[-1][1]:
            return f"it has {status.st_size} bytes, and {ranges[-1][1]} are recorded"
        return None

    # What this one does

    @property
    def is_described(self) -> bool:
        """Whether a journal could tell of which version the part is."""
        return self.version is not None and self.version.validator is not None

    def share(self, coverage: Callable[[], Iterable[tuple[int, int]]]) -> None:
        """From now on ``coverage`` tells which bytes are there: they do not come in order any more."""
        self._coverage = coverage

    @property
    def is_shared(self) -> bool:
        """Whether bytes come from several connections."""
        return self._coverage is not None

    def there(self, position: int) -> Ranges:
        """Return which bytes are in the part; in order they go up to ``position``."""
        if self._coverage is None and not self.ranges:
            return ((0, position),) if position else ()
        from rawdl.proto.segments import Coverage

        return tuple(Coverage(self._coverage() if self._coverage is not None else ((0, position), *self.ranges)))

    def is_due(self, position: int, now: float) -> bool:
        """Whether the journal is to be written.  ``now`` is monotonic, in seconds."""
        new = position - self._saved
        if not new:
            return False
        if not self._saved_at:  # the first bytes
            self._saved_at = now - _IN_ORDER[0] + _FIRST_SECONDS
            self._synced_at = now
        seconds, size = _IN_ORDER if self._coverage is None else _SHARED
        elapsed = now - self._saved_at
        if elapsed < (seconds if new < size else _LEAST_SECONDS):
            return False
        return self.is_described

    def wants_sync(self, now: float) -> bool:
        """Whether the data is to be on the disk before that journal; take note that it is written now."""
        self._saved_at = now
        if not self._durable and now - self._synced_at < _SYNC_SECONDS:
            return False
        self._synced_at = now
        return True

    def save(self, position: int, *, synced: bool, released: bool = False) -> None:
        """Write the journal; ``synced`` says that all the data is on the disk.  Raises StorageError."""
        from rawdl.journal import VERSION, Journal, Owner, Record, key_of, shown

        self._journal = self._journal or Journal(self._part)
        self._owner = self._owner or Owner.current()
        done = self.there(position)
        if synced:
            self._synced = done
        version = self.version or Found(self._url, None, None)
        record = Record(
            version=VERSION,
            url=shown(self._url),
            url_key=key_of(self._url),
            final_url=shown(version.shown_url),
            validator=version.validator,
            total=version.total,
            done=done,
            synced=self._synced,
            coding="",
            in_order=self._coverage is None and len(self.ranges) < 2,
            owner=self._owner.released() if released else self._owner,
        )
        self._journal.save(record, durable=synced)
        self._saved = position

    @property
    def is_blank(self) -> bool:
        """Whether there is no journal, or one that tells of no byte."""
        return not self._saved

    @property
    def is_untouched(self) -> bool:
        """Whether the journal that stands is that of the earlier download, and still true."""
        return bool(self.ranges) and self._owner is None

    def cut(self, position: int, count: int) -> int:
        """Give up the last ``count`` of the bytes that are there; return where the part ends then, 0 if that is all."""
        kept = list(self.there(position))
        while kept and count > 0:
            start, stop = kept.pop()
            if stop - start > count:
                kept.append((start, stop - count))
            count -= stop - start
        self._synced = ()
        if self.is_shared or len(kept) > 1:
            self.share(lambda: kept)
        self.ranges = ()
        return kept[-1][1] if kept else 0

    def remove(self) -> None:
        """Remove the journal, if there may be one."""
        if self._journal is not None:
            self._journal.remove()

    def __repr__(self) -> str:
        return f"<Ledger of {self._part}, {self._saved} bytes saved>"


def _believed(record: Record, size: int) -> Ranges:
    from rawdl.journal import believed

    return believed(record, size)


def _is_strong(validator: tuple[str, str] | None) -> bool:
    from rawdl.proto.ranges import Validator

    try:
        Validator.from_list(validator)
    except ValueError:
        return False
    return True
