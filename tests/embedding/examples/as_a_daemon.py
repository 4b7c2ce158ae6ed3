"""Download until SIGTERM, which leaves what is there; started again, go on from that.

python as_a_daemon.py URL PATH
"""

import signal
import sys

import rawdl


def main(url: str, path: str) -> int:
    with rawdl.Client() as client:
        task = client.download_file(url=url, file_path=path)
        task.on_progress_update(lambda p: print(p.total_bytes_written, "bytes", flush=True))
        signal.signal(signal.SIGTERM, lambda number, frame: task.abort(keep=True))
        signal.set_wakeup_fd(client.wakeup_fileno(), warn_on_full_buffer=False)
        try:
            client.run()
        finally:
            signal.set_wakeup_fd(-1)
        error = task.exception()
        if error is not None:
            print(f"{type(error).__name__}, kept {error.part}")
            return 143 if isinstance(error, rawdl.Aborted) else 1
        print("complete, resumed from", task.result().resumed_from)
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
