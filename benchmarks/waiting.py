"""Hold many downloads open with one client and see what each weighs: the child process of `memory.py`.

    python waiting.py CLIENT URL COUNT

The origin answers every request with a head and 1 KiB of a longer body, and then waits.  A function here takes the
addresses to open, opens them until each has had its first KiB, and returns whatever keeps them open.  It is called for
some first, so that everything a client makes only once exists before we look at the memory for the first time.
"""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Callable

from meter import measure, memory_kib

WARM = 50
FIRST = 1024  # octets of the body that the origin sends
HANG = 120.0  # seconds

Opener = Callable[[list[str]], object]


def main(name: str, url: str, count: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opener = CLIENTS[name](count + WARM)
    kept = [opener([f"{url}warm/{i}" for i in range(WARM)])]

    def work() -> float:
        urls = [f"{url}{i}" for i in range(count)]
        gc.collect()
        before = memory_kib("VmRSS")
        kept.append(opener(urls))
        gc.collect()
        return (memory_kib("VmRSS") - before) * 1024 / count

    measure(work, "each")
    sys.stdout.flush()
    # The downloads are still open and some clients would wait for them at exit.
    import os

    os._exit(0)


def rawdl_connected(total: int) -> Opener:
    """As many connections as tasks, driven until each has made progress."""
    import rawdl

    client = rawdl.Client(max_concurrent=total, max_per_host=total)

    def open_all(urls: list[str]) -> object:
        tasks = [client.download_file(url=url, sink=rawdl.DiscardSink()) for url in urls]
        waiting = set(tasks)
        for task in tasks:
            task.on_headers_received(lambda _, task=task: waiting.discard(task))
        while waiting:
            client.step(HANG)
        client.step(0)
        for task in tasks:
            task.off_headers_received()
        return tasks

    return open_all


def rawdl_queued(total: int) -> Opener:
    """One connection, which is taken: every other task waits for its turn."""
    import rawdl

    client = rawdl.Client(max_concurrent=1)

    def open_all(urls: list[str]) -> object:
        tasks = [client.download_file(url=url, sink=rawdl.DiscardSink()) for url in urls]
        for _ in range(10):
            client.step(0.02)
        return tasks

    return open_all


def aiohttp_connected(total: int) -> Opener:
    """One session without a limit."""
    import asyncio

    import aiohttp

    loop = asyncio.new_event_loop()

    async def make() -> aiohttp.ClientSession:
        timeout = aiohttp.ClientTimeout(total=None)
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)

    session = loop.run_until_complete(make())

    async def open_one(url: str) -> object:
        response = await session.get(url)
        await response.content.readexactly(FIRST)
        return response

    async def open_all(urls: list[str]) -> object:
        return await asyncio.gather(*map(open_one, urls))

    return lambda urls: loop.run_until_complete(open_all(urls))


def httpx_connected(total: int) -> Opener:
    """One asynchronous client without a limit."""
    import asyncio

    import httpx

    loop = asyncio.new_event_loop()
    client = httpx.AsyncClient(timeout=None, trust_env=False, limits=httpx.Limits(max_connections=None))

    async def open_one(url: str) -> object:
        response = await client.send(client.build_request("GET", url), stream=True)
        pieces = response.aiter_raw()
        await anext(pieces)
        return response, pieces

    async def open_all(urls: list[str]) -> object:
        return [await open_one(url) for url in urls]

    return lambda urls: loop.run_until_complete(open_all(urls))


def pycurl_connected(total: int) -> Opener:
    """One multi handle, an easy handle for each."""
    import pycurl

    multi = pycurl.CurlMulti()

    def open_all(urls: list[str]) -> object:
        received = 0

        def write(data: bytes) -> None:
            nonlocal received
            received += len(data)

        handles = []
        for url in urls:
            curl = pycurl.Curl()
            curl.setopt(pycurl.URL, url)
            curl.setopt(pycurl.WRITEFUNCTION, write)
            multi.add_handle(curl)
            handles.append(curl)
        while received < FIRST * len(urls):
            multi.perform()
            multi.select(1.0)
        return multi, handles

    return open_all


def threads_connected(total: int) -> Opener:
    """The standard library's http.client, a thread for each."""
    import threading
    from http.client import HTTPConnection

    def open_all(urls: list[str]) -> object:
        arrived = threading.Semaphore(0)

        def fetch(url: str) -> None:
            host, _, path = url.removeprefix("http://").partition("/")
            connection = HTTPConnection(host)
            connection.request("GET", "/" + path)
            response = connection.getresponse()
            response.read(FIRST)
            arrived.release()
            response.read(1)

        threads = [threading.Thread(target=fetch, args=(url,), daemon=True) for url in urls]
        for thread in threads:
            thread.start()
        for _ in threads:
            if not arrived.acquire(timeout=HANG):
                raise TimeoutError("not every connection got its first octets")
        return threads

    return open_all


CLIENTS: dict[str, Callable[[int], Opener]] = {
    "rawdl queued": rawdl_queued,
    "rawdl connected": rawdl_connected,
    "pycurl": pycurl_connected,
    "aiohttp": aiohttp_connected,
    "http.client on threads": threads_connected,
    "httpx": httpx_connected,
}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
