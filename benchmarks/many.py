"""Download many small files with one client: the child process of `small.py`.

    python many.py CLIENT URL COUNT AT_ONCE DIRECTORY

File i is `URL?i` and becomes `DIRECTORY/i`; with a DIRECTORY of "-" the bodies stay in memory and are dropped one by
one.  AT_ONCE is 1 (one after another over one connection) or the number of connections.  Each function imports its
client and returns the work to be measured, which returns the octets it got.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from meter import measure


class Job(NamedTuple):
    """What to download and how many at once."""

    url: str
    count: int
    at_once: int
    directory: str | None

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.split("/")[2].partition(":")
        return host, int(port)

    def target(self, i: int) -> str:
        return f"/{self.url.split('/', 3)[3]}?{i}"

    def keep(self, i: int, body: bytes) -> int:
        """Do with a body what the job asks for."""
        if self.directory is not None:
            with open(f"{self.directory}/{i}", "wb", buffering=0) as file:
                file.write(body)
        return len(body)


def rawdl_client(job: Job) -> Callable[[], int]:
    """One task at a time and its result, or all of them queued and then driven."""
    from rawdl import Client, DownloadTask, MemorySink  # they are loaded when first named

    def start(client: Client, i: int) -> DownloadTask:
        if job.directory is None:
            return client.download_file(url=f"{job.url}?{i}", sink=MemorySink())
        return client.download_file(url=f"{job.url}?{i}", file_path=f"{job.directory}/{i}")

    def one_by_one() -> int:
        with Client() as client:
            return sum(start(client, i).result().data_length for i in range(job.count))

    def together() -> int:
        with Client(max_concurrent=job.at_once, max_per_host=job.at_once) as client:
            tasks = [start(client, i) for i in range(job.count)]
            client.run()
            return sum(task.result().data_length for task in tasks)

    return one_by_one if job.at_once == 1 else together


def bare_h11(job: Job) -> Callable[[], int]:
    """The floor of whoever reads heads with h11."""
    import h11

    return lambda: BareLoop(h11, job).run()


class BareLoop:
    """A selector, an `h11.Connection` for each exchange, and nothing else: no time limits, no checks, no errors."""

    def __init__(self, h11, job: Job) -> None:  # type: ignore[no-untyped-def]
        self._h11 = h11
        self._job = job
        self._fields = [("Host", "{}:{}".format(*job.address)), ("User-Agent", "bench/1"), ("Accept", "*/*")]
        self._end = h11.EndOfMessage()
        self._buffer = bytearray(65536)
        self._numbers = iter(range(job.count))

    def run(self) -> int:
        import selectors
        import socket

        total = 0
        with selectors.DefaultSelector() as selector:
            for _ in range(min(self._job.at_once, self._job.count)):
                sock = socket.create_connection(self._job.address)
                sock.setblocking(False)
                selector.register(sock, selectors.EVENT_READ, self._ask(sock))
            while selector.get_map():
                for key, _ in selector.select():
                    if self._receive(key.data):
                        total += self._job.keep(key.data[1], b"".join(key.data[4]))
                        key.data[:] = self._ask(key.data[0])
                    if not key.data:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()  # type: ignore[union-attr]
        return total

    def _ask(self, sock) -> list:  # type: ignore[no-untyped-def,type-arg]
        """Send the next request; nothing if there is none."""
        number = next(self._numbers, None)
        if number is None:
            return []
        exchange = self._h11.Connection(self._h11.CLIENT)
        target = self._job.target(number)
        sock.send(exchange.send(self._h11.Request(method="GET", target=target, headers=self._fields)))
        exchange.send(self._end)
        return [sock, number, exchange, 0, []]

    def _receive(self, state: list) -> bool:  # type: ignore[type-arg]
        """Take what has arrived; return whether the response is complete."""
        sock, _, exchange, left, body = state
        count, start = sock.recv_into(self._buffer), 0
        if not left:  # no head is cut in two here: it comes in one segment
            start = self._buffer.index(b"\r\n\r\n", 0, count) + 4
            exchange.receive_data(self._buffer[:start])
            left = int(dict(exchange.next_event().headers)[b"content-length"])
        body.append(self._buffer[start:count])
        state[3] = left - (count - start)
        return state[3] == 0


def http_client(job: Job) -> Callable[[], int]:
    """One kept-alive connection, or one in each of as many threads."""
    import http.client

    def connect() -> Callable[[int], bytes]:
        connection = http.client.HTTPConnection(*job.address)

        def fetch(i: int) -> bytes:
            connection.request("GET", job.target(i))
            return connection.getresponse().read()

        return fetch

    return sequence_or_threads(job, connect)


def urllib3_client(job: Job) -> Callable[[], int]:
    """One pool manager, shared by the threads."""
    import urllib3

    pool = urllib3.PoolManager(maxsize=job.at_once)
    return sequence_or_threads(job, lambda: lambda i: pool.request("GET", f"{job.url}?{i}").data)


def requests_client(job: Job) -> Callable[[], int]:
    """One session with a pool as large as the number of threads."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_maxsize=job.at_once))
    return sequence_or_threads(job, lambda: lambda i: session.get(f"{job.url}?{i}").content)


def httpx_client(job: Job) -> Callable[[], int]:
    """One client, shared by the threads: its asynchronous client costs many times that with 64 connections."""
    import httpx

    limits = httpx.Limits(max_connections=job.at_once, max_keepalive_connections=job.at_once)
    client = httpx.Client(timeout=None, trust_env=False, limits=limits)
    return sequence_or_threads(job, lambda: lambda i: client.get(f"{job.url}?{i}").content)


def aiohttp_client(job: Job, uvloop: bool = False) -> Callable[[], int]:
    """One session; as many coroutines as connections."""
    import aiohttp

    async def transfer() -> int:
        connector = aiohttp.TCPConnector(limit=job.at_once)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:

            async def fetch(i: int) -> bytes:
                async with session.get(f"{job.url}?{i}") as response:
                    return await response.read()

            return await gather(job, fetch)

    return lambda: run_async(transfer, uvloop)


def aiohttp_uvloop_client(job: Job) -> Callable[[], int]:
    """The same on uvloop."""
    import uvloop  # noqa: F401

    return aiohttp_client(job, uvloop=True)


def pycurl_client(job: Job) -> Callable[[], int]:
    """One handle used again and again, or a multi handle with as many easy handles."""
    import pycurl

    return (lambda: pycurl_sequence(pycurl, job)) if job.at_once == 1 else (lambda: pycurl_multi(pycurl, job))


def pycurl_sequence(pycurl, job: Job) -> int:  # type: ignore[no-untyped-def]
    from io import BytesIO

    curl = pycurl.Curl()
    total = 0
    for i in range(job.count):
        body = BytesIO()
        curl.setopt(pycurl.URL, f"{job.url}?{i}")
        curl.setopt(pycurl.WRITEDATA, body)
        curl.perform()
        total += job.keep(i, body.getvalue())
    curl.close()
    return total


def pycurl_multi(pycurl, job: Job) -> int:  # type: ignore[no-untyped-def]
    """The retriever of pycurl's own documentation: free handles take the next URL."""
    from io import BytesIO

    multi = pycurl.CurlMulti()
    free = [pycurl.Curl() for _ in range(job.at_once)]
    numbers = iter(range(job.count))
    left, total = job.count, 0
    while left:
        while free and (i := next(numbers, None)) is not None:
            curl = free.pop()
            curl.body, curl.number = BytesIO(), i
            curl.setopt(pycurl.URL, f"{job.url}?{i}")
            curl.setopt(pycurl.WRITEDATA, curl.body)
            multi.add_handle(curl)
        while multi.perform()[0] == pycurl.E_CALL_MULTI_PERFORM:
            pass
        _, done, failed = multi.info_read(job.at_once)
        if failed:
            raise OSError(failed[0][2])
        for curl in done:
            total += job.keep(curl.number, curl.body.getvalue())
            multi.remove_handle(curl)
            free.append(curl)
        left -= len(done)
        if not done:
            multi.select(1.0)
    return total


def sequence_or_threads(job: Job, connect: Callable[[], Callable[[int], bytes]]) -> Callable[[], int]:
    """Return the work of a blocking client; `connect` gives each thread what fetches file i."""

    def fetch_all(numbers: Iterator[int]) -> int:
        fetch = connect()
        return sum(job.keep(i, fetch(i)) for i in numbers)

    if job.at_once == 1:
        return lambda: fetch_all(iter(range(job.count)))

    from concurrent.futures import ThreadPoolExecutor

    def threads() -> int:
        numbers = iter(range(job.count))  # next() of a range iterator is one step of the interpreter: no lock needed
        with ThreadPoolExecutor(job.at_once) as executor:
            return sum(executor.map(lambda _: fetch_all(numbers), range(job.at_once)))

    return threads


async def gather(job: Job, fetch: Callable[[int], Awaitable[bytes]]) -> int:
    """Run as many coroutines as connections, each taking the next number."""
    import asyncio

    numbers = iter(range(job.count))

    async def worker() -> int:
        return sum([job.keep(i, await fetch(i)) for i in numbers])

    return sum(await asyncio.gather(*(worker() for _ in range(job.at_once))))


def run_async(transfer: Callable[[], Awaitable[int]], uvloop: bool = False) -> int:
    import asyncio

    if not uvloop:
        return asyncio.run(transfer())  # type: ignore[arg-type]
    from uvloop import new_event_loop

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(transfer())  # type: ignore[arg-type]


CLIENTS: dict[str, Callable[[Job], Callable[[], int]]] = {
    "bare loop + h11": bare_h11,
    "rawdl": rawdl_client,
    "pycurl": pycurl_client,
    "http.client": http_client,
    "urllib3": urllib3_client,
    "requests": requests_client,
    "httpx": httpx_client,
    "aiohttp": aiohttp_client,
    "aiohttp+uvloop": aiohttp_uvloop_client,
}

if __name__ == "__main__":
    name, url, count, at_once, directory = sys.argv[1:6]
    measure(CLIENTS[name](Job(url, int(count), int(at_once), None if directory == "-" else directory)))
