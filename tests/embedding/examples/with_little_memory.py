"""Download under a limit of the address space: 24 MiB more than the interpreter has now, however large the file.

python with_little_memory.py URL PATH
"""

import resource
import sys
from pathlib import Path

import rawdl

ROOM = 24 << 20


def main(url: str, path: str) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    with rawdl.Client(buffer_size=4096) as client:
        result = client.download_file(url=url, file_path=path).result()
    print(result.data_length, "bytes with room for", ROOM)


if __name__ == "__main__":
    main(*sys.argv[1:])
