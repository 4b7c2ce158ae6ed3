"""The requests of one download, one after another: what to ask for, and what each answer means.

    next_request() ─► Request ─► (an exchange) ─► answered(head) ─► Take · Follow · Complete     (or an error is raised)
         ▲                                             │
         └──── failed(error) ─► seconds to wait ◄──────┘

It knows tries, ranges and validators, its `Places` know where to ask, and neither knows a sink, connection or task: it
says what to do, and is told what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from rawdl.errors import (
    Aborted,
    ChecksumError,
    DownloadError,
    RangeError,
    StatusError,
    StorageError,
    Timeout,
    TooLarge,
    status_error,
)
from rawdl.proto.events import HeadReceived
from rawdl.proto.fields import parse_retry_after
from rawdl.proto.messages import Headers, Request
from rawdl.proto.places import Places
from rawdl.proto.ranges import Append, Asked, Complete, Restart, Validator, Whole, judge, strong_validator
from rawdl.proto.redirects import Redirects
from rawdl.proto.retry import Attempts, Retry, is_transient
from rawdl.proto.timeouts import Phase
from rawdl.proto.url import URL

if TYPE_CHECKING:
    from rawdl.proto.auth import Authority
    from rawdl.proto.checksums import Checksum

# The body of a redirect is read to its end, for the connection's sake, if that costs less than a new connection: some
# 14 KB come with the first round trip (RFC 6928), and a new one with TLS costs three of those.
_WORTH_DRAINING: Final = 65536


class Take(NamedTuple):
    """The body is wanted: its first byte is byte ``origin`` of the file.

    ``restart`` says that what is there must be forgotten first.  ``length`` is set for a range: that many bytes, and no
    more.
    """

    origin: int = 0
    restart: bool = False
    length: int | None = None


class Follow(NamedTuple):
    """A redirect, or with ``here`` the wish to be asked again with a proof of who asks.

    ``drain``: its body is small enough to be read, so that the connection can be used again.
    """

    drain: bool
    here: bool = False


Answer = Take | Follow | Complete


class CookieStore(Protocol):
    """Cookies, for one task or for many."""

    def receive(self, header: Headers, url: URL) -> None:
        """Take what a response from ``url`` sets."""

    def field(self, url: URL, given: str | None) -> str | None:
        """Return the value of Cookie for a request of ``url``, with what the caller has ``given``."""


class CookieSource(Protocol):
    """Where a task has its cookies from."""

    @property
    def kept(self) -> CookieStore | None:
        """The caller's own; None: he keeps none."""

    def new(self) -> CookieStore:
        """Make a store for the redirects of one task."""


class Course:
    """Plan the requests of one download, of which ``request`` is the first.

    ``base`` counts the bytes that are in the sink when a request goes out, ``total`` is the length of the whole as far
    as it is known, and ``validator`` is that of the version that is in the sink; without one it cannot be continued.
    """

    __slots__ = (
        "_attempts",
        "_authority",
        "_cookie_source",
        "_cookies",
        "_moved",
        "_resume",
        "_retry",
        "_retry_after",
        "_returned_at",
        "_validated",
        "_validator",
        "asked",
        "base",
        "best",
        "following",
        "lone",
        "places",
        "ranged",
        "total",
    )

    def __init__(
        self,
        request: Request,
        header: Mapping[str, str | None] | None,
        redirects: Redirects,
        retry: Retry,
        resume: bool | str,
        mirrors: Iterable[URL],
        authority: Authority | None,
        cookies: CookieSource,
    ) -> None:
        self.places = Places(request, header, redirects, mirrors)
        self._authority = authority  # None: there are no credentials at all
        self._cookie_source = cookies
        self._cookies = cookies.kept  # or those of the redirects, once one has set some
        self._retry = retry
        self._resume = resume
        self._returned_at = 0  # how much was there when the first URL was last gone back to
        self._moved: HeadReceived | None = None  # the last redirect that one of several connections was sent
        self._attempts: Attempts | None = None  # once there was reason to ask
        self._retry_after: float | None = None  # seconds, as the last response has it
        self.asked: Asked | None = None
        self.following = False  # the last answer was a redirect, and has yet to be followed
        self.lone = False  # several connections did not do
        # The caller asks for a part by himself, so that nothing here is about the whole.
        self.ranged = header is not None and any(n.lower() == "range" and v is not None for n, v in header.items())
        self.base = 0
        self.best = 0  # the most that was ever there: who begins anew again and again makes no progress
        self.total: int | None = None
        self._validator: Validator | None = None
        self._validated: Headers | None = None  # the head that it has yet to be read from

    @property
    def validator(self) -> Validator | None:
        """What tells the version that is in the sink from others, if anything does.  Most never need to know."""
        if self._validated is not None:
            self._validator, self._validated = strong_validator(self._validated), None
        return self._validator

    @property
    def url(self) -> URL:
        """Where the next request goes."""
        return self.places.url

    @property
    def shown_url(self) -> str:
        """Where the next request goes, for people."""
        return self.url.redacted

    def __repr__(self) -> str:
        total = "unknown" if self.total is None else self.total
        return f"<Course {self.shown_url} from {self.base} of {total} bytes>"

    @property
    def history(self) -> tuple[DownloadError, ...]:
        """The tries that failed before this one."""
        return () if self._attempts is None else self._attempts.history

    # Asking

    def adopt(self, validator: tuple[str, str], total: int | None, base: int) -> None:
        """Begin with what an earlier download has left; ValueError if nothing can be asked for under its validator."""
        self._validator, self.total = Validator.from_list(list(validator)), total
        self.base = self.best = self._returned_at = base

    def next_request(self, overlap: int) -> Request:
        """Return the request for what is missing.

        ``overlap`` is how many bytes at the end of what is there can be compared with what comes.
        """
        self.asked = self._retry_after = None
        if not self.base:
            if self.places.is_first and self._authority is None and self._cookies is None:
                return self.places.request
            return self._request_to(self.url, self.places.fields())
        assert self.validator is not None
        self.asked = Asked(self.base, None, self.total, self.validator, overlap)
        return self.request_for(self.asked)

    def request_for(self, asked: Asked, url: URL | None = None) -> Request:
        """Return the request for a range, of a mirror if its URL is given."""
        url = url or self.url
        # The caller's conditions are about the whole; with a range goes If-Range, and nothing else.
        header = {n: value for n, value in self.places.fields(url).items() if not n.lower().startswith("if-")}
        return self._request_to(url, {**header, **asked.fields()})

    def _request_to(self, url: URL, header: dict[str, str | None]) -> Request:
        if self._authority is not None:
            header = self._authority.onto(header, url)
        if self._cookies is not None:
            header = self._with_cookies(self._cookies, header, url)
        return Request("GET", url, header)

    def _with_cookies(self, cookies: CookieStore, header: dict[str, str | None], url: URL) -> dict[str, str | None]:
        name = next((name for name in header if name.lower() == "cookie"), "Cookie")
        if name in header and header[name] is None:
            return header  # the caller wants none
        field = cookies.field(url, header.get(name))
        return header if field is None else {**header, name: field}

    # Answers

    def answered(self, head: HeadReceived, now: float, wall_clock: Callable[[], float]) -> Answer:
        """Say what a response means.

        Raises RedirectError for one that must not be followed, StatusError for one that is to be tried again or that
        says nothing of the range that was asked for, and RangeError if what is there cannot be continued.
        ``wall_clock`` returns POSIX seconds.
        """
        status = head.status_code
        if self._cookies is not None:
            self._cookies.receive(head.header, self.url)
        if 300 <= status < 400 and self.places.follows(status):
            return self._followed(head)
        if self._authority is not None:
            if status == 401 and self._authority.challenged(head.header, self.url):
                self.following = True
                return Follow(_is_worth_draining(head), here=True)
            self._authority.accepted()
        if status >= 400:
            retry_after = parse_retry_after(head.header.get("retry-after", ""), wall_clock=wall_clock())
            if self._tries().retries_status(status, now, retry_after):
                self._retry_after = retry_after
                raise status_error(status, self.url.redacted)
            if self.places.mirrors:
                raise status_error(status, self.url.redacted)
        if self.asked is not None:
            return self._continued(self.asked, head)
        self._begins_anew(head)
        return Take()

    def part_of(self, asked: Asked, head: HeadReceived, url: URL, wall_clock: Callable[[], float]) -> Append | None:
        """Say what the response to one of several connections brings; None: ask again, with another proof of who asks.

        Raises RangeError if it is not what was asked for, and StatusError for what says nothing of the range.
        """
        verdict = judge(asked, head)
        if isinstance(verdict, Append):
            if self._authority is not None:
                self._authority.accepted()
            return verdict
        if verdict is not None:
            raise RangeError(verdict.reason if isinstance(verdict, Restart) else f"{head.status_code} for a range")
        if head.status_code == 401 and self._authority is not None and self._authority.challenged(head.header, url):
            return None
        self._moved = head if url is self.url and self.places.follows(head.status_code) else None
        self._retry_after = parse_retry_after(head.header.get("retry-after", ""), wall_clock=wall_clock())
        raise status_error(head.status_code, url.redacted)

    def moves(self, error: DownloadError) -> bool:
        """Follow the redirect with which the last of several connections has failed, if it is one.  RedirectError."""
        head, self._moved = self._moved, None
        if head is None or not isinstance(error, StatusError) or error.status_code != head.status_code:
            return False
        self._followed(head)
        self.following = False  # there is no body to be read first
        return True

    def _followed(self, head: HeadReceived) -> Follow:
        if self._cookies is None and "set-cookie" in head.header:
            self._cookies = self._cookie_source.new()
            self._cookies.receive(head.header, self.url)
        crosses = self.places.follow(head.status_code, head.header)
        if crosses and self._authority is not None:
            self._authority.leave()
        self.following = True
        return Follow(_is_worth_draining(head))

    def _continued(self, asked: Asked, head: HeadReceived) -> Answer:
        verdict = judge(asked, head)
        if isinstance(verdict, Restart):
            raise RangeError(verdict.reason)
        if isinstance(verdict, Append):
            self.places.brings(head.header)
            self.total = verdict.total
            return Take(verdict.first, length=verdict.length)
        if isinstance(verdict, Whole):
            if self._resume is True:
                raise RangeError("the server sends the whole file: it ignores ranges, or has another version")
            self._begins_anew(head)
            return Take(restart=True)
        if isinstance(verdict, Complete):
            return verdict
        raise status_error(head.status_code, self.url.redacted)

    def _begins_anew(self, head: HeadReceived) -> None:
        self.restart()
        self.total = head.framing.length
        if head.status_code == 200 and not self.ranged:
            self._validated = head.header
            self.places.brings(head.header)

    def restart(self) -> None:
        """Know nothing of any bytes."""
        self.base = 0
        self.total = self._validator = self._validated = self.asked = None

    # Failures

    def failed(
        self, error: DownloadError, written: int, now: float, random: float, *, least: float = 1
    ) -> float | None:
        """Return how many seconds to wait before another try, or None: that was the last.

        ``written`` is what is in the sink, from the start of the file; ``random`` is from [0, 1).  To bring fewer than
        ``least`` new bytes is no progress.
        """
        brought = written - self.best
        # With several connections another of them may have been refused.
        retry_after = self._retry_after if isinstance(error, StatusError) else None
        delay = self._tries().failed(
            error, now, progressed=brought >= least, random=random, retry_after=retry_after, brought=brought
        )
        self.best = max(self.best, written)
        return delay

    def begins_anew_after(self, error: DownloadError, *, crew: bool) -> bool:
        """Say whether, since what is there cannot be continued, the whole is to be asked for: at no attempt's cost."""
        return isinstance(error, RangeError) and (crew or self.asked is not None) and self._resume is not True

    def distrusts(self, error: DownloadError) -> bool:
        """Ask for the whole, if what an earlier download had left may be why the bytes are wrong."""
        if not isinstance(error, ChecksumError) or self._resume is True:
            return False
        self._begin_again(error)
        return True

    def goes_alone(self, error: DownloadError) -> bool:
        """Ask the same server for the whole, if what it has brought together with its mirrors is wrong."""
        if not isinstance(error, ChecksumError) or not self.places.mirrors:
            return False
        self._begin_again(error)
        return True

    def goes_back(self, error: DownloadError) -> bool:
        """Ask the first URL anew where to, if the place that it had led to has given up: a signed URL expires in time.

        It gets a whole set of tries, if bytes have come since the last time and there are to be tries at all.
        """
        if self.places.is_first or self.best <= self._returned_at or self._retry.attempts == 1:
            return False
        if not isinstance(error, StatusError) and not is_transient(error):
            return False
        self._begin_again(error)
        self.places.go_back()
        self._returned_at = self.best
        if self._authority is not None and not self.places.has_left:
            self._authority.come_back()
        return True

    def goes_elsewhere(self, error: DownloadError) -> bool:
        """Move to the next mirror, if there is one and the failure is none that it would share.

        It gets a whole set of tries.  Whether it has the same version the validator tells, or else the whole is asked
        for.
        """
        if not self.places.mirrors or not _is_of_the_server(error):
            return False
        self._begin_again(error)
        self.places.go_on()
        if self._authority is not None and self.places.has_left:
            self._authority.leave()
        return True

    def _begin_again(self, error: DownloadError) -> None:
        """Have a whole set of tries."""
        self._attempts = Attempts(self._retry, (*self.history, error))

    def inquiry(self, error: DownloadError) -> tuple[URL, dict[str, str | None]] | None:
        """Return where to ask for a Metalink of the file, and with which fields; None the next time.

        That is for when no mirror is left that is known, and the failure is none that it would share.
        """
        asked = self.places.inquiry() if _is_of_the_server(error) else None
        if asked is None or self._authority is None:
            return asked
        url, header = asked
        return url, self._authority.onto(header, url)

    def learn_description(self, document: bytes) -> Checksum | None:
        """Take the mirrors from a Metalink, and return the hash that their bytes must have; None if it is of no use."""
        # The total may be that of an error page, which has no validator.
        return self.places.learn_description(document, self.total if self.validator else None)

    def _tries(self) -> Attempts:
        if self._attempts is None:
            self._attempts = Attempts(self._retry)
        return self._attempts


def _is_worth_draining(head: HeadReceived) -> bool:
    length = head.framing.length
    return length is not None and length <= _WORTH_DRAINING


def _is_of_the_server(error: DownloadError) -> bool:
    """Whether a failure is none that another server would have to share."""
    if isinstance(error, Aborted | StorageError | TooLarge):
        return False
    return not (isinstance(error, Timeout) and error.phase == Phase.TOTAL)
