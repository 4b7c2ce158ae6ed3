"""Download one file over several connections: the child process of `lossy.py` and `segments.py`.

    python ranged.py CLIENT URL PATH SIZE CONNECTIONS

A function here imports what it needs, then returns the work to be measured, which returns the octets of the file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

from meter import measure

BUFFER = 1 << 18


class Job(NamedTuple):
    """What to download, where to, and over how many connections."""

    url: str
    path: str
    size: int
    connections: int

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.split("/")[2].partition(":")
        return host, int(port)


def rawdl_client(job: Job) -> Callable[[], int]:
    """One task; a part that is there is continued, and a file that is there is whole."""
    from rawdl import Client  # loaded when it is first named

    def transfer() -> int:
        with Client(max_per_host=job.connections) as client:
            task = client.download_file(url=job.url, file_path=job.path, exists="skip", connections=job.connections)
            return task.result().data_length

    return transfer


def bare_ranges(job: Job) -> Callable[[], int]:
    """The floor: a thread, a blocking socket and an equal part of the file for each connection, and no checks."""
    import socket
    from concurrent.futures import ThreadPoolExecutor

    def fetch(file: int, first: int, end: int) -> int:
        buffer, at = bytearray(BUFFER), first
        with socket.create_connection(job.address) as sock:
            target = "/" + job.url.split("/", 3)[3]
            sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nRange: bytes={first}-{end - 1}\r\n\r\n".encode())
            at += os.pwrite(file, sock.recv(4096).partition(b"\r\n\r\n")[2], at)
            while at < end and (count := sock.recv_into(buffer)):
                at += os.pwrite(file, memoryview(buffer)[:count], at)
        return at - first

    def transfer() -> int:
        bounds = [job.size * i // job.connections for i in range(job.connections + 1)]
        file = os.open(job.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        with ThreadPoolExecutor(job.connections) as executor:
            total = sum(executor.map(fetch, [file] * job.connections, bounds, bounds[1:]))
        os.close(file)
        return total

    return transfer


CLIENTS: dict[str, Callable[[Job], Callable[[], int]]] = {"rawdl": rawdl_client, "bare ranges": bare_ranges}

if __name__ == "__main__":
    name, url, path, size, connections = sys.argv[1:6]
    measure(CLIENTS[name](Job(url, path, int(size), int(connections))))
