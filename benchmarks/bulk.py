"""Download one large file with one client: the child process of `throughput.py` and `memory.py`.

    python bulk.py CLIENT URL PATH CA_FILE

Each client is written the way its documentation recommends for a large body, limits off, and a large buffer.
A function here imports its client, then returns the work to be measured:
connect, request, read everything, write it; the work returns its octets.  PATH may be /dev/null.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from meter import measure

MIB = 1 << 20
CACHED = 1 << 18  # a TLS client reads ciphertext and writes plaintext: both should stay in the L2 cache


class Job(NamedTuple):
    """What to download and where to."""

    url: str
    path: str
    ca_file: str

    @property
    def tls(self) -> bool:
        return self.url.startswith("https:")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.split("/")[2].partition(":")
        return host, int(port)

    @property
    def target(self) -> str:
        return "/" + self.url.split("/", 3)[3]


def bare_loop(job: Job) -> Callable[[], int]:
    """The floor: a blocking socket, one buffer, `os.write`.  Of a chunked body it writes the framing too."""
    import socket

    if job.tls:
        import ssl

    def transfer() -> int:
        sock = socket.create_connection(job.address)
        if job.tls:
            sock = ssl.create_default_context(cafile=job.ca_file).wrap_socket(sock, server_hostname=job.address[0])
        sock.sendall(f"GET {job.target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        buffer = bytearray(CACHED if job.tls else MIB)
        view = memoryview(buffer)
        file = os.open(job.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        head = sock.recv(4096).partition(b"\r\n\r\n")[2]
        total = os.write(file, head)
        while count := sock.recv_into(buffer):
            total += os.write(file, view[:count])
        sock.close()
        os.close(file)
        return total

    return transfer


def rawdl_client(job: Job) -> Callable[[], int]:
    """A client, one task, its result; into a file, or into a sink that throws away."""
    from rawdl import Client, DiscardSink  # they are loaded when first named

    if job.tls:
        from rawdl import TLS

    def transfer() -> int:
        with Client(tls=TLS(ca_file=job.ca_file) if job.tls else None) as client:
            if job.path == os.devnull:
                return client.download_file(url=job.url, sink=DiscardSink()).result().data_length
            return client.download_file(url=job.url, file_path=job.path).result().data_length

    return transfer


def http_client(job: Job) -> Callable[[], int]:
    """The standard library: `readinto` one buffer."""
    import http.client
    import ssl

    def transfer() -> int:
        if job.tls:
            context = ssl.create_default_context(cafile=job.ca_file)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(*job.address, context=context)
        else:
            connection = http.client.HTTPConnection(*job.address)
        connection.request("GET", job.target)
        response = connection.getresponse()
        buffer = bytearray(CACHED if job.tls else MIB)
        view = memoryview(buffer)
        total = 0
        with open(job.path, "wb", buffering=0) as file:
            while count := response.readinto(buffer):
                total += file.write(view[:count])
        connection.close()
        return total

    return transfer


def urllib3_client(job: Job) -> Callable[[], int]:
    """`preload_content=False` and `stream`."""
    import urllib3

    def transfer() -> int:
        total = 0
        with (
            urllib3.PoolManager(ca_certs=job.ca_file, timeout=None) as pool,
            pool.request("GET", job.url, preload_content=False, decode_content=False) as response,
            open(job.path, "wb", buffering=0) as file,
        ):
            for piece in response.stream(MIB, decode_content=False):
                total += file.write(piece)
        return total

    return transfer


def requests_client(job: Job) -> Callable[[], int]:
    """`stream=True` and `iter_content`."""
    import requests

    def transfer() -> int:
        total = 0
        with (
            requests.Session() as session,
            session.get(job.url, stream=True, verify=job.ca_file) as response,
            open(job.path, "wb", buffering=0) as file,
        ):
            for piece in response.iter_content(MIB):
                total += file.write(piece)
        return total

    return transfer


def httpx_client(job: Job) -> Callable[[], int]:
    """`stream` and `iter_raw`, in the pieces that it reads from the network."""
    import ssl

    import httpx

    def transfer() -> int:
        total = 0
        verify = ssl.create_default_context(cafile=job.ca_file) if job.tls else False
        with (
            httpx.Client(verify=verify, timeout=None, trust_env=False) as client,
            client.stream("GET", job.url) as response,
            open(job.path, "wb", buffering=0) as file,
        ):
            for piece in response.iter_raw():
                total += file.write(piece)
        return total

    return transfer


def aiohttp_client(job: Job) -> Callable[[], int]:
    """`content.iter_any` with a large read buffer and no decompression."""
    import asyncio
    import ssl

    import aiohttp

    async def transfer() -> int:
        total = 0
        context = ssl.create_default_context(cafile=job.ca_file) if job.tls else True
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False, read_bufsize=MIB
            ) as session,
            session.get(job.url, ssl=context) as response,
        ):
            with open(job.path, "wb", buffering=0) as file:
                async for piece in response.content.iter_any():
                    total += file.write(piece)
        return total

    return lambda: asyncio.run(transfer())


def pycurl_client(job: Job) -> Callable[[], int]:
    """`WRITEDATA` with a file and a buffer as large as pays."""
    import pycurl

    def transfer() -> int:
        curl = pycurl.Curl()
        curl.setopt(pycurl.URL, job.url)
        curl.setopt(pycurl.CAINFO, job.ca_file)
        curl.setopt(pycurl.BUFFERSIZE, 2 * MIB)
        with open(job.path, "wb", buffering=0) as file:
            curl.setopt(pycurl.WRITEDATA, file)
            curl.perform()
        total = int(curl.getinfo(pycurl.SIZE_DOWNLOAD))
        curl.close()
        return total

    return transfer


CLIENTS: dict[str, Callable[[Job], Callable[[], int]]] = {
    "bare loop": bare_loop,
    "rawdl": rawdl_client,
    "pycurl": pycurl_client,
    "http.client": http_client,
    "urllib3": urllib3_client,
    "requests": requests_client,
    "httpx": httpx_client,
    "aiohttp": aiohttp_client,
}

if __name__ == "__main__":
    measure(CLIENTS[sys.argv[1]](Job(*sys.argv[2:5])))
