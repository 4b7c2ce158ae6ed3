"""The document for programs: as JSON, and its samples as CSV (RFC 4180)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from json import dumps
from typing import Any

from rawdl.cli.bench.load import Sample


def spelled(document: Mapping[str, Any]) -> str:
    """Spell a document as JSON that a person can read as well: a line for each member, and for each sample."""
    members = []
    for name, value in document.items():
        text = dumps(value)
        if name in ("samples", "intervals", "histogram") and value:
            text = "[\n  " + ",\n  ".join(map(dumps, value)) + "\n ]"
        members.append(f" {dumps(name)}: {text}")
    return "{\n" + ",\n".join(members) + "\n}\n"


def table(document: Mapping[str, Any]) -> str:
    """Return a line for each sample, below the names; what there was not is empty, and whether is true or false."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(Sample._fields)
    for sample in document["samples"]:
        writer.writerow([_spelled(sample[name]) for name in Sample._fields])
    return text.getvalue()


def _spelled(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else value
