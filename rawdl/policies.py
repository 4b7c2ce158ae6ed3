"""Ready answers to which addresses may be connected to: for ``Client(address_policy=…)``."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final

__all__ = ["public_only"]

_UNICAST: Final = IPv6Network("2000::/3")  # RFC 4291 2.4: of the rest, nothing is routed but what NAT64 makes of it
_NAT64: Final = IPv6Network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


def public_only(host: str, address: str) -> bool:
    """Allow what anybody in the internet can reach, and nothing of this machine, its networks or a cloud's metadata.

    An IPv4 address inside of an IPv6 one (mapped, 6to4, Teredo, NAT64) counts as itself.
    """
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if isinstance(ip, IPv6Address) and not (ip in _UNICAST or ip in _NAT64):
        return False
    return all(each.is_global and not each.is_multicast for each in (ip, *_within(ip)))


def _within(ip: IPv4Address | IPv6Address) -> list[IPv4Address]:
    if isinstance(ip, IPv4Address):
        return []
    found = [ip.sixtofour, *(ip.teredo or ())]
    if ip in _NAT64:
        found.append(IPv4Address(int(ip) & 0xFFFFFFFF))
    return [each for each in found if each is not None]
