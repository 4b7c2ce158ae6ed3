"""Peers that speak HTTP by script."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping

from tests.origin import Answer, End, Request, Script, Send, Site
from tests.sim.conn import Conn, Pause

HttpPeer = Callable[[Conn], Generator[Pause, None, None]]


def http_peer(answers: Answer | Mapping[str, Answer]) -> HttpPeer:
    """Make a peer that answers every path by one answer, or each by its own; see `tests.origin.Site`.

    What it is asked stands in `world.requests` and in the log.
    """
    site = Site(answers if isinstance(answers, Mapping) else {"*": answers})

    def peer(conn: Conn) -> Generator[Pause, None, None]:
        while True:
            head = yield from conn.read_until(b"\r\n\r\n")
            request = Request(head, conn.client_address, conn.number)
            conn.world.requests.append(request)
            conn.note(f"request {request.method} {request.target}")
            yield from _perform(conn, site.script_for(request), request.method)
            if conn.ended:
                return

    return peer


def _perform(conn: Conn, script: Script, method: str) -> Generator[Pause, None, None]:
    for act in script.acts(method):
        if isinstance(act, Send):
            yield from conn.write(act.data)
        elif isinstance(act, End):
            conn.end(act.how, close_notify=act.close_notify)
        elif act.seconds != 0:
            yield act.seconds
