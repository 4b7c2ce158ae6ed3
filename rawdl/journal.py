"""What stands beside a part (``NAME.part.json``): whose the part is, and which bytes of which version are in it.

The order in which things reach the disk decides what may be believed afterwards:

1. The part's bytes are written, and only then does a journal say ``done`` of them.
2. The part is synced (``fdatasync``), and only then does a journal say ``synced`` of its bytes.
3. The part is renamed (synced before, if it is to be durable), and only then is its journal removed: one without a
   part says nothing.

Without a sync the bytes are in the page cache, which survives the process but not the machine: ``done`` is believed
within one boot, ``synced`` after it (`believed`).  The same holds for the journal itself: one that was not saved
``durable`` may be gone after a power cut, and then nothing is believed.  One that is there is always whole, for it is
written beside the old one and renamed over it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

from rawdl.destination import shortened
from rawdl.errors import StorageError
from rawdl.sinks import create, remove, storage_error, write_all

VERSION: Final = 1
# A range takes at most some 45 bytes here: room for 20 000 of them, where a download has a few for each connection.
_LARGEST: Final = 1 << 20
_LAST_OFFSET: Final = (1 << 63) - 1  # off_t
_NOBODY: Final = 0  # the pid of no process
# An owner whose process cannot be looked at is dead after this many seconds without a new journal.  It writes one each
# second; a network file system may show it late (NFS caches attributes for up to 60 s).
_RENEWED: Final = 120.0
_READ: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_READ_FLAGS: Final = _READ | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

Ranges = tuple[tuple[int, int], ...]


class Owner(NamedTuple):
    """The one writer of a part.  ``token`` tells two writers of one process apart.

    ``started`` is when the process was started, in the kernel's ticks, so that a pid that is used again is not
    mistaken for it; ``boot`` names the run of the kernel.  Where the system tells neither they are None and "".
    """

    pid: int
    started: int | None
    boot: str
    host: str
    token: str

    @classmethod
    def current(cls) -> Owner:
        """Return a new owner in this process."""
        pid = os.getpid()
        return cls(pid, _process(pid).started, _boot(), _host(), os.urandom(8).hex())

    def released(self) -> Owner:
        """Return who has a part that its owner left as it is: nobody, though in the same boot."""
        return self._replace(pid=_NOBODY, started=None)

    @property
    def is_local(self) -> bool:
        """Whether it is, or was, a process of this machine since it was started."""
        boot = _boot()
        return boot != "" and (self.boot, self.host) == (boot, _host())

    def is_alive(self, idle: Callable[[], float]) -> bool:
        """Say whether the writer may still be writing.

        ``idle`` (`Journal.idle`) tells for how many seconds it has not renewed its journal.  It is asked only about
        another host, and on Windows, where ``os.kill`` ends a process instead of looking at it.
        """
        if self.pid == _NOBODY:
            return False
        local = self.host == _host()
        if not local or os.name == "nt":
            return (local and self.pid == os.getpid()) or abs(idle()) < _RENEWED
        boot = _boot()
        if boot and self.boot and boot != self.boot:
            return False
        return self._runs()

    def _runs(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except PermissionError:
            pass  # it runs, as another user
        except (ProcessLookupError, OverflowError):
            return False
        process = _process(self.pid)
        if process.ended:
            return False
        return None in (process.started, self.started) or process.started == self.started


class Record(NamedTuple):
    """What a journal says.  URLs are as they may be `shown`; ``url_key`` (`key_of`) stands for the rest of the first.

    ``validator`` is its kind and value; ``total`` the length of the whole representation, None while unknown.
    ``done`` and ``synced`` are half-open ranges of the part, in order and apart; what is synced is done as well.
    ``in_order``: the part has been written from its first byte on, so that it has no hole.
    """

    version: int
    url: str
    url_key: str
    final_url: str
    validator: tuple[str, str] | None
    total: int | None
    done: Ranges
    synced: Ranges
    coding: str
    in_order: bool
    owner: Owner


def believed(record: Record, size: int) -> Ranges:
    """Return the ranges that are in a part of ``size`` bytes, as far as a journal can know.

    Of one that was written in order it is all of them, though the journal may be a second old: each byte that is there
    was written after those before it, for the version that the journal tells of.
    """
    boot = _boot()
    if boot == "" or (record.owner.boot, record.owner.host) != (boot, _host()):
        return record.synced
    if not record.in_order or not record.done:
        return record.done
    end = record.done[-1][1]
    return record.done if size < end or (record.total is not None and size > record.total) else ((0, size),)


def shown(url_text: str) -> str:
    """Return a URL without its query, which may hold a signature."""
    return url_text.partition("?")[0]


def key_of(url_text: str) -> str:
    """Return what stands for the part of a URL that is not `shown`, and does not tell it; "" if there is none."""
    _, mark, query = url_text.partition("?")
    if not mark:
        return ""  # as for most, which never load the hash: with it come 4 MiB of OpenSSL
    from hashlib import sha256

    return sha256(query.encode("utf-8", "surrogatepass")).hexdigest()


class Journal:
    """The journal beside the file ``part``.  It has one writer at a time, who has seen that no other is alive."""

    __slots__ = ("_new", "_probe", "path")

    def __init__(self, part: str) -> None:
        stem = shortened(part, ".json.new")
        self.path = f"{stem}.json"
        # One fixed name, so that what a killed process leaves is a single file, which the next save replaces.
        self._new = f"{stem}.json.new"
        self._probe = f"{stem}.json.now"

    def __repr__(self) -> str:
        return f"<Journal {self.path}>"

    def load(self) -> Record | None:
        """Return what the journal says; None where there is none, or what is there cannot be believed.

        Raises StorageError for what is no regular file, and where it cannot be read.
        """
        with _translated("cannot read", self.path):
            try:
                data = self._read()
            except FileNotFoundError:
                return None
        return _decode(data) if len(data) <= _LARGEST else None

    def _read(self) -> bytes:
        _check_regular(os.lstat(self.path), self.path)  # to open a device may already do something
        fd = os.open(self.path, _READ_FLAGS)
        with open(fd, "rb") as file:
            _check_regular(os.fstat(fd), self.path)  # what was looked at may be another file by now
            return file.read(_LARGEST + 1)

    def save(self, record: Record, *, durable: bool) -> None:
        """Put a new journal in the place of the old, which stays if that fails.

        With ``durable`` it is on the disk when this returns; without, the process may be killed but the power must
        stay.  Raises StorageError.
        """
        assert _is_consistent(record), record
        data = _encode(record)
        with _translated("cannot write", self.path):
            fd = _create_anew(self._new)
            try:
                _fill(fd, data, self.path, durable)
                os.replace(self._new, self.path)
            except BaseException:
                remove(self._new)
                raise
            if durable:
                _sync_folder(os.path.dirname(self.path) or os.curdir)

    def idle(self) -> float:
        """Return for how many seconds the journal has not been renewed; infinite if it is gone.

        Both moments are the file system's: the clock of this host may be another than that of a file server.
        """
        with _translated("cannot create", self._probe):
            try:
                renewed = os.lstat(self.path).st_mtime
            except FileNotFoundError:
                return float("inf")
            fd = _create_anew(self._probe)
            try:
                return os.fstat(fd).st_mtime - renewed
            finally:
                os.close(fd)
                remove(self._probe)

    def remove(self) -> None:
        """Remove the journal, and what a killed process left of one.  Does not raise."""
        for path in (self.path, self._new, self._probe):
            remove(path)


# Files


@contextmanager
def _translated(what: str, path: str) -> Iterator[None]:
    """Make a StorageError of what the operating system says."""
    try:
        yield
    except StorageError:
        raise
    except OSError as exc:
        raise storage_error(what, path, exc) from exc


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(f"{path} is no regular file", path=path, errno=errno.EEXIST)


def _create_anew(path: str) -> int:
    """Create a file; one that a killed process left under this name goes first."""
    try:
        return create(path)
    except FileExistsError:
        _check_regular(os.lstat(path), path)
    os.unlink(path)
    return create(path)


def _fill(fd: int, data: bytes, path: str, durable: bool) -> None:
    try:
        write_all(fd, memoryview(data), path)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def _sync_folder(folder: str) -> None:
    """Bring a rename to the disk, where folders can be synced."""
    try:
        fd = os.open(folder, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:
        return  # Windows opens no folders; and one may be ours to write to, but not to read
    try:
        os.fsync(fd)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that does not sync folders
            raise
    finally:
        os.close(fd)


# This process and its machine


class _Process(NamedTuple):
    started: int | None = None
    ended: bool = False  # a zombie: its parent has not asked for its status yet


def _process(pid: int) -> _Process:
    """Return what Linux tells about a process; nothing elsewhere, or if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            _, _, rest = file.read().rpartition(b")")  # the name before it may hold spaces and brackets
    except OSError:
        return _Process()
    fields = rest.split()  # from the third on (proc(5)): the state is field 3, the start field 22
    if len(fields) < 20:
        return _Process()
    return _Process(int(fields[19]), fields[0] in (b"Z", b"X"))


def _boot() -> str:
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return file.read().strip()
    return ""


def _host() -> str:
    if hasattr(os, "uname"):
        return os.uname().nodename
    import platform

    return platform.node()


# The text.  Whatever is wrong with it is a ValueError on the way, and "no journal" in the end.


def _encode(record: Record) -> bytes:
    import json

    return json.dumps(record._asdict() | {"owner": record.owner._asdict()}).encode("ascii") + b"\n"


def _decode(data: bytes) -> Record | None:
    import json

    try:
        record = _record(json.loads(data.decode("utf-8"), object_pairs_hook=_object))
    except (ValueError, RecursionError):
        return None
    return record if _is_consistent(record) else None


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name that occurs twice")
    return fields


def _record(value: object) -> Record:
    fields = _fields(value, Record._fields)
    return Record(
        version=_integer(fields["version"]),
        url=_text(fields["url"]),
        url_key=_text(fields["url_key"]),
        final_url=_text(fields["final_url"]),
        validator=None if fields["validator"] is None else _validator(fields["validator"]),
        total=None if fields["total"] is None else _integer(fields["total"]),
        done=_ranges(fields["done"]),
        synced=_ranges(fields["synced"]),
        coding=_text(fields["coding"]),
        in_order=_truth(fields["in_order"]),
        owner=_owner(fields["owner"]),
    )


def _owner(value: object) -> Owner:
    fields = _fields(value, Owner._fields)
    return Owner(
        pid=_integer(fields["pid"]),
        started=None if fields["started"] is None else _integer(fields["started"]),
        boot=_text(fields["boot"]),
        host=_text(fields["host"]),
        token=_text(fields["token"]),
    )


def _fields(value: object, names: tuple[str, ...]) -> dict[str, object]:
    if not isinstance(value, dict) or value.keys() != set(names):
        raise ValueError(f"no object of {names}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("no string")
    return value


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LAST_OFFSET:
        raise ValueError("no offset")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("neither true nor false")
    return value


def _pair(value: object) -> tuple[object, object]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("no pair")
    return value[0], value[1]


def _validator(value: object) -> tuple[str, str]:
    kind, text = _pair(value)
    return _text(kind), _text(text)


def _ranges(value: object) -> Ranges:
    if not isinstance(value, list):
        raise ValueError("no list")
    pairs = [_pair(item) for item in value]
    return tuple((_integer(first), _integer(end)) for first, end in pairs)


def _is_consistent(record: Record) -> bool:
    end = _LAST_OFFSET if record.total is None else record.total
    return (
        record.version == VERSION
        and _are_in_order(record.done, end)
        and _are_in_order(record.synced, end)
        and _length(record.done + record.synced) == _length(record.done)
        and (not record.in_order or record.done in ((), ((0, _length(record.done)),)))
    )


def _are_in_order(ranges: Ranges, limit: int) -> bool:
    edge = 0
    for first, end in ranges:
        if not edge <= first < end <= limit:
            return False
        edge = end
    return True


def _length(ranges: Iterable[tuple[int, int]]) -> int:
    """Count the bytes that lie in any of the ranges."""
    length = edge = 0
    for first, end in sorted(ranges):
        length += max(0, end - max(edge, first))
        edge = max(edge, end)
    return length
