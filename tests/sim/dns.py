"""Names in the simulated network."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rawdl.errors import ResolveError

if TYPE_CHECKING:
    from tests.sim.world import World

Address = tuple[int, tuple[str, int] | tuple[str, int, int, int]]  # family, and the sockaddr of getaddrinfo
Callback = Callable[[list[Address], ResolveError | None], None]


@dataclass
class Name:
    """What is answered for one name. It may be changed during a run."""

    addresses: list[str] = field(default_factory=list)
    delay: float = 0.005  # seconds
    error: OSError | None = None  # a socket.gaierror
    silent: bool = False  # no answer ever


class Resolver:
    """Answer as the world's names say; a name that nobody set up does not exist, an address is its own answer."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.names: dict[str, Name] = {}

    def resolve(self, host: str, port: int, family: int, callback: Callback) -> Callable[[], None]:
        """Call back once, later; return what cancels that."""
        name = self._find(host)
        self._world.note(f"resolve {host}")
        if name.silent:
            return lambda: self._world.note(f"resolve {host} cancelled")
        return self._world.interrupt(name.delay, self._answer, name, port, family, callback).cancel

    def _find(self, host: str) -> Name:
        if is_address(host) and host not in self.names:  # one with a zone may be among them
            return Name([host], delay=0.0)
        unknown = Name(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        return self.names.get(host, unknown)

    def _answer(self, name: Name, port: int, family: int, callback: Callback) -> None:
        if name.error:
            error = ResolveError(f"cannot resolve the name: {name.error}", errno=name.error.errno)
            error.__cause__ = name.error
            callback([], error)
            return
        found = [_address(text, port) for text in name.addresses]
        callback([each for each in found if family in (socket.AF_UNSPEC, each[0])], None)


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _address(text: str, port: int) -> Address:
    if ":" in text:
        return socket.AF_INET6, (text, port, 0, 0)
    return socket.AF_INET, (text, port)
