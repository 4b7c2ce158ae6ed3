"""Download into an object store by multipart upload: python into_an_object_store.py URL"""

import sys

from toy_store import ToyStore

import rawdl


class Upload:
    PART = 5 << 10  # a thousandth of the least that S3 takes

    def __init__(self, store: ToyStore, key: str) -> None:
        self.store, self.key, self.id = store, key, store.create_multipart_upload(key)
        self.part, self.etags = bytearray(), list[str]()

    def write(self, data: memoryview) -> int:
        if len(self.part) == self.PART:
            self.send()
        taken = data[: self.PART - len(self.part)]  # the rest is offered again
        self.part += taken
        return len(taken)

    def send(self) -> None:
        self.etags.append(self.store.upload_part(self.id, len(self.etags) + 1, bytes(self.part)))
        self.part.clear()

    def end(self, outcome: rawdl.DownloadResult | rawdl.DownloadError) -> None:
        if isinstance(outcome, rawdl.DownloadError):
            return self.store.abort_multipart_upload(self.id)
        self.send()
        self.store.complete_multipart_upload(self.key, self.id, self.etags)


if __name__ == "__main__":
    upload = Upload(store := ToyStore(), "a")
    task = rawdl.download_file(url=sys.argv[1], sink=upload, complete=upload.end)
    print(task.exception() or f"{task.result().data_length} bytes in {len(upload.etags)} parts")
    print(len(store.objects.get("a", b"")), "bytes stored, uploads left over:", len(store.uploads))
