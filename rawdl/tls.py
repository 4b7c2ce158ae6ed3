"""TLS: its settings, the handshake, and the encrypted stream (RFC 8446, RFC 9110 4.3.4).

The standard library's ssl does the cryptography on memory, and the bytes go through the same non-blocking connection
as plain ones.  So this module sees for itself how the peer went away: with a close_notify, by a FIN without one, or by
RST.
"""

from __future__ import annotations

import os
import re
import ssl
import sys
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal, cast

from rawdl.connection import Connection
from rawdl.errors import ConnectionLost, DownloadError, TLSError
from rawdl.loop import READ, WRITE
from rawdl.sessions import Sessions, Way

# Ciphertext that is read from the socket at once: some records' worth.  OpenSSL keeps a buffer of this size for each
# connection, so more would cost memory with every one of them.
_CIPHERTEXT: Final = 131072
_RECORD: Final = 16384 + 256 + 5  # the most that a record can be, with its header (RFC 8446 5.2)
_INNER: Final = 32768  # the same within TLS to a proxy: two records
_PIN: Final = re.compile(r"sha256//[A-Za-z0-9+/]{43}=")
_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True, kw_only=True)
class TLS:
    """How a client's servers are verified.

    ``ca_file`` is a PEM file that *replaces* the system's trusted certificates, and so does ``ca_dir``, a folder that
    OpenSSL has hashed.  On macOS and Windows the system's own store is asked where the package truststore is installed.
    ``verify=False`` accepts any certificate of anybody; it is warned about.  ``minimum_version`` is "1.2" or "1.3".

    ``client_cert`` is a PEM file by which the origin of a task's URL knows the client, if it asks; those that redirects
    and mirrors lead to, and proxies, are shown none.  ``client_key`` has its key, if that is not in the same file, and
    ``key_password`` opens it.  ``pins`` are public keys, each as ``sha256//`` and the base64 of its SHA-256 (RFC 7469
    2.4): an origin must have one of them, whoever else vouches for it.
    """

    ca_file: str | os.PathLike[str] | None = None
    ca_dir: str | os.PathLike[str] | None = None
    client_cert: str | os.PathLike[str] | None = None
    client_key: str | os.PathLike[str] | None = None
    key_password: str | None = field(default=None, repr=False)
    verify: bool = True
    minimum_version: Literal["1.2", "1.3"] = "1.2"
    pins: Collection[str] = ()

    def __post_init__(self) -> None:
        for name in ("ca_file", "ca_dir", "client_cert", "client_key"):
            if not isinstance(getattr(self, name), str | os.PathLike | None):
                raise TypeError(f"tls.{name} is a path or None, not {getattr(self, name)!r}")
        if not isinstance(self.verify, bool):
            raise TypeError(f"tls.verify is True or False, not {self.verify!r}")
        if self.client_key is not None and self.client_cert is None:
            raise ValueError("tls.client_key is of no use without tls.client_cert")
        if isinstance(self.pins, str) or not isinstance(self.key_password, str | None):
            raise TypeError("tls.pins is a collection of str, and tls.key_password a str or None")
        object.__setattr__(self, "pins", tuple(self.pins))
        for pin in self.pins:
            if not isinstance(pin, str) or not _PIN.fullmatch(pin):
                raise ValueError(f"a pin is sha256// and 44 characters of base64, not {pin!r}")
        if not isinstance(self.minimum_version, str):
            raise TypeError(f"tls.minimum_version is a str, not {self.minimum_version!r}")
        if self.minimum_version not in _VERSIONS:
            raise ValueError(f"tls.minimum_version is one of {', '.join(_VERSIONS)}, not {self.minimum_version!r}")

    def context(self) -> ssl.SSLContext:
        """Make the context.  OSError if a file cannot be read, ssl.SSLError if it is not what it should be."""
        if self.ca_file is None and self.ca_dir is None:
            context = _system_context()
        else:
            if self.ca_dir is not None:
                os.scandir(self.ca_dir).close()  # OpenSSL takes one that it cannot open for an empty one
            context = ssl.create_default_context(cafile=self.ca_file, capath=self.ca_dir)
        if self.client_cert is not None:
            # Never None: OpenSSL would ask the terminal.
            context.load_cert_chain(self.client_cert, self.client_key, self.key_password or "")
        context.minimum_version = _VERSIONS[self.minimum_version]
        context.hostname_checks_common_name = False  # only a subjectAltName names a server (RFC 9110 4.3.4)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _system_context() -> ssl.SSLContext:
    """Make a context that trusts whom the system does; elsewhere OpenSSL's certificates are the system's."""
    if sys.platform in ("darwin", "win32"):
        with suppress(ImportError):
            from truststore import SSLContext

            context = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if keys := os.environ.get("SSLKEYLOGFILE"):
                context.keylog_filename = keys
            return context
    return ssl.create_default_context()


def context_of(settings: TLS | ssl.SSLContext | None) -> ssl.SSLContext:
    """Return the context that a client uses for all its connections."""
    if isinstance(settings, ssl.SSLContext):
        return settings
    return (settings or TLS()).context()


class TLSConnection(Connection):
    """A TLS stream over a connected socket, or over TLS to a proxy; its handshake is driven by `Handshake`."""

    __slots__ = ("_below", "_ciphertext", "_failure", "_incoming", "_outgoing", "_sessions", "_ssl", "_unsent", "_way")

    def __init__(self, below: Connection, way: Way, sessions: Sessions) -> None:
        super().__init__(below.loop, below.sock, below.address)
        self._below = below
        # What TLS to a proxy has decrypted is our ciphertext, and must not lie where that reads its own.
        inner = isinstance(below, TLSConnection)
        self._ciphertext = memoryview(bytearray(_INNER)) if inner else below.loop.scratch[:_CIPHERTEXT]
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        # A name is verified, and sent, without its root dot (RFC 6066 3), and an address without its zone.
        host = way.host.rstrip(".").partition("%")[0]
        self._ssl = way.context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=host, session=sessions.take(way)
        )
        self._way = way
        self._sessions: Sessions | None = None  # once the peer is known to be who it should be
        self._unsent = b""
        self._failure: ConnectionLost | None = None
        self.clean_eof = False

    def handshake(self) -> int:
        """Go on with the handshake; return the events to wait for, or 0 when it is done."""
        while True:
            done = self._shake()
            sent = self.flush()
            if done:
                return 0 if sent else WRITE
            n = self._fill()
            if n is None:
                return READ if sent else READ | WRITE
            if n == 0:
                raise ConnectionLost(f"{self.peer} closed the connection during the TLS handshake")

    def _shake(self) -> bool:
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError:
            with suppress(ConnectionLost):
                self.flush()  # the alert that tells the peer why
            raise
        return True

    def recv_into(self, buffer: memoryview) -> int | None:
        """Read records until the buffer is full or the socket is dry, so that what is done with them is worth a call.

        0 is the end: ``clean_eof`` tells whether a close_notify said so (RFC 8446 6.1).
        """
        if self._failure is not None:
            raise self._failure
        got = 0
        try:
            while got < len(buffer):
                n = self._read(buffer[got:])
                if not n:
                    return got or n
                got += n
        except ConnectionLost as exc:
            if not got:
                raise
            self._failure = exc  # what was read before it counts
        return got

    def _read(self, buffer: memoryview) -> int | None:
        while True:
            try:
                n = cast(int, self._ssl.read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                filled = self._fill()
                if not filled:
                    return filled
                continue
            except ssl.SSLZeroReturnError:
                n = 0
            except ssl.SSLError as exc:
                self._sessions = None
                raise ConnectionLost(f"TLS failed on the connection to {self.peer}: {_words(exc)}") from exc
            self.clean_eof = not n
            return n

    def _fill(self) -> int | None:
        """Move ciphertext from the socket into the decoder; None: the socket is dry, 0: the peer closed it."""
        if self._outgoing.pending or self._unsent:
            self.flush()  # an answer to a key update, say
        n = self._below.recv_into(self._ciphertext)
        if n:
            self._incoming.write(self._ciphertext[:n])
        return n

    def send(self, data: bytes | memoryview) -> int | None:
        """Encrypt what is given, if what was encrypted before is out."""
        if not self.flush():
            return None
        try:
            n = self._ssl.write(data)
        except ssl.SSLError as exc:
            raise ConnectionLost(f"TLS failed on the connection to {self.peer}: {_words(exc)}") from exc
        self.flush()
        return n

    def flush(self) -> bool:
        """Send what is encrypted; return whether all of it is out."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            n = self._below.send(self._unsent)
            if n is None:
                return False
            self._unsent = self._unsent[n:]
        return self._below.flush()

    def pending(self) -> bool:
        """Whether something was read from the socket that nobody has asked for yet: bytes, their end, a failure."""
        ours = self._incoming.pending or self._ssl.pending() or self.clean_eof or self._failure
        return bool(ours) or self._below.pending()

    def quiet(self) -> bool:
        """Whether nothing is left over, in either direction, that belongs to the exchange that has ended."""
        return not (self.pending() or self._unsent or self._outgoing.pending) and self._below.quiet()

    @property
    def security(self) -> dict[str, object]:
        """What the handshake has agreed upon."""
        cipher = self._ssl.cipher()
        return {"version": self._ssl.version(), "cipher": cipher and cipher[0], "resumed": self._ssl.session_reused}

    @property
    def pin(self) -> str:
        """What stands for the public key of the peer, once the handshake is done; "" if that has none."""
        certificate = self._ssl.getpeercert(binary_form=True)
        return pin_of(certificate) if certificate else ""

    def splice_source(self) -> int | None:
        """Return None: the kernel cannot read this stream."""
        return None

    @property
    def hidden(self) -> int:
        """How much may have come of a record that is not complete, which OpenSSL keeps to itself."""
        return _RECORD

    def accept(self, sessions: Sessions) -> None:
        """Take the peer for what it claims to be: its session may be resumed.

        Not where another store than OpenSSL's verifies it: that wants the whole chain, which a session does not have.
        """
        if type(self._way.context) is ssl.SSLContext:
            self._sessions = sessions

    def abort(self) -> None:
        """Close at once, and keep the session that the server has given, which comes behind the handshake."""
        if not self.closed and self._sessions is not None and (session := self._ssl.session) is not None:
            self._sessions.keep(self._way, session)
        super().abort()

    def close(self) -> None:
        """Say close_notify, as far as that goes without waiting, and close (RFC 9112 9.8)."""
        if not self.closed:
            with suppress(ssl.SSLError, ConnectionLost):
                self._ssl.unwrap()
            with suppress(ConnectionLost):
                self.flush()
        self.abort()


class Handshake:
    """A TLS handshake under way; ``done(connection, error)`` is called once, at its end."""

    __slots__ = ("_connection", "_done", "_host", "_pins", "_sessions")

    def __init__(
        self,
        plain: Connection,
        way: Way,
        sessions: Sessions,
        done: Done,
        pins: Collection[str] = (),
    ) -> None:
        self._host = way.host
        self._sessions = sessions
        self._pins = pins
        self._done = done
        self._connection = TLSConnection(plain, way, sessions)

    @property
    def peer(self) -> str:
        """The address that is shaken hands with."""
        return self._connection.peer

    def start(self) -> None:
        """Send the first message."""
        self._connection.watch(READ, self._advance)
        self._advance(0)

    def _advance(self, mask: int) -> None:
        try:
            wanted = self._connection.handshake()
            if not wanted and self._pins and self._connection.pin not in self._pins:
                raise _Unpinned(f"its public key is {self._connection.pin}, which is not pinned")
        except (ssl.SSLError, ConnectionLost, _Unpinned) as exc:
            self._connection.abort()
            self._done(None, self._failed(exc))
            return
        if wanted:
            self._connection.watch(wanted, self._advance)
        else:
            self._connection.accept(self._sessions)
            self._done(self._connection, None)

    def _failed(self, exc: ssl.SSLError | ConnectionLost | _Unpinned) -> TLSError:
        at = f"TLS handshake with {self._host} ({self.peer}) failed"
        if isinstance(exc, _Unpinned):
            error = TLSError(f"{at}: {exc}", certificate=True, unpinned=True)
        elif isinstance(exc, ssl.SSLCertVerificationError):
            error = TLSError(f"{at}: certificate not accepted: {exc.verify_message}", certificate=True)
        elif isinstance(exc, ConnectionLost):
            error = TLSError(f"{at}: {exc}", errno=exc.errno)
        else:
            error = TLSError(f"{at}: {_words(exc)}")
        error.__cause__ = exc
        return error

    def abort(self) -> None:
        """Close the connection; ``done`` is not called."""
        self._connection.abort()

    def __repr__(self) -> str:
        return f"<Handshake with {self._host} at {self.peer}>"


class _Unpinned(Exception):
    """The peer has another public key than it should."""


Done = Callable[[Connection | None, DownloadError | None], None]


def _words(exc: ssl.SSLError) -> str:
    """Say what OpenSSL means; one of its reasons has a cause that a person can do something about."""
    reason = (exc.reason or str(exc)).replace("_", " ").lower()
    if exc.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return f"{reason} (the server does not speak TLS on this port; is it plain http?)"
    return reason


def pin_of(certificate: bytes) -> str:
    """Return what stands for the public key of a certificate in DER: the SHA-256 of its SubjectPublicKeyInfo.

    That is the seventh element of the to-be-signed part, or the sixth where there is no version (RFC 5280 4.1).
    """
    from base64 import b64encode
    from hashlib import sha256

    at, _ = _content(certificate, 0)
    at, _ = _content(certificate, at)
    elements = 6 if certificate[at] == 0xA0 else 5
    for _ in range(elements):
        start, length = _content(certificate, at)
        at = start + length
    start, length = _content(certificate, at)
    return f"sha256//{b64encode(sha256(certificate[at : start + length]).digest()).decode()}"


def _content(data: bytes, at: int) -> tuple[int, int]:
    """Return where the content of an element begins, and how long it is (X.690 8.1)."""
    length = data[at + 1]
    if length < 0x80:
        return at + 2, length
    size = length & 0x7F
    return at + 2 + size, int.from_bytes(data[at + 2 : at + 2 + size], "big")
