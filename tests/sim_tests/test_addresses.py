"""Which addresses are connected to: of which family, and as somebody's policy allows (A16, F7)."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

import rawdl
from rawdl.policies import public_only
from tests.origin import Origin, Script as Answer
from tests.resource import redirect
from tests.sim import World
from tests.sim_tests.journeys import AT_ONCE, A, B, journey, serve
from tests.sim_tests.peers import OK


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def connected(world: World) -> list[str]:
    return [line.split()[-1] for _, line in world.log if line.startswith("connect")]


class Policy:
    """Allow all addresses but these, and note what it was asked."""

    def __init__(self, *refused: str) -> None:
        self.refused, self.asked = refused, list[tuple[str, str]]()

    def __call__(self, host: str, address: str) -> bool:
        self.asked.append((host, address))
        return address not in self.refused


def test_A16_each_hop_is_asked_about(world: World):
    serve(world, A, redirect(f"http://{B}/b"))
    serve(world, B, OK)
    policy = Policy()
    journey(world, client={"address_policy": policy})
    assert [host for host, _ in policy.asked] == [A, B]
    assert all(address.count(".") == 3 for _, address in policy.asked)


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.9", "[::1]", "169.254.169.254"])
def test_A16_a_redirect_to_an_inner_address_is_not_connected_to(world: World, host: str):
    serve(world, A, redirect(f"http://{host}/secret"))
    world.name(A).addresses[:] = ["93.184.216.34"]
    serve(world, A, redirect(f"http://{host}/secret"), address="93.184.216.34")
    serve(world, host.strip("[]"), OK)
    taken = journey(world, client={"address_policy": public_only, "retry": AT_ONCE})
    assert isinstance(taken.error, rawdl.ResolveError)
    assert f"the address policy allows none of {host.strip('[]')}" in str(taken.error)
    assert len(world.requests) == 1
    assert taken.error.attempts == (), "it would be the same again"


def test_A16_a_name_that_leads_inside(world: World):
    """What is connected to is what was looked at: nothing is resolved twice (F7)."""
    serve(world, A, OK)
    world.name(A).addresses[:] = ["127.0.0.1"]
    taken = journey(world, client={"address_policy": public_only})
    assert isinstance(taken.error, rawdl.ResolveError)
    assert world.conns == []


def test_A16_of_several_addresses_those_are_left_that_may_be_used(world: World):
    serve(world, A, OK)
    good = world.name(A).addresses[0]
    world.name(A).addresses[:] = ["10.9.9.9", good]
    policy = Policy("10.9.9.9")
    assert journey(world, client={"address_policy": policy}).body == OK.body
    assert policy.asked == [(A, "10.9.9.9"), (A, good)]


def test_A16_a_policy_that_raises_refuses(world: World):
    serve(world, A, OK)

    def policy(host: str, address: str) -> bool:
        raise KeyError(host)

    taken = journey(world, client={"address_policy": policy})
    assert isinstance(taken.error, rawdl.ResolveError)
    assert "the address policy raised KeyError" in str(taken.error)
    assert isinstance(taken.error.__cause__, KeyError)


def test_A16_behind_a_proxy_what_it_is_told_is_asked_about(world: World):
    serve(world, "proxy.example.org", OK, port=3128)
    client = {"proxy": "http://proxy.example.org:3128", "address_policy": public_only}
    taken = journey(world, "http://169.254.169.254/latest", client)
    assert isinstance(taken.error, rawdl.ResolveError)
    assert world.requests == []
    assert journey(world, f"http://{A}/a", client).body == OK.body, "what the name leads to, only the proxy knows"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("127.1.2.3", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.216.34", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("::ffff:0:127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("fec0::1", False),
    ],
)
def test_A16_what_is_public(address: str, allowed: bool):
    assert public_only("h", address) == allowed


@pytest.mark.parametrize(("family", "used"), [(None, 2), ("ipv4", 1), ("ipv6", 1)])
def test_the_family(world: World, family: str | None, used: int):
    serve(world, A, OK)
    serve(world, A, OK, address="2001:db8::5")
    policy = Policy()
    assert journey(world, client={"family": family, "address_policy": policy}).body == OK.body
    assert len(policy.asked) == used
    assert all((":" in address) == (family == "ipv6") for _, address in policy.asked) or family is None


def test_a_host_without_an_address_of_the_family(world: World):
    serve(world, A, OK)
    taken = journey(world, client={"family": "ipv6"})
    assert isinstance(taken.error, rawdl.ResolveError)
    taken = journey(world, "http://127.0.0.1/a", client={"family": "ipv6"})
    assert isinstance(taken.error, rawdl.ResolveError)
    assert "it has no address of the family" in str(taken.error)


def test_the_address_that_is_connected_from(origin: Origin):
    url = origin.serve("/a", Answer(body=b"x"))
    with rawdl.Client(local_address="127.0.0.9") as client:
        client.download_file(url=url, sink=rawdl.DiscardSink()).result()
    assert origin.requests[0].peer[0] == "127.0.0.9"
    with rawdl.Client(local_address="192.0.2.1", retry=rawdl.Retry(attempts=1)) as client:
        error = client.download_file(url=url, sink=rawdl.DiscardSink()).exception()
    assert isinstance(error, rawdl.ConnectError)
    assert "Cannot assign requested address" in str(error)


def test_no_other_address_is_connected_from_where_the_family_is_another(origin: Origin):
    url = origin.serve("/a", Answer(body=b"x"))
    with rawdl.Client(local_address="::1", retry=rawdl.Retry(attempts=1)) as client:
        error = client.download_file(url=url, sink=rawdl.DiscardSink()).exception()
    assert isinstance(error, rawdl.ConnectError)
    assert (origin.connections, "Cannot assign requested address" in str(error)) == (0, True)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"family": "ipx"}, ValueError),
        ({"family": 4}, ValueError),
        ({"address_policy": "public"}, TypeError),
        ({"local_address": "localhost"}, ValueError),
        ({"local_address": ""}, ValueError),
    ],
)
def test_S11_rules_that_make_no_sense(options: dict[str, Any], kind: type[Exception]):
    with pytest.raises(kind):
        rawdl.Client(**options)


# Elsewhere than the URL says


def test_another_place_is_connected_to_and_the_name_stays(world: World):
    serve(world, B, OK, port=8080)
    policy = Policy()
    journey(world, client={"connect_to": {f"{A}:80": f"{B}:8080"}, "address_policy": policy})
    [request] = world.requests
    assert request.field("Host") == A
    assert [host for host, _ in policy.asked] == [B], "it is asked about what is connected to"


def test_another_place_is_for_that_port_only(world: World):
    serve(world, A, redirect(f"http://{A}:81/b"))
    serve(world, A, OK, port=81)
    journey(world, client={"connect_to": {f"{A}:82": f"{B}:80"}})
    assert len(world.requests) == 2


def test_another_place_is_what_a_proxy_is_told(world: World):
    serve(world, "proxy.example.org", Answer(status=403, reason="No", body=b""), port=3128)
    settings = {"connect_to": {f"{A}:443": "[2001:db8::1]:8443"}, "proxy": "http://proxy.example.org:3128"}
    journey(world, f"https://{A}/a", {**settings, "retry": AT_ONCE})
    assert world.requests[0].head.startswith(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "wrong", [{"a.example": "b.example:80"}, {"a:80": "b"}, {"a:80": "u@b:80"}, {"a:80/x": "b:80"}]
)
def test_S11_what_is_no_other_place(world: World, wrong: dict[str, str]):
    with pytest.raises(ValueError, match="connect_to"):
        world.client(connect_to=wrong)
    with pytest.raises(TypeError, match="connect_to"):
        world.client(connect_to={"a:80": 5})


def test_F8_a_zone_is_for_the_resolver_and_not_for_the_server(world: World):
    serve(world, A, OK)
    world.name("fe80::1%eth0").addresses.extend(world.name(A).addresses)
    journey(world, "http://[fe80::1%25eth0]/a")
    [request] = world.requests
    assert request.field("Host") == "[fe80::1]"


def test_F8_a_zone_is_not_for_a_proxy(world: World):
    serve(world, "proxy.example.org", Answer(status=403, reason="No", body=b""), port=3128)
    journey(world, "https://[fe80::1%25eth0]/a", {"proxy": "http://proxy.example.org:3128", "retry": AT_ONCE})
    assert world.requests[0].head.startswith(b"CONNECT [fe80::1]:443 HTTP/1.1\r\n")


def test_F8_a_certificate_is_for_the_address_without_its_zone(world: World, ca: trustme.CA, trusting: rawdl.TLS):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("fe80::1").configure_cert(context)
    serve(world, A, OK, port=443, tls=context)
    world.name("fe80::1%eth0").addresses.extend(world.name(A).addresses)
    assert journey(world, "https://[fe80::1%25eth0]/a", {"tls": trusting}).body == OK.body
