"""Download several URLs within asyncio; the last is given up as soon as its head is there.

python in_asyncio.py URL...
"""

import asyncio
import sys

import rawdl


async def main(urls: list[str]) -> None:
    with rawdl.Client() as client:
        tasks = [client.download_file(url=url, file_path=f"{n}.bin") for n, url in enumerate(urls)]
        waits = [asyncio.ensure_future(task) for task in tasks]
        tasks[-1].on_headers_received(lambda head: waits[-1].cancel())
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        for task, outcome in zip(tasks, outcomes, strict=True):
            print(task.state, type(outcome).__name__)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
