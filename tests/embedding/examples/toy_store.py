"""An object store in memory, with the four calls of S3's multipart upload."""

from itertools import count


class ToyStore:
    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, dict[int, bytes]] = {}  # that are neither complete nor aborted
        self._numbers = count(1)

    def create_multipart_upload(self, key: str) -> str:
        upload = f"{key}-{next(self._numbers)}"
        self.uploads[upload] = {}
        return upload

    def upload_part(self, upload: str, number: int, body: bytes) -> str:
        self.uploads[upload][number] = body
        return f"etag-{number}"

    def complete_multipart_upload(self, key: str, upload: str, etags: list[str]) -> None:
        parts = self.uploads.pop(upload)
        assert etags == [f"etag-{number}" for number in parts]
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))

    def abort_multipart_upload(self, upload: str) -> None:
        del self.uploads[upload]
