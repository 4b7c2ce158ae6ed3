"""What the package hands on: these names and no others, documented and typed (S15, S42)."""

from __future__ import annotations

import enum
import inspect
import json
import pickle
import re
import subprocess
import sys
import tomllib
from importlib import import_module, resources
from pathlib import Path

import pytest

import rawdl
from rawdl import errors
from rawdl.options import TaskOptions

ROOT = Path(__file__).resolve().parent.parent
CLASSES = {
    "Client": "client",
    "DiscardSink": "sinks",
    "DownloadResult": "results",
    "DownloadTask": "task",
    "Headers": "proto.messages",
    "HeadersReceived": "results",
    "Limits": "proto.messages",
    "LowSpeed": "proto.pacing",
    "MemorySink": "sinks",
    "Phase": "proto.timeouts",
    "Profile": "profile",
    "ProgressUpdate": "proto.progress",
    "Redirects": "proto.redirects",
    "Retry": "proto.retry",
    "TLS": "tls",
    "TaskState": "task",
    "Timeouts": "proto.timeouts",
    "BasicAuth": "proto.auth",
    "BearerAuth": "proto.auth",
    "DigestAuth": "proto.auth",
}
ERRORS = [
    "Aborted",
    "ChecksumError",
    "ConnectError",
    "ConnectionLost",
    "DecodingError",
    "DownloadError",
    "IncompleteBody",
    "IncompleteHead",
    "InvalidURL",
    "NetworkError",
    "ProtocolError",
    "ProxyError",
    "RangeError",
    "RedirectError",
    "ResolveError",
    "StatusError",
    "StorageError",
    "TLSError",
    "Timeout",
    "TooLarge",
]
FUNCTIONS = ["download", "download_file"]
NAMES = [*CLASSES, *ERRORS, *FUNCTIONS]


def test_S15_exactly_these_names() -> None:
    assert len(rawdl.__all__) == len(set(rawdl.__all__))
    assert set(rawdl.__all__) == {*NAMES, "__version__"}
    assert dir(rawdl) == sorted(rawdl.__all__)


def test_S15_every_error_is_among_them() -> None:
    assert set(ERRORS) == {name for name, value in vars(errors).items() if inspect.isclass(value)}


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_documented(name: str) -> None:
    value = getattr(rawdl, name)
    assert value.__name__ == name and getattr(rawdl, name) is value
    home = CLASSES.get(name, "errors" if name in ERRORS else "client")
    assert value.__module__ == f"rawdl.{home}" and getattr(import_module(f"rawdl.{home}"), name) is value
    doc = value.__doc__ or ""
    # A class or function that says nothing of itself shows its signature, or what a str or tuple is.
    assert len(doc) > 20 and not doc.startswith((f"{name}(", "str(", "Create")), doc
    assert re.match(r"[A-Z][^\n]*[.:]", doc), doc


@pytest.mark.parametrize("name", CLASSES)
def test_each_public_member_is_documented(name: str) -> None:
    cls = getattr(rawdl, name)
    bare = [
        member
        for member, value in vars(cls).items()
        if not member.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property | classmethod | staticmethod))
        and not inspect.getdoc(value)
    ]
    assert bare == []


@pytest.mark.parametrize("first", ["Client", "DownloadTask", "download_file", "download"])
def test_no_module_takes_the_place_of_a_public_name(first: str) -> None:
    """Python sets a submodule as an attribute of its package, over whatever has that name."""
    code = f"import rawdl; rawdl.{first}\nprint(*[n for n in {FUNCTIONS} if not callable(getattr(rawdl, n))])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"^module 'rawdl' has no attribute 'Nothing'$"):
        rawdl.Nothing  # noqa: B018
    with pytest.raises(ImportError):
        exec("from rawdl import Nothing")


def test_a_star_import_hands_on_the_same() -> None:
    space: dict[str, object] = {}
    exec("from rawdl import *", space)
    assert space.keys() - {"__builtins__"} == set(rawdl.__all__)


def test_names_are_loaded_when_they_are_used() -> None:
    code = "import sys, rawdl; n = lambda: sum(m.startswith('rawdl') for m in sys.modules)\n"
    code += "a = n(); rawdl.Headers; b = n(); rawdl.Client; c = n(); print(a, b, c)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    before, some, all_of_it = map(int, run.stdout.split())
    assert before == 2 < some < all_of_it  # the package and its version


def test_the_version_stands_in_one_place() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", rawdl.__version__)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"] and "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "rawdl.version.__version__"}


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files("rawdl").joinpath("py.typed").is_file()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["rawdl"]


@pytest.mark.parametrize("name", ["Phase", "TaskState"])
def test_S15_states_and_phases_are_strings(name: str) -> None:
    cls = getattr(rawdl, name)
    assert issubclass(cls, enum.StrEnum)
    assert all(member == member.value == member.name.lower() for member in cls)
    assert json.dumps(list(cls)) == json.dumps([member.value for member in cls])


VALUES = [
    (rawdl.Headers([("A", "b")]), "Headers([('A', 'b')])"),
    (rawdl.Limits(), "Limits(head=65536, "),
    (rawdl.Timeouts(), "Timeouts(resolve=10.0, "),
    (rawdl.ProgressUpdate(50, 1, 2, True), "ProgressUpdate(progress=50, total_bytes_written=1, "),
    (
        rawdl.HeadersReceived(rawdl.Headers(), 200, "OK", "1.1", "http://example.org/"),
        "HeadersReceived(header=Headers([]), ",
    ),
    (rawdl.Profile(port=80), "Profile(invoke_start=0, "),
    (rawdl.Phase.IDLE, "<Phase.IDLE: 'idle'>"),
    (rawdl.TaskState.QUEUED, "<TaskState.QUEUED: 'queued'>"),
    (rawdl.ProtocolError("what happened"), "ProtocolError('what happened')"),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=lambda value: type(value).__name__)
def test_values_show_what_they_hold(value: object, shown: str) -> None:
    assert repr(value).startswith(shown)


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=lambda value: type(value).__name__)
def test_values_can_be_pickled(value: object, shown: str) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert type(again) is type(value) and repr(again) == repr(value)


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (rawdl.ProgressUpdate(), {"progress", "totalBytesWritten", "totalBytesExpectedToWrite"}),
        (rawdl.HeadersReceived(rawdl.Headers(), 200, "", "1.1", ""), {"header", "statusCode"}),
        (rawdl.Profile(), {"fetchStart", "SSLconnectionStart", "peerIP", "receivedBytedCount", "socketReused"}),
        (rawdl.Aborted("m"), {"errMsg", "errno"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_listeners_get_becomes_json(value, names: set[str]) -> None:
    assert names <= json.loads(json.dumps(value.to_dict(), allow_nan=False)).keys()


def test_the_type_of_options_is_that_of_the_method() -> None:
    found = {name: hint.__forward_arg__ for name, hint in TaskOptions.__annotations__.items()}
    found["url"] = found["url"].removeprefix("Required[").removesuffix("]")
    wanted = dict(rawdl.Client.download_file.__annotations__)
    del wanted["return"]
    assert found == wanted
