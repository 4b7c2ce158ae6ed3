"""Download in a trio task, beside others that go on: python in_trio.py URL PATH"""

import math
import sys
import time

import trio

import rawdl


async def drive(client: rawdl.Client) -> None:
    while client.step(0):
        deadline = client.next_deadline()
        patience = math.inf if deadline is None else max(0.0, deadline - time.monotonic())
        with trio.move_on_after(patience):
            await trio.lowlevel.wait_readable(client.fileno())


async def tick() -> None:
    while True:
        await trio.sleep(0.01)
        print("tick", flush=True)


async def main(url: str, path: str) -> None:
    with rawdl.Client() as client:
        task = client.download_file(url=url, file_path=path)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            await drive(client)
            nursery.cancel_scope.cancel()
        print(task.result().data_length, "bytes")


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
