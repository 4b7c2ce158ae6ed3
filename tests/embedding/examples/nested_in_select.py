"""Download within a select loop that has other work to do: here, to hear what comes on standard input.

python nested_in_select.py URL PATH
"""

import os
import select
import sys
import time

import rawdl


def main(url: str, path: str) -> None:
    stdin = sys.stdin.fileno()
    with rawdl.Client() as client:
        task = client.download_file(url=url, file_path=path)
        inputs = [client.fileno(), stdin]
        while client.step(0):
            deadline = client.next_deadline()
            patience = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(inputs, [], [], patience)
            if stdin in ready:
                heard = os.read(stdin, 4096)
                print("heard", heard, flush=True)
                if not heard:
                    inputs.remove(stdin)
        print(task.result().data_length, "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
