"""Show the progress of several downloads by rich.

python with_rich.py URL...
"""

import sys

from rich.progress import DownloadColumn, Progress

import rawdl


def follow(task: rawdl.DownloadTask, display: Progress, name: str) -> None:
    row = display.add_task(name, total=None)

    def show(progress: rawdl.ProgressUpdate) -> None:
        display.update(
            row,
            completed=progress.total_bytes_written,
            total=progress.total_bytes_expected_to_write if progress.length_computable else None,
        )

    task.on_progress_update(show)


def main(urls: list[str]) -> None:
    with Progress(*Progress.get_default_columns(), DownloadColumn()) as display, rawdl.Client() as client:
        for n, url in enumerate(urls):
            follow(client.download_file(url=url, file_path=f"{n}.bin"), display, f"{n}.bin")
        client.run()


if __name__ == "__main__":
    main(sys.argv[1:])
