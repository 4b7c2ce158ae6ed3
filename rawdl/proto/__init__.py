"""The pure half of rawdl: bytes, numbers and ``now`` in; bytes, events and decisions out.

In scope: URLs, requests, response heads, body framing, limits, deadlines, progress arithmetic.
Out of scope: sockets, TLS, files, threads, clocks.  Nothing here imports any of them.

    bytes ─► receive_data ─┐                                 ┌─► next_event ─► HeadReceived
                           ▼                                 │                 DataReceived …
                     ┌──────────┐  head   ┌─────┐            │                 BodyComplete
                     │ Exchange │────────►│ h11 │            │
                     │          │         └─────┘            │
                     │          │  body   ┌─────────┐        │
                     │          │────────►│ framing │────────┘
                     └──────────┘         └─────────┘
    payload ─► advance(n), while body_window() > 0: it passes by without being copied or parsed

**The drain rule**: after each input, take events until None, then give the next input.
"""

from rawdl.proto.events import BodyComplete, DataReceived, Event, HeadReceived, InformationalReceived
from rawdl.proto.framing import CloseReason
from rawdl.proto.http11 import Exchange
from rawdl.proto.messages import Headers, Limits, Request
from rawdl.proto.playback import replay

__all__ = [
    "BodyComplete",
    "CloseReason",
    "DataReceived",
    "Event",
    "Exchange",
    "HeadReceived",
    "Headers",
    "InformationalReceived",
    "Limits",
    "Request",
    "replay",
]
