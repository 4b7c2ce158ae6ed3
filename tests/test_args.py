"""What a caller may say, and what is refused at the call (S10-S14, S15, S34, S39, S41, S42, B1, B5)."""

from __future__ import annotations

import inspect
import math
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rawdl
from tests.origin import Origin, Request, Script
from tests.script import run_script
from tests.sim import World, http_peer

URL = "http://example.org/a"
BODY = b"hello" * 100
NAN = float("nan")
CONTROLS = [*map(chr, range(0x20)), "\x7f"]


@pytest.fixture
def client() -> Iterator[rawdl.Client]:
    with rawdl.Client() as client:
        yield client


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        world.listen("example.org", 80, http_peer(Script(body=BODY)))
        yield world


# S10: the url


def test_S10_url_left_out_is_a_type_error():
    script = """
        import rawdl
        for function in (rawdl.Client().download_file, rawdl.download_file, rawdl.download):
            try:
                function()
            except TypeError as exc:
                print("url" in str(exc))
    """
    assert run_script(script).split() == ["True"] * 3


@pytest.mark.parametrize("url", [" {}", "{} ", "\t{}\r\n", "\n\n{}\x0c\x0b"])
def test_S10_white_space_around_it_is_stripped(url: str, world: World):
    result = world.client().download_file(url=url.format(URL), sink=rawdl.MemorySink()).result()
    assert result.url == URL
    assert [request.target for request in world.requests] == ["/a"]


@pytest.mark.parametrize("url", [b"http://example.org/", 5, ["http://example.org/"], Path("/a"), True])
def test_S11_a_url_of_another_type(url: object, client: rawdl.Client):
    with pytest.raises(TypeError, match="url"):
        client.download_file(url=url)  # type: ignore[arg-type]


def test_S10_a_host_that_is_not_ascii(world: World):
    error = world.client().download_file(url="http://b\xfccher.example/").exception()
    try:
        import idna  # noqa: F401
    except ImportError:
        assert isinstance(error, rawdl.InvalidURL)
        assert "idna" in str(error)
    else:
        assert isinstance(error, rawdl.ResolveError)
        assert world.seen("resolve xn--bcher-kva.example")


def test_S10_without_the_idna_extra_it_says_so():
    script = """
        import sys
        sys.modules["idna"] = None
        import rawdl
        with rawdl.Client() as client:
            print(client.download_file(url="http://b\\xfccher.example/").exception())
    """
    assert "idna" in run_script(script)


@pytest.mark.parametrize(
    "host", ["[::1", "[not-ip]", "[::1]x", "a:0x50", "a:65536", "a:-1", "a:８０", "", "a b", "a%20b"]
)
def test_B5_hosts_and_ports_that_are_none(host: str, client: rawdl.Client):
    error = client.download_file(url=f"http://{host}/").exception()
    assert type(error) is rawdl.InvalidURL
    assert error.reason == "invalid url"


# B1: nothing can be smuggled into a request


@pytest.mark.parametrize(
    "place",
    [
        "ht{}tp://example.org/",
        "http://us{}er@example.org/",
        "http://exam{}ple.org/",
        "http://example.org:8{}0/",
        "http://example.org/a{}b",
        "http://example.org/?a{}b",
    ],
)
def test_B1_S10_control_characters_inside_a_url(place: str, world: World):
    client = world.client()
    for control in CONTROLS:
        error = client.download_file(url=place.format(control)).exception()
        assert isinstance(error, rawdl.InvalidURL), (place, control)
    assert world.log == []


@pytest.mark.parametrize("place", ["http://example.org/a{}b", "http://example.org/?a{}b"])
@pytest.mark.parametrize(
    "text", [" ", '"', "<", ">", "`", "{", "|", "}", "^", "\\", "é", "€", "\ud800", "\x80", "\x85"]
)
def test_B1_what_may_not_stand_raw_behind_the_host_is_encoded(
    place: str, text: str, origin: Origin, client: rawdl.Client
):
    origin.serve("*", Script(body=BODY))
    url = place.replace("example.org", f"127.0.0.1:{origin.port}").replace("{}", text)
    task = client.download_file(url=url, sink=rawdl.MemorySink())
    if task.exception() is None:
        head = one_request(origin)
        target = head.split(b" ")[1]
        assert target.startswith(b"/") and all(0x21 <= byte <= 0x7E for byte in target)
        assert b"%" in target
    else:
        assert isinstance(task.exception(), rawdl.InvalidURL)
        assert origin.requests == []


@pytest.mark.parametrize("fragment", ["#f", "#f%0d%0ax", "#\u20ac"])
def test_B1_a_fragment_is_never_sent(fragment: str, world: World):
    world.client().download_file(url=URL + fragment, sink=rawdl.MemorySink()).result()
    assert [request.target for request in world.requests] == ["/a"]


def test_B2_userinfo_is_in_neither_the_target_nor_the_host(client: rawdl.Client, origin: Origin):
    url = origin.serve("/a", Script(body=BODY)).replace("http://", "http://me:secret@")
    result = client.download_file(url=url, sink=rawdl.MemorySink()).result()
    head = one_request(origin)
    assert b"secret" not in head and b"me:" not in head
    assert origin.requests[0].field("host") == f"127.0.0.1:{origin.port}"
    assert "secret" not in result.url


def one_request(origin: Origin) -> bytes:
    """See that what the origin got is exactly one well-formed request, and return it."""
    assert len(origin.requests) == 1
    head = origin.requests[0].head
    lines = head.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert head.count(b"\r\n\r\n") == 1
    assert head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n") == len(lines) - 1
    method, _, version = lines[0].split(b" ")
    assert (method, version) == (b"GET", b"HTTP/1.1")
    assert all(b": " in line for line in lines[1:-2])
    return head


@pytest.mark.parametrize("character", [*CONTROLS, " "])
def test_B1_S12_in_the_name_of_a_field(character: str, client: rawdl.Client):
    for name in (f"X{character}Y", f"{character}X", f"X{character}"):
        with pytest.raises(ValueError, match="field name"):
            client.download_file(url=URL, header={name: "v"})


@pytest.mark.parametrize("name", ["", "X:", "X(", "X\xe9", "Ünïcode", "a,b", "a/b", "[x]", '"x"', "x@y"])
def test_S12_a_name_that_is_no_token(name: str, client: rawdl.Client):
    with pytest.raises(ValueError, match="field name"):
        client.download_file(url=URL, header={name: "v"})


@pytest.mark.parametrize("character", [each for each in CONTROLS if each != "\t"])
def test_B1_S12_in_the_value_of_a_field(character: str, client: rawdl.Client):
    for value in (f"a{character}b", f"{character}b", f"a{character}", f"a{character}X: y", character):
        with pytest.raises(ValueError, match="value of X-A"):
            client.download_file(url=URL, header={"X-A": value})


@pytest.mark.parametrize("value", ["a b", "a\tb", "", "  padded  ", "caf\xe9", "\x80\xff", "a: b", "x" * 8000])
def test_S12_any_other_value_arrives_as_it_is(value: str, client: rawdl.Client, origin: Origin):
    url = origin.serve("/a", Script(body=BODY))
    client.download_file(url=url, sink=rawdl.MemorySink(), header={"X-A": value, "X-B": "b"}).result()
    head = one_request(origin)
    assert b"\r\nX-A: " + value.strip(" \t").encode("latin-1") + b"\r\n" in head
    assert b"\r\nX-B: b\r\n" in head


def test_S12_a_value_beyond_latin_1_cannot_be_sent(client: rawdl.Client):
    with pytest.raises(ValueError, match="value of X-A"):
        client.download_file(url=URL, header={"X-A": "€"})


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding", "TRANSFER-ENCODING"])
def test_S12_the_framing_fields_are_not_the_callers(name: str, client: rawdl.Client):
    for value in ("5", "chunked", None):
        with pytest.raises(ValueError, match=name):
            client.download_file(url=URL, header={name: value})


def test_S12_the_error_of_a_field_comes_even_with_an_invalid_url(client: rawdl.Client):
    with pytest.raises(ValueError, match="field name"):
        client.download_file(url="nonsense", header={"a b": "c"})
    with pytest.raises(TypeError):
        client.download_file(url="nonsense", header={"a": 5})  # type: ignore[dict-item]


def request_of(origin: Origin, client: rawdl.Client, **options: Any) -> Request:
    client.download_file(url=origin.serve("/a", Script(body=BODY)), sink=rawdl.MemorySink(), **options).result()
    return origin.requests[-1]


def test_S12_the_default_fields_and_how_they_are_replaced_and_dropped(client: rawdl.Client, origin: Origin):
    request = request_of(origin, client)
    assert request.head.split(b"\r\n")[1] == f"Host: 127.0.0.1:{origin.port}".encode()
    assert request.field("user-agent") == f"rawdl/{rawdl.__version__}"
    assert request.field("accept-encoding") == "identity"
    assert request.field("referer") is None
    request = request_of(origin, client, header={"user-AGENT": "mine", "accept-encoding": None, "Range": "bytes=0-1"})
    assert request.head.lower().count(b"user-agent") == 1
    assert request.field("user-agent") == "mine"
    assert request.field("accept-encoding") is None
    assert request.field("range") == "bytes=0-1"


def test_S12_the_host_field_may_be_chosen_and_comes_first(client: rawdl.Client, origin: Origin):
    request = request_of(origin, client, header={"X-A": "1", "hOST": "other.example"})
    assert request.head.lower().count(b"host:") == 1
    assert request.head.split(b"\r\n")[1] == b"hOST: other.example"
    with pytest.raises(ValueError, match="Host"):
        client.download_file(url=URL, header={"Host": None})


def test_S12_the_callers_header_is_read_once(client: rawdl.Client, origin: Origin):
    """What happens to the mapping after the call changes nothing."""
    header: dict[str, str | None] = {"X-A": "1"}
    task = client.download_file(url=origin.serve("/a", Script(body=BODY)), sink=rawdl.MemorySink(), header=header)
    header["X-A"] = "2\r\nX-B: 3"
    header["X-C"] = "4"
    task.result()
    assert origin.requests[0].field("x-a") == "1"
    assert origin.requests[0].field("x-c") is None


# S11: types and values at the call

WRONG_TYPES: list[dict[str, object]] = [
    {"file_path": b"bytes"},
    {"file_path": 5},
    {"file_path": ["a"]},
    {"directory": b"bytes"},
    {"directory": 5},
    {"header": "X-A: 1"},
    {"header": [("X-A", "1")]},
    {"header": []},
    {"header": 0},
    {"header": {b"X-A": "1"}},
    {"header": {"X-A": b"1"}},
    {"header": {"X-A": 1}},
    {"header": {"X-A": ["1", "2"]}},
    {"header": {None: "1"}},
    {"timeout": "5"},
    {"timeout": True},
    {"timeout": False},
    {"timeout": 5j},
    {"timeouts": 5},
    {"timeouts": {"total": 5}},
    {"timeouts": 0},
    {"limits": 5},
    {"limits": {}},
    {"success": "not callable"},
    {"fail": 5},
    {"complete": []},
    {"sink": "path"},
    {"sink": 5},
    {"sink": b"bytes"},
    {"progress_interval": "0"},
    {"progress_interval": None},
    {"progress_interval": True},
    {"fail_on_status": "no"},
    {"fail_on_status": None},
    {"no_such_option": 1},
]
WRONG_VALUES: list[dict[str, object]] = [
    {"file_path": ""},
    {"file_path": "a\0b"},
    {"directory": ""},
    {"directory": "a\0b"},
    {"timeout": 0},
    {"timeout": -1},
    {"timeout": NAN},
    {"timeout": math.inf},
    {"timeout": -math.inf},
    {"progress_interval": -0.1},
    {"progress_interval": NAN},
    {"progress_interval": math.inf},
    {"sink": rawdl.MemorySink(), "file_path": "a"},
    {"sink": rawdl.MemorySink(), "directory": "a"},
    {"file_path": "a", "directory": "b"},
    {"timeout": 5, "timeouts": rawdl.Timeouts(total=5)},
]


@pytest.mark.parametrize("options", WRONG_TYPES, ids=str)
@pytest.mark.parametrize("url", [URL, "nonsense"])
def test_S11_S39_a_wrong_type_raises_at_the_call(options: dict[str, Any], url: str, client: rawdl.Client):
    with pytest.raises(TypeError):
        client.download_file(url=url, **options)
    assert client.run(0) is False, "no task was made"


@pytest.mark.parametrize("options", WRONG_VALUES, ids=str)
@pytest.mark.parametrize("url", [URL, "nonsense"])
def test_S11_S39_T36_a_wrong_value_raises_at_the_call(options: dict[str, Any], url: str, client: rawdl.Client):
    with pytest.raises(ValueError):
        client.download_file(url=url, **options)
    assert client.run(0) is False


@pytest.mark.parametrize("name", ["resolve", "connect", "tls", "send", "head", "idle", "total"])
def test_S11_T36_the_limits_of_time(name: str):
    assert getattr(rawdl.Timeouts(**{name: None}), name) is None
    assert getattr(rawdl.Timeouts(**{name: 0.5}), name) == 0.5
    for value in (0, -1, NAN, math.inf):
        with pytest.raises(ValueError, match=name):
            rawdl.Timeouts(**{name: value})
    for wrong in ("5", True, [5]):
        with pytest.raises(TypeError, match=name):
            rawdl.Timeouts(**{name: wrong})  # type: ignore[arg-type]


def test_T36_the_default_limits_of_time():
    times = rawdl.Timeouts()
    assert [times.resolve, times.connect, times.tls, times.send, times.head, times.idle] == [10, 10, 10, 30, 60, 60]
    assert times.total is None


@pytest.mark.parametrize("name", [name for name in rawdl.Limits.__slots__ if name not in ("body", "decoded", "ratio")])
def test_S11_the_limits_of_size(name: str):
    for wrong in (None, "5", 5.0, True):
        with pytest.raises(TypeError, match=name):
            rawdl.Limits(**{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=name):
        rawdl.Limits(**{name: -1})
    assert rawdl.Limits().body is None
    assert rawdl.Limits(body=0).body == 0


@pytest.mark.parametrize("values", [(1, 2), {"unknown": 1}], ids=str)
@pytest.mark.parametrize("kind", [rawdl.Timeouts, rawdl.Limits, rawdl.TLS])
def test_S11_the_dataclasses_take_known_names_only(kind: Any, values: Any):
    with pytest.raises(TypeError):
        kind(**values) if isinstance(values, dict) else kind(*values)


@pytest.mark.parametrize("kind", [rawdl.Timeouts, rawdl.Limits, rawdl.TLS])
def test_S11_the_dataclasses_are_frozen(kind: Any):
    value = kind()
    for name in kind.__slots__:
        with pytest.raises(AttributeError):
            setattr(value, name, None)
    assert value == kind()


CLIENT_TYPES: list[dict[str, object]] = [
    {"timeouts": 5},
    {"timeouts": 0},
    {"timeouts": {}},
    {"limits": 5},
    {"limits": 0},
    {"tls": "ca.pem"},
    {"tls": True},
    {"tls": {}},
    {"max_concurrent": "10"},
    {"max_concurrent": 1.5},
    {"max_concurrent": True},
    {"max_concurrent": None},
    {"max_per_host": "6"},
    {"buffer_size": None},
    {"buffer_size": 65536.0},
    {"resolver": 5},
    {"resolver": "8.8.8.8"},
    {"clock": 5},
    {"socket_factory": 5},
    {"no_such_option": 1},
]
CLIENT_VALUES: list[dict[str, object]] = [
    {"max_concurrent": 0},
    {"max_concurrent": -1},
    {"max_per_host": 0},
    {"buffer_size": 0},
    {"buffer_size": 4095},
    {"buffer_size": -1},
]


@pytest.mark.parametrize("options", CLIENT_TYPES, ids=str)
def test_S11_the_clients_arguments_of_a_wrong_type(options: dict[str, Any]):
    with pytest.raises(TypeError):
        rawdl.Client(**options)


@pytest.mark.parametrize("options", CLIENT_VALUES, ids=str)
def test_S11_the_clients_arguments_of_a_wrong_value(options: dict[str, Any]):
    with pytest.raises(ValueError):
        rawdl.Client(**options)


def test_S11_the_clients_arguments_are_named():
    with pytest.raises(TypeError):
        rawdl.Client(rawdl.Timeouts())  # type: ignore[misc]


@pytest.mark.parametrize("options", [{"minimum_version": "1.1"}, {"minimum_version": "tls"}, {"minimum_version": ""}])
def test_S11_the_values_of_tls(options: dict[str, Any]):
    with pytest.raises(ValueError):
        rawdl.TLS(**options)


@pytest.mark.parametrize(
    "options", [{"verify": "no"}, {"verify": 0}, {"verify": None}, {"ca_file": 5}, {"ca_file": True}]
)
def test_S11_the_types_of_tls(options: dict[str, Any]):
    with pytest.raises(TypeError):
        rawdl.TLS(**options)


@pytest.mark.parametrize("listener", [None, 5, "name"])
def test_S11_a_listener_has_to_be_callable(listener: Any, client: rawdl.Client):
    task = client.download_file(url=URL)
    for on in (task.on_headers_received, task.on_progress_update):
        with pytest.raises(TypeError):
            on(listener)
    task.abort()


# S39, S11: which limit holds


def test_S39_a_tasks_timeout_wins_over_the_clients_total(world: World):
    world.listen("example.org", 80, http_peer(Script(head_delay=3600)))
    client = world.client(timeouts=rawdl.Timeouts(total=5, head=None))
    error = client.download_file(url=URL, timeout=17).exception()
    assert isinstance(error, rawdl.Timeout)
    assert (error.phase, error.err_code) == ("total", 5)
    assert world.elapsed == pytest.approx(17, abs=0.1)


def test_S11_a_tasks_timeouts_replace_the_clients(world: World):
    world.listen("example.org", 80, http_peer(Script(head_delay=3600)))
    client = world.client(timeouts=rawdl.Timeouts(total=5))
    error = client.download_file(url=URL, timeouts=rawdl.Timeouts(head=90)).exception()
    assert isinstance(error, rawdl.Timeout)
    assert error.phase == "head"
    assert world.elapsed == pytest.approx(90, abs=0.1)


def test_S11_a_tasks_limits_replace_the_clients(world: World):
    client = world.client(limits=rawdl.Limits(body=10))
    assert isinstance(client.download_file(url=URL, sink=rawdl.MemorySink()).exception(), rawdl.TooLarge)
    task = client.download_file(url=URL, sink=rawdl.MemorySink(), limits=rawdl.Limits(body=len(BODY)))
    assert task.result().data_length == len(BODY)


# S13, S15, S42: the module


def test_S13_download_blocks_and_returns_the_result(origin: Origin, tmp_path: Path):
    script = """
        import sys, rawdl
        url, path = sys.argv[1:]
        result = rawdl.download(url + "/a", path, header={"X-A": "1"})
        print(result.status_code, result.data_length, result.file_path == path)
        print(rawdl.download(url=url + "/a", sink=rawdl.MemorySink()).profile.socket_reused)
        try:
            rawdl.download(url + "/cut", path, retry=rawdl.Retry(attempts=1))
        except rawdl.IncompleteBody as exc:
            print(exc.err_msg)
        try:
            rawdl.download("nonsense")
        except rawdl.InvalidURL as exc:
            print(exc.err_msg)
        task = rawdl.download_file(url=url + "/a", sink=rawdl.MemorySink())
        print(task.done(), task.result().data_length)
    """
    origin.serve("/a", Script(body=BODY))
    origin.serve("/cut", Script(body=BODY, cut_at=100))
    assert run_script(script, origin.url(""), tmp_path / "a").splitlines() == [
        f"200 {len(BODY)} True",
        "True",
        "downloadFile:fail incomplete",
        "downloadFile:fail invalid url",
        f"False {len(BODY)}",
    ]


NAMES = """
    Client DownloadTask DownloadResult HeadersReceived ProgressUpdate Profile Headers TaskState Phase Timeouts Limits
    LowSpeed Retry Redirects RedirectError RangeError ChecksumError
    TLS MemorySink DiscardSink download download_file __version__
    DownloadError InvalidURL Aborted Timeout NetworkError ResolveError ConnectError TLSError ConnectionLost
    ProxyError BasicAuth BearerAuth DigestAuth DecodingError
    ProtocolError IncompleteHead IncompleteBody StatusError TooLarge StorageError
"""


def test_S15_S42_the_public_names():
    assert sorted(rawdl.__all__) == sorted(NAMES.split())
    for name in rawdl.__all__:
        assert getattr(rawdl, name) is not None
        assert name in dir(rawdl)
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        rawdl.nothing_of_ours  # noqa: B018
    assert all(issubclass(each, rawdl.DownloadError) for each in vars(rawdl.errors).values() if inspect.isclass(each))


@pytest.mark.parametrize("first", ["Client", "DownloadTask", "download", "download_file", "Headers"])
def test_S13_S15_a_name_means_the_same_whatever_was_used_before(first: str):
    """The names are loaded when they are used; a module of ours must not take the place of one of them."""
    script = """
        import importlib, pkgutil, sys, types, rawdl
        getattr(rawdl, sys.argv[1])
        rawdl.Client().close()
        for module in pkgutil.walk_packages(rawdl.__path__, "rawdl."):
            if "__main__" not in module.name:
                importlib.import_module(module.name)
        print([name for name in rawdl.__all__ if isinstance(getattr(rawdl, name), types.ModuleType)])
    """
    assert run_script(script, first) == "[]\n"


def test_S15_the_enums_are_strings():
    assert rawdl.TaskState("receiving") == "receiving"
    assert f"{rawdl.Phase.HEAD}" == "head"
    assert {"resolve", "connect", "proxy", "tls", "send", "head", "idle", "total"} <= set(rawdl.Phase)
    states = ["queued", "connecting", "waiting", "receiving", "paused"]
    assert list(rawdl.TaskState) == [*states, "finishing", "completed", "failed", "aborted"]


@pytest.mark.parametrize("name", ["unix_socket", "trace", "connect_to"])
def test_S13_a_parameter_whose_feature_is_to_come_is_absent(name: str, client: rawdl.Client):
    with pytest.raises(TypeError, match=name):
        client.download_file(url=URL, **{name: None})


# S41: resolvers


def test_S41_a_callable_resolver(origin: Origin):
    asked: list[tuple[object, ...]] = []

    def resolver(*question: object) -> list[str]:
        asked.append(question)
        return ["127.0.0.1"]

    url = origin.serve("/a", Script(body=BODY)).replace("127.0.0.1", "example.org")
    with rawdl.Client(resolver=resolver) as client:
        assert client.download_file(url=url, sink=rawdl.MemorySink()).result().url == url
    assert len(asked) == 1
    assert asked[0][:2] == ("example.org", origin.port)
    assert origin.requests[0].field("host") == f"example.org:{origin.port}"


def test_F2_a_context_may_be_given_as_tls():
    with rawdl.Client(tls=ssl.create_default_context()) as client:
        assert client.step(0) is False
