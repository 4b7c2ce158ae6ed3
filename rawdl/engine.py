"""The engine of one task: a chain of steps from the queue to the settlement.

    submit ─► start ─► (dial) ─► send ─► head ─► body ─► finish
                         ▲        │        │
                         └────────┴────────┘  once, if a reused connection turns out to be dead

A step is a method that returns the next step, or None to be called again when its connection is ready.  Whatever goes
wrong in one is raised, and `_end` is where every road ends: it closes or gives back the connection, commits or discards
the sink, frees the slot and settles the task.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rawdl.alarm import Alarm
from rawdl.connection import Connection, Dial
from rawdl.errors import Aborted, ConnectionLost, DownloadError, IncompleteBody, Timeout
from rawdl.job import Job, Shared
from rawdl.lanes import Lanes
from rawdl.loop import READ, WRITE
from rawdl.pool import Slot
from rawdl.proto.events import BodyComplete, DataReceived, HeadReceived
from rawdl.proto.framing import Framing, UntilClose
from rawdl.proto.http11 import Exchange
from rawdl.proto.progress import Progress, ProgressUpdate
from rawdl.proto.timeouts import Phase
from rawdl.results import DownloadResult, HeadersReceived, Marks, status_error
from rawdl.task import DownloadTask, TaskState

# Reads in one turn before the other connections get theirs: at 1 MiB each, the most, that is some milliseconds.
_READS_PER_TURN: Final = 8
# A read that brings less than this has emptied the socket, nearly always: looking again would cost a call for nothing.
_DRY_BELOW: Final = 65536

Step = Callable[[], "Step | None"]


class Download:
    """Carry one job out, and tell its task."""

    __slots__ = (
        "_alarm",
        "_connection",
        "_dial",
        "_exchange",
        "_framing",
        "_headers",
        "_job",
        "_lanes",
        "_marks",
        "_over",
        "_progress",
        "_shared",
        "_slot",
        "_step",
        "_task",
    )

    def __init__(self, shared: Shared, job: Job, task: DownloadTask) -> None:
        self._shared = shared
        self._job = job
        self._task = task
        self._marks = Marks(shared.loop.time(), shared.loop.wall_offset())
        self._slot: Slot | None = shared.pool.submit(job.key, self._start)
        self._dial: Dial | None = None
        self._connection: Connection | None = None
        self._exchange: Exchange | None = None
        self._framing: Framing | None = None
        self._headers: HeadersReceived | None = None
        self._progress: Progress | None = None
        self._alarm: Alarm | None = None
        self._step: Step | None = None
        self._lanes: Lanes | None = None  # once there is a body
        self._over = False
        shared.live.add(task)

    # Getting a connection

    def _start(self) -> None:
        """Leave the queue: the clocks start now."""
        now = self._shared.loop.now
        self._marks.queue_end = now
        self._task.enter(TaskState.CONNECTING)
        self._alarm = Alarm(self._shared.loop, self._job.timeouts, self._timed_out)
        self._step = self._open
        self._advance()

    def _open(self) -> Step | None:
        """Open the sink, so that what is wrong with it is found before the request; then take or make a connection."""
        self._job.sink.open()
        connection = self._shared.pool.take(self._job.key)
        if connection is None:
            return self._connect
        self._connection = connection
        self._marks.reused = True
        return self._begin_exchange

    def _connect(self) -> Step | None:
        self._dial = self._shared.dialer.dial(self._job.key.origin, self._job.key.context, self)
        self._step = self._begin_exchange
        return None

    def dial_entered(self, phase: Phase) -> None:
        """The dial has begun a phase."""
        now = self._shared.loop.now
        marks = self._marks
        if phase is Phase.RESOLVE:
            marks.lookup_start = now
        elif phase is Phase.CONNECT:
            marks.lookup_end = marks.connect_start = now
        else:
            marks.tls_start = now
        self._enter(phase)

    def dial_done(self, connection: Connection) -> None:
        """The dial has a connection."""
        now = self._shared.loop.now
        self._marks.connect_end = now
        if self._marks.tls_start:
            self._marks.tls_end = now
        self._dial = None
        self._connection = connection
        self._advance()

    def dial_failed(self, error: DownloadError) -> None:
        """The dial has failed."""
        self._dial = None
        self._end(error)

    # Sending the request

    def _begin_exchange(self) -> Step | None:
        assert self._connection is not None
        self._connection.exchanges += 1
        self._exchange = Exchange(self._job.request, limits=self._job.limits, writer=self._shared.writer)
        self._task.enter(TaskState.WAITING)
        marks, now = self._marks, self._shared.loop.now
        marks.peer = self._connection.address[1][:2]
        marks.request_start = now
        marks.sent = len(self._exchange.data_to_send())
        self._enter(Phase.SEND)
        return self._send

    def _send(self) -> Step | None:
        connection, exchange = self._connection, self._exchange
        assert connection is not None and exchange is not None
        try:
            while data := exchange.data_to_send():
                n = connection.send(data)
                if n is None:
                    return self._send_later(connection)
                exchange.data_sent(n)
            if not connection.flush():
                return self._send_later(connection)
        except ConnectionLost as exc:
            return self._last_words(connection, exchange, exc)
        connection.watch(READ, self._on_ready)
        self._marks.request_end = self._shared.loop.now
        self._enter(Phase.HEAD)
        self._step = self._receive_head  # when something has come: it cannot be there yet
        return None

    def _send_later(self, connection: Connection) -> Step | None:
        """Wait until more can be sent, or until the server answers what it has of the request (RFC 9112 9.5)."""
        connection.watch(READ | WRITE, self._on_ready)
        following = self._receive_head()
        if following == self._receive_head:
            return None  # an interim response, or a part of one: the request still wants to be sent
        if following is not None and not connection.closed:
            connection.watch(READ, self._on_ready)
        return following

    def _last_words(self, connection: Connection, exchange: Exchange, lost: ConnectionLost) -> Step | None:
        """Read what the server said before it broke the connection over which the request was being sent."""
        buffer = self._shared.loop.buffer
        try:
            n = connection.recv_into(buffer)
        except ConnectionLost:
            n = None
        if not n:
            return self._replace_stale(lost)
        exchange.receive_data(buffer[:n])
        self._marks.response_start = self._shared.loop.now
        return self._take_events()

    # Receiving the response

    def _on_ready(self, mask: int) -> None:
        self._advance()

    def _receive_head(self) -> Step | None:
        connection, exchange = self._connection, self._exchange
        assert connection is not None and exchange is not None
        buffer = self._shared.loop.buffer
        try:
            n = connection.recv_into(buffer)
        except ConnectionLost as exc:
            return self._replace_stale(exc)
        if n is None:
            return None
        if n == 0 and self._marks.reused and not self._marks.response_start:
            return self._replace_stale(ConnectionLost(f"{connection.peer} closed the reused connection"))
        if n == 0:
            exchange.receive_eof(clean=connection.clean_eof)
        else:
            exchange.receive_data(buffer[:n])
            self._marks.response_start = self._marks.response_start or self._shared.loop.now
        return self._take_events()

    def _replace_stale(self, lost: ConnectionLost) -> Step | None:
        """Go on with a fresh connection, if this one was reused and the server has said nothing on it.

        It had closed it before the request came (RFC 9112 9.3.1).  That happens once: the fresh one is not reused.
        """
        marks = self._marks
        if not marks.reused or marks.response_start:
            raise lost
        assert self._connection is not None
        self._connection.abort()
        self._connection = self._exchange = None
        marks.reused = False
        self._task.enter(TaskState.CONNECTING)
        return self._connect

    def _take_events(self) -> Step | None:
        """Drain the exchange, and say what the download waits for then."""
        exchange = self._exchange
        assert exchange is not None
        pieces: list[memoryview] = []
        try:
            while (event := exchange.next_event()) is not None:
                if isinstance(event, DataReceived):
                    pieces.append(event.data)
                elif isinstance(event, HeadReceived):
                    self._head_received(event)
                elif isinstance(event, BodyComplete):
                    return self._finish
                if self._over:
                    return None
        finally:
            if pieces:
                assert self._lanes is not None
                self._lanes.write(pieces)
        if self._headers is None:
            return self._receive_head
        self._enter(Phase.IDLE)
        if exchange.received:
            self._note_progress()
        return self._receive_body

    def _head_received(self, head: HeadReceived) -> None:
        """Tell that the head is there, before any of the body."""
        now, url = self._shared.loop.now, self._task.url
        self._framing = head.framing
        self._headers = HeadersReceived(head.header, head.status_code, head.reason, head.http_version, url)
        self._progress = Progress(now, head.framing.length, self._job.progress_interval)
        self._task.enter(TaskState.RECEIVING)
        assert self._connection is not None and self._exchange is not None and self._alarm is not None
        self._alarm.leave()
        self._lanes = Lanes(self._shared.loop, self._shared.pipe, self._connection, self._exchange, self._job.sink)
        self._task.dispatch_headers(self._headers)
        if self._job.fail_on_status and head.status_code >= 400 and not self._over:
            raise status_error(head.status_code, url)

    def _receive_body(self) -> Step | None:
        """Move payload from the connection to the sink until the connection is dry."""
        connection, exchange, lanes = self._connection, self._exchange, self._lanes
        assert connection is not None and exchange is not None and lanes is not None
        enough = min(len(self._shared.loop.buffer), _DRY_BELOW)
        for _ in range(_READS_PER_TURN):
            try:
                n = lanes.move()
            except ConnectionLost as exc:
                return self._broken_off(exchange, exc)
            if n is None:
                return None
            if n == 0:
                exchange.receive_eof(clean=connection.clean_eof)
                return self._take_events()
            if exchange.body_window():
                self._note_progress()
            elif (following := self._take_events()) != self._receive_body:
                return following
            if self._over or self._task.aborting or (n < enough and not connection.pending()):
                return None
        if connection.pending():
            self._shared.loop.call_soon(self._advance)  # no readiness will be reported for what is decrypted already
        return None

    def _broken_off(self, exchange: Exchange, lost: ConnectionLost) -> Step | None:
        """Say how far the body had come when the connection broke."""
        exchange.receive_eof(clean=False)
        try:
            return self._take_events()
        except IncompleteBody as exc:
            raise exc from lost

    def _note_progress(self) -> None:
        """Count what has arrived, and tell it if that is due."""
        assert self._progress is not None and self._exchange is not None
        now = self._shared.loop.now
        self._enter(Phase.IDLE)
        if self._progress.advance(now, self._exchange.received) and self._task.has_progress_listeners:
            self._task.dispatch_progress(self._progress.snapshot(now))

    # The end

    def _finish(self) -> Step | None:
        """Everything has arrived: tell so, and make it visible."""
        assert self._exchange is not None and self._progress is not None and self._alarm is not None
        loop = self._shared.loop
        self._marks.response_end = loop.now
        self._task.enter(TaskState.FINISHING)
        self._alarm.leave()
        last = self._progress.finish(loop.now, self._exchange.received)
        if self._task.has_progress_listeners:
            self._task.dispatch_progress(last)
        if self._over:
            return None
        if self._alarm.is_late():
            raise self._timeout(Phase.TOTAL)
        self._job.sink.commit()
        self._end(None)
        return None

    def _advance(self) -> None:
        """Run steps until one has to wait."""
        try:
            while not self._over and self._step is not None:
                following = self._step()
                if following is None:
                    return
                self._step = following
        except DownloadError as exc:
            self._end(exc)
        except BaseException as exc:
            # Only a bug, a lack of memory or a KeyboardInterrupt between two lines: the task must end all the same.
            error = DownloadError(f"unexpected {type(exc).__name__}: {exc}")
            error.__cause__ = exc
            self._end(error)
            if not isinstance(exc, Exception):
                raise

    def _end(self, error: DownloadError | None) -> None:
        """End the download: every road leads here, once."""
        if self._over:
            return
        if not self._task.claim():  # an abort came first, from another thread or a signal handler
            if error is None:
                self._job.sink.revoke()
            error = self._aborted()
        self._let_go(error)
        self._settle(None if error is not None else self._result(), error)

    def abort(self) -> None:
        """Close everything at once; the settlement, which calls user code, waits for the next turn."""
        if self._over:
            return
        error = self._aborted()
        self._let_go(error)
        self._task.enter(TaskState.ABORTED)
        self._shared.loop.call_soon(lambda: self._settle(None, error))

    def _settle(self, result: DownloadResult | None, error: DownloadError | None) -> None:
        task = self._task
        # The task keeps its engine, for its progress; this way the two, and all that they hold, need no collector.
        del self._task, self._job
        self._shared.live.discard(task)
        task.settle(result, error)

    def _let_go(self, error: DownloadError | None) -> None:
        """Free all that the download holds."""
        self._over = True
        self._step = None
        if self._alarm is not None:
            self._alarm.stop()
        if self._dial is not None:
            self._dial.cancel()
        self._part_with_connection(error)
        if self._slot is not None:
            self._shared.pool.release(self._slot)
        if error is not None:
            self._job.sink.discard()
            error.url = self._task.url
        self._alarm = self._dial = self._slot = self._lanes = None

    def _part_with_connection(self, error: DownloadError | None) -> None:
        connection, exchange = self._connection, self._exchange
        if connection is None:
            return
        if error is not None or exchange is None:
            connection.abort()
        elif exchange.close_reasons or not connection.quiet():
            connection.close()
        else:
            self._shared.pool.give(self._job.key, connection)
        self._connection = self._exchange = None

    def _result(self) -> DownloadResult:
        assert self._headers is not None and self._progress is not None
        self._marks.received = self._progress.written
        return DownloadResult(
            temp_file_path=None if self._job.file_path is not None else self._job.sink.path,
            file_path=self._job.file_path,
            head=self._headers,
            data_length=self._progress.written,
            length_known=not isinstance(self._framing, UntilClose),
            marks=self._marks,
        )

    def _aborted(self) -> Aborted:
        return Aborted(f"the download was aborted while {self._task.state}, after {self._written()} bytes")

    def _written(self) -> int:
        return self._exchange.received if self._exchange is not None else 0

    # Time

    def _enter(self, phase: Phase) -> None:
        assert self._alarm is not None
        self._alarm.enter(phase)

    def _timed_out(self, phase: Phase) -> None:
        self._end(self._timeout(phase))

    def _timeout(self, phase: Phase) -> Timeout:
        """Say which limit ran out, and how far the download was."""
        seconds = getattr(self._job.timeouts, phase)
        if phase is Phase.TOTAL:
            detail = f"not complete, {self._task.state}, {self._written()} bytes received"
        elif self._dial is not None:
            detail = self._dial.describe()
        elif phase is Phase.IDLE:
            length = self._framing.length if self._framing else None
            detail = f"no data after {self._written()} of {'unknown' if length is None else length} bytes of the body"
        else:
            peer = self._connection.peer if self._connection else "the server"
            detail = f"{peer} does not take the request" if phase is Phase.SEND else f"no response head from {peer}"
        return Timeout(f"{phase} time limit of {seconds:g} s: {detail}", phase=phase)

    def progress(self) -> ProgressUpdate:
        """Return how far the download is now."""
        if self._progress is None:
            return ProgressUpdate()
        return self._progress.snapshot(self._shared.loop.time())
