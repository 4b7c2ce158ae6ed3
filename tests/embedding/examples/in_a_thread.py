"""Download in a background thread, and wait in this one, which may abort as well.

python in_a_thread.py URL PATH ABORTED_URL
"""

import sys
import threading

import rawdl


def main(url: str, path: str, other: str) -> None:
    receiving = threading.Event()
    with rawdl.Client() as client:
        client.start()
        unwanted = client.download_file(url=other, file_path=f"{path}.other")
        unwanted.on_headers_received(lambda head: receiving.set())
        task = client.download_file(
            url=url, file_path=path, success=lambda result: print("told in", threading.current_thread().name)
        )
        print(task.result().data_length, "bytes, waited for in", threading.current_thread().name)
        receiving.wait()
        unwanted.abort()
        print(type(unwanted.exception()).__name__)


if __name__ == "__main__":
    main(*sys.argv[1:])
