"""Fixtures for all tests, and a guard that lets no test leave anything behind."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.apache import Apache
from tests.nginx import Nginx
from tests.origin import Origin
from tests.sim import replay_command

# What the tests ask for is on this machine, whatever proxy it is behind.
for _name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[_name]

GRACE = 2.0  # seconds that a thread or descriptor on its way out may take
DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture(scope="session")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def ca_file(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_context(ca: trustme.CA) -> ssl.SSLContext:
    """Return a server's settings; its certificate is for localhost, 127.0.0.1, ::1, example.org and *.example.org."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1", "::1", "example.org", "*.example.org").configure_cert(context)
    return context


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        yield origin


@pytest.fixture
def tls_origin(server_context: ssl.SSLContext) -> Iterator[Origin]:
    with Origin(tls=server_context) as origin:
        yield origin


@pytest.fixture
def strict(ca: trustme.CA) -> Iterator[Origin]:
    """An origin that lets in only who has a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Origin(tls=context) as origin:
        yield origin


@pytest.fixture(scope="session")
def nginx(ca: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    program = Nginx.find()
    if program is None:
        pytest.skip("nginx is not installed (Debian: apt-get install nginx-light)")
    with Nginx(program, tmp_path_factory.mktemp("nginx"), ca) as nginx:
        yield nginx


@pytest.fixture(scope="session")
def apache(ca: trustme.CA) -> Iterator[Apache]:
    program = Apache.find()
    if program is None:
        pytest.skip("apache2 is not installed (Debian: apt-get install apache2-bin)")
    with Apache(program, ca) as apache:
        yield apache


@pytest.fixture
def leaves_parts() -> None:
    """Let this test leave *.part files in its tmp_path (`@pytest.mark.usefixtures("leaves_parts")`)."""


@pytest.fixture
def leaves_descriptors() -> None:
    """Let this test leave open descriptors."""


@pytest.fixture
def leaves_threads() -> None:
    """Let this test leave threads."""


@pytest.fixture(autouse=True)
def leave_nothing_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves threads, descriptors or part files; see the leaves_* fixtures."""
    allowed = request.fixturenames
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in allowed else None
    threads, descriptors = _threads(), _descriptors()
    yield
    left = []
    if "leaves_threads" not in allowed:
        left += _settle(lambda: _threads() - threads)
    if "leaves_descriptors" not in allowed:
        left += _settle(lambda: _descriptors() - descriptors)
    if folder and "leaves_parts" not in allowed:
        left += sorted(folder.rglob("*.part"))
    if left:
        pytest.fail(f"left behind: {left}", pytrace=False)


@pytest.fixture(autouse=True, scope="session")
def only_loopback() -> Iterator[None]:
    """Refuse to connect to any other machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _checked(getattr(socket.socket, name)))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Say how to replay a failure in the simulated network."""
    report = yield
    if report.failed and (command := replay_command(item)):
        report.sections.append(("replay", command))
    return report


def _threads() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if not t.daemon or t.name.startswith("rawdl")}


def _descriptors() -> set[tuple[str, str]]:
    """Return the open descriptors with what they lead to; nothing where the system does not tell."""
    found = set()
    for fd in os.listdir(DESCRIPTORS) if DESCRIPTORS.is_dir() else ():
        try:
            found.add((fd, os.readlink(DESCRIPTORS / fd)))
        except OSError:
            continue  # the descriptor of the listing itself
    return found


def _settle(left) -> list[object]:
    """Return what is still there after a grace time; if there is any, let the ResourceWarnings tell of it."""
    deadline = time.monotonic() + GRACE
    while left() and time.monotonic() < deadline:
        time.sleep(0.005)
    if remaining := left():
        gc.collect()
    return list(remaining)


def _checked(connect):
    def checked(self: socket.socket, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            raise AssertionError(f"a test tried to connect to {address}")
        return connect(self, address)

    return checked


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
