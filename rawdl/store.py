"""The sink of one download over all of its tries: what is in it, whether that is right, and what becomes of it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from rawdl.continuation import Continuation
from rawdl.errors import Aborted, ChecksumError, DownloadError, RangeError, StorageError, TooLarge, too_large
from rawdl.job import Job
from rawdl.proto.course import Course, Take
from rawdl.proto.events import HeadReceived
from rawdl.proto.messages import Headers
from rawdl.sinks import DecodingSink, LimitedSink, Sink, native_name

if TYPE_CHECKING:
    from rawdl.partfile import PartFile
    from rawdl.proto.checksums import Checksum
    from rawdl.proto.decoding import Decoder
    from rawdl.verify import Readable, Verification

# With one of these in the head, there is a promise to be verified.
_DIGEST_FIELDS: Final = ("repr-digest", "content-digest", "digest")
_PROMISING: Final = re.compile(b"digest|trailer")


class Store:
    """Keep the sink of a job in step with its course.

    ``resumed_from`` counts what an earlier download had left in it.
    """

    __slots__ = ("_course", "_job", "_verification", "_vouched", "decoder", "resumed_from")

    def __init__(self, job: Job, course: Course) -> None:
        self._job = job
        self._course = course
        self._verification: Verification | None = None  # once there is something to verify
        self._vouched = job.checksums  # what holds of any version
        self.decoder: Decoder | None = None  # if the body is coded, and that is to be taken off
        self.resumed_from = 0

    def open(self) -> None:
        """Open the sink, and have the course go on from what is there already."""
        self._job.sink.open()
        if self._job.part is None or self._job.part.found is None:
            return
        found = self._job.part.found
        assert found.validator is not None
        self.resumed_from = self.count()
        self._course.adopt(found.validator, found.total, self._job.part.position)

    def count(self) -> int:
        """Return how many bytes are in the part, wherever they are in it."""
        assert self._job.part is not None
        return sum(stop - start for start, stop in self._job.part.there())

    def can_go_on(self, error: DownloadError, written: int) -> bool:
        """Whether another try may add to what is there."""
        spoiled = isinstance(error, RangeError | ChecksumError)
        return not spoiled and (self._course.validator is not None or not written)

    @property
    def can_restart(self) -> bool:
        """Whether it can forget what was written."""
        return self._job.sink.restartable

    def restart(self) -> None:
        """Forget what was written; RangeError if that is impossible."""
        if not self.can_restart:
            raise RangeError("the server sends the whole file, and the sink cannot begin anew")
        self._job.sink.restart()
        self.resumed_from = 0
        self._verification = self.decoder = None

    def vouch(self, checksum: Checksum | None = None) -> None:
        """Hold whatever comes from now on against what has been promised by now: a mirror follows."""
        if checksum is not None:
            self._verifier().expect((checksum,))
        if self._verification is not None:
            self._vouched = self._verification.expected

    # A response

    def take_name(self, head: HeadReceived) -> int | None:
        """Have the server name the file, if it is to; return what `size_to_skip` does, which is not known before."""
        part = self._job.part
        if part is None or not part.destination.is_open:
            return None
        part.destination.name(_suggested(head))
        return self.size_to_skip()

    def expect(self, head: HeadReceived) -> None:
        """Prepare for what a response brings; refuse what is too large before any of it is written."""
        course, most = self._course, self._job.terms.most
        if most is not None and course.total is not None and course.total > most:
            raise too_large(course.total, most)
        self.describe()
        self.decoder = self._decoder_for(head.header) if self._job.decode else None
        if self.decoder is not None and self._vouched:
            self._verifier()  # of the decoded bytes; what the server promises is of those on the wire
        elif self.decoder is None and self._is_promised(head.header):
            self._expect(head.header, partial=head.status_code == 206)
            course.places.learn(head.header)

    def _decoder_for(self, header: Headers) -> Decoder | None:
        from rawdl.proto.decoding import codings_of, decoder

        codings, limits = ", ".join(header.get_all("content-encoding")), self._job.terms.limits
        return decoder(codings, limit=limits.decoded, ratio=limits.ratio) if codings_of(codings) else None

    def size_to_skip(self) -> int | None:
        """Return how many bytes the file has that is there, if it is to be left at that."""
        return None if self._job.part is None else self._job.part.destination.size_to_skip()

    def describe(self) -> None:
        """Tell the part of which version the bytes will be, and any sink how many of them are to come."""
        total = self._course.total
        if self._job.part is not None:
            self._job.part.describe(self._course, total)
        elif total is not None:
            self._job.sink.expect(total - self._course.base)

    def _is_promised(self, header: Headers) -> bool:
        if self._course.ranged:
            return False
        if self._vouched:
            return True
        if not header.mentions(_PROMISING):  # as in most heads, which nobody ever decodes
            return False
        return any(name in header for name in _DIGEST_FIELDS) or "digest" in header.get("trailer", "").lower()

    def sink(self) -> Sink:
        """Return where the bytes go that come in order."""
        if self._verification is None:
            return self._job.sink
        return self._verification.sink_after(self._course.base)

    def continued(self, sink: Sink, answer: Take, head: HeadReceived) -> Sink:
        """Return where the whole body of a response goes, whose new bytes go to ``sink``."""
        base, framed = self._course.base, head.framing.length is not None
        if self.decoder is not None:
            sink = DecodingSink(sink, self.decoder)
        if self._job.terms.most is not None and not framed:
            sink = LimitedSink(sink, self._job.terms.most, base)
        if answer.length is None:
            return sink
        there = b"" if self._job.part is None else self._job.part.read(answer.origin, base - answer.origin)
        return Continuation(sink, there, answer.length, framed=framed)

    # The end

    def promise(self, trailer: Headers, *, partial: bool) -> None:
        """The body is complete: take what its trailer section promises.  DecodingError if its coding is not."""
        if self.decoder is not None:
            self.decoder.flush()
        elif not self._course.ranged and trailer.mentions(_PROMISING):
            self._expect(trailer, partial=partial)

    def verify(self) -> bool:
        """Do a piece of the verification; return whether it is done.  Raises ChecksumError."""
        if self._verification is None and (self._course.ranged or not self._vouched):
            return True
        return self._verifier().step()

    def verify_there(self) -> bool:
        """Do a piece of the verification of a file that is left in its place; return as `verify` does."""
        assert self._job.part is not None
        return not self._vouched or self._verifier(self._job.part.destination).step()

    def _verifier(self, file: Readable | None = None) -> Verification:
        if self._verification is None:
            from rawdl.verify import Verification

            self._verification = Verification(self._job.sink, file or self._job.part, self._vouched)
        return self._verification

    def _expect(self, header: Headers, *, partial: bool) -> None:
        from rawdl.proto.checksums import promised_by

        self._verifier().expect(promised_by(header, partial=partial))

    @property
    def verified(self) -> str:
        """What the bytes were compared with."""
        return "" if self._verification is None else self._verification.verified

    def commit(self, header: Headers, wall_clock: Callable[[], float]) -> None:
        """Make it visible, with the date that the server gives it if that is wanted.

        ``wall_clock`` returns POSIX seconds.
        """
        if self._job.part is not None and self._job.remote_time:
            from rawdl.proto.fields import parse_http_date

            self._job.part.date(parse_http_date(header.get("last-modified", ""), wall_clock=wall_clock()))
        self._job.sink.commit()

    def revoke(self) -> None:
        """Take a commit back."""
        self._job.sink.revoke()

    def leave(self, error: DownloadError, *, keeping: bool) -> str | None:
        """Keep what a later download can continue, and return its name; else remove it.

        ``keeping``: also after an abort.
        """
        if self._job.part is None:
            self._job.sink.discard()
            return None
        try:
            return self._leave(self._job.part, error, keeping)
        except BaseException:  # what a signal handler raises: the lock must not outlive us
            self._job.part.close()
            raise

    def _leave(self, part: PartFile, error: DownloadError, keeping: bool) -> str | None:
        if isinstance(error, RangeError):  # it was to be continued, so nothing of it is lost
            return part.keep() if part.is_described else part.close()
        if self._is_worth_keeping(error) and (keeping or self._job.resume is True or not isinstance(error, Aborted)):
            return part.keep()
        part.discard()
        return None

    def _is_worth_keeping(self, error: DownloadError) -> bool:
        if self._job.resume is False or self._course.validator is None:
            return False
        if isinstance(error, StorageError) and error.errno == errno.EIO:
            return False  # who knows what is in it
        return not isinstance(error, ChecksumError | TooLarge)

    def __repr__(self) -> str:
        return f"<Store {self._job.sink!r}, resumed from {self.resumed_from}>"


def _suggested(head: HeadReceived) -> str | None:
    """Return the name that a response gives its content (RFC 6266), as a safe one; None if it gives none."""
    if head.status_code not in (200, 206):
        return None
    from rawdl.proto.fields import parse_content_disposition, safe_filename

    disposition = parse_content_disposition(head.header.get("content-disposition", ""))
    if disposition is None or disposition.filename is None:
        return None
    return native_name(safe_filename(disposition.filename))
