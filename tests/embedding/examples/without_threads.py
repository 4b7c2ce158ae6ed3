"""Download without any thread: names are looked up in a table, which takes no time.

python without_threads.py URL PATH HOST=ADDRESS...
"""

import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import rawdl


class Table:
    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def resolve(self, host: str, port: int, family: int, callback: Callable[..., object]) -> Callable[[], Any]:
        address = self.names.get(host)
        callback([] if address is None else [(socket.AF_INET, (address, port))], None)  # none: a ResolveError
        return lambda: None


def main(url: str, path: str, *names: str) -> None:
    table = Table(dict(name.split("=") for name in names))
    with rawdl.Client(resolver=table, proxy=None) as client:
        task = client.download_file(url=url, file_path=path)
        client.run()
        print(task.exception() or f"{task.result().data_length} bytes", "by threads:", threading.active_count())


if __name__ == "__main__":
    main(*sys.argv[1:])
