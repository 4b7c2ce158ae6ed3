"""Show the progress of a download by tqdm.

python with_tqdm.py URL PATH
"""

import sys

from tqdm import tqdm

import rawdl


def main(url: str, path: str) -> None:
    with rawdl.Client() as client, tqdm(unit="B", unit_scale=True, desc=path) as bar:

        def show(progress: rawdl.ProgressUpdate) -> None:
            bar.total = progress.total_bytes_expected_to_write or None
            bar.update(progress.total_bytes_written - bar.n)

        task = client.download_file(url=url, file_path=path)
        task.on_progress_update(show)
        task.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
