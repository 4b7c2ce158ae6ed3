"""Credentials: what proves who asks, and to whom it is shown (RFC 9110 11, RFC 7617, RFC 7616, RFC 6750).

    to whom                                           what is sent
    the origin that they were given for               the task's: ``auth``, else what the URL has, else netrc's
    any other that a redirect leads to                netrc's for that very host, and not its ``default`` (A6); nothing
                                                      over http after https (A2)
    the first again, after another                    as for any other: who has led there is not trusted with them
    a mirror                                          as where a redirect leads

An Authorization that is in the caller's own header goes before all of these.  Nothing here shows a secret in its repr.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from rawdl.errors import InvalidURL
from rawdl.proto.url import URL, Origin

if TYPE_CHECKING:
    from rawdl.proto.messages import Headers

__all__ = ["Authority", "BasicAuth", "BearerAuth", "Credentials", "DigestAuth", "parse_challenges", "userinfo_of"]

_MOST_CHALLENGES: Final = 3  # in a row: a server that finds each nonce stale is not served for ever
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_ATTR_CHAR: Final = re.compile(r"[!#$&+.^_`|~0-9A-Za-z-]")  # RFC 8187 3.2.1
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"
_SCHEME: Final = re.compile(rf"[ \t,]*+({_TOKEN})(?=[ \t,]|$)[ \t]*+(?![ \t]*=)")
_TOKEN68: Final = re.compile(r"[A-Za-z0-9._~+/-]++=*+[ \t]*+(?=,|$)")
_PARAMETER: Final = re.compile(
    rf'[ \t,]*+({_TOKEN})[ \t]*+=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|({_TOKEN}))[ \t]*+(?=,|$)', re.DOTALL
)


class _Login:
    """A user name and a password.

    Raises TypeError for what is no str, and ValueError for control characters or a colon in the name, which could not
    be told from that before the password.
    """

    __slots__ = ("password", "username")

    def __init__(self, username: str, password: str) -> None:
        self.username = _checked("a user name", username)
        self.password = _checked("a password", password)
        if ":" in username:
            raise ValueError("a user name has no colon (RFC 7617 2, RFC 7616 3.4.2)")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.username!r}, '***')"


class BasicAuth(_Login):
    """A user name and a password, sent with the first request already, in UTF-8 (RFC 7617).

    Raises TypeError for what is no str, and ValueError for control characters or a colon in the name.
    """

    __slots__ = ()

    @property
    def field(self) -> str:
        """The value of Authorization."""
        return f"Basic {b2a_base64(f'{self.username}:{self.password}'.encode(), newline=False).decode()}"


class DigestAuth(_Login):
    """A user name and a password that is not sent, but proved to be known once the server has asked (RFC 7616).

    Of what the server offers SHA-256 goes before MD5.  Raises as `BasicAuth` does.
    """

    __slots__ = ()


class BearerAuth:
    """A token (RFC 6750 2.1), sent with the first request already.  ValueError for what is none."""

    __slots__ = ("token",)

    def __init__(self, token: str) -> None:
        if not isinstance(token, str):
            raise TypeError(f"a token is a str, not {type(token).__name__}")
        if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token):
            raise ValueError("a bearer token has letters, digits and -._~+/ only (RFC 6750 2.1)")
        self.token = token

    @property
    def field(self) -> str:
        """The value of Authorization."""
        return f"Bearer {self.token}"

    def __repr__(self) -> str:
        return "BearerAuth('***')"


Credentials = BasicAuth | BearerAuth | DigestAuth


class Authority:
    """Say what Authorization each request of one download has.

    ``own`` is what the task was given, for ``origin`` alone.  ``look_up`` returns what is kept elsewhere (netrc) for a
    URL; its second argument says whether that may be what it has for just any host.  ``cnonce`` is a random text.
    """

    __slots__ = ("_challenges", "_cnonce", "_digest", "_has_left", "_look_up", "_origin", "_own")

    def __init__(
        self,
        own: Credentials | None,
        origin: Origin,
        look_up: Callable[[URL, bool], BasicAuth | None] | None,
        cnonce: str,
    ) -> None:
        self._own = own
        self._origin = origin
        self._look_up = look_up
        self._cnonce = cnonce
        self._has_left = False  # a redirect or a mirror has led to another origin
        self._digest: _Digest | None = None  # once the server has asked for one
        self._challenges = 0

    def onto(self, header: Mapping[str, str | None], url: URL) -> dict[str, str | None]:
        """Return the fields for a request of ``url``: with an Authorization, unless the caller has his own."""
        fields = dict(header)
        if any(name.lower() == "authorization" for name in fields):
            return fields
        field = self.field(url)
        return fields if field is None else {**fields, "Authorization": field}

    def field(self, url: URL) -> str | None:
        """Return the value of Authorization for a request of ``url``, or None."""
        credentials = self._credentials(url)
        if not isinstance(credentials, DigestAuth):
            return None if credentials is None else credentials.field
        return None if self._digest is None else self._digest.answer(credentials, "GET", url.target)

    def _credentials(self, url: URL) -> Credentials | None:
        is_first = self._is_first(url)
        if is_first and self._own is not None:
            return self._own
        is_downgrade = (self._origin.scheme, url.scheme) == ("https", "http")
        return None if self._look_up is None or is_downgrade else self._look_up(url, is_first)

    def _is_first(self, url: URL) -> bool:
        return url.origin == self._origin and not self._has_left

    def leave(self) -> None:
        """A redirect or a mirror leads to another origin."""
        self._has_left = True

    def come_back(self) -> None:
        """The next request is the first one again, by our own choice."""
        self._has_left = False

    def accepted(self) -> None:
        """The server has let us in: a nonce may grow stale again, in hours."""
        self._challenges = 0

    def challenged(self, header: Headers, url: URL) -> bool:
        """Take a 401 from ``url``; return whether it is worth asking again."""
        if not self._is_first(url) or not isinstance(self._own, DigestAuth):
            return False
        asked = _Digest.of(header.get("www-authenticate", ""), self._cnonce)
        if asked is None or self._challenges == _MOST_CHALLENGES:
            return False
        if self._digest is not None and not asked.stale:
            return False  # it knows the nonce, and does not like the password
        self._digest = asked
        self._challenges += 1
        return True


class _Digest:
    """One challenge of a server, and the answers to it (RFC 7616 3.3, 3.4)."""

    __slots__ = ("_cnonce", "_count", "_given", "_name", "stale")

    def __init__(self, given: dict[str, str], name: str, cnonce: str) -> None:
        self._given = given
        self._name = name  # of the hash
        self._cnonce = cnonce
        self._count = 0
        self.stale = given.get("stale", "").lower() == "true"

    @classmethod
    def of(cls, value: str, cnonce: str) -> _Digest | None:
        """Read WWW-Authenticate and take the best challenge that can be answered; None if there is none."""
        best: dict[str, _Digest] = {}
        for scheme, given in parse_challenges(value):
            name = _HASHES.get(given.get("algorithm", "MD5").lower().removesuffix("-sess"))
            qops = re.split(r"[ \t,]+", given.get("qop", "auth").lower())
            if scheme == "digest" and name and "auth" in qops and {"realm", "nonce"} <= given.keys():
                best.setdefault(name, cls(given, name, cnonce))
        return best.get("sha256") or best.get("md5")

    def answer(self, credentials: DigestAuth, method: str, target: str) -> str:
        """Return the value of Authorization; each answer counts."""
        self._count += 1
        given, count = self._given, f"{self._count:08x}"
        realm, nonce = given["realm"], given["nonce"]
        # Without a qop the server speaks RFC 2069, which has no count.
        proof = f"{nonce}:{count}:{self._cnonce}:auth" if "qop" in given else nonce
        response = self._hashed(f"{self._secret(credentials)}:{proof}:{self._hashed(f'{method}:{target}')}")
        fields = [self._user(credentials.username), f"realm={_quoted(realm)}", f"nonce={_quoted(nonce)}"]
        fields += [f"uri={_quoted(target)}", f'response="{response}"']
        if "algorithm" in given:
            fields.append(f"algorithm={given['algorithm']}")  # one of those that we know
        if "opaque" in given:
            fields.append(f"opaque={_quoted(given['opaque'])}")
        if "qop" in given:
            fields.append(f'qop=auth, nc={count}, cnonce="{self._cnonce}"')
        return f"Digest {', '.join(fields)}"

    def _secret(self, credentials: DigestAuth) -> str:
        """Return A1, hashed (RFC 7616 3.4.2)."""
        user, password = _as_octets(credentials.username), _as_octets(credentials.password)
        secret = self._hashed(f"{user}:{self._given['realm']}:{password}")
        if self._given.get("algorithm", "").lower().endswith("-sess"):
            secret = self._hashed(f"{secret}:{self._given['nonce']}:{self._cnonce}")
        return secret

    def _user(self, name: str) -> str:
        """Return the user as the challenge wants it (RFC 7616 3.4.4)."""
        if self._given.get("userhash", "").lower() == "true":
            hashed = self._hashed(f"{_as_octets(name)}:{self._given['realm']}")
            return f'username="{hashed}", userhash=true'
        if name.isascii():
            return f"username={_quoted(name)}"
        encoded = "".join(chr(b) if _ATTR_CHAR.match(chr(b)) else f"%{b:02X}" for b in name.encode())
        return f"username*=UTF-8''{encoded}"

    def _hashed(self, octets: str) -> str:
        import hashlib

        return hashlib.new(self._name, octets.encode("latin-1"), usedforsecurity=False).hexdigest()


# RFC 7616 3.2's names, to hashlib's.
_HASHES: Final = {"sha-256": "sha256", "md5": "md5"}


def userinfo_of(url: URL) -> BasicAuth | None:
    """Return the user name and password that a URL has, percent-decoded once; InvalidURL for what cannot be sent."""
    if url.userinfo is None:
        return None
    from rawdl.proto.fields import percent_decoded

    name, _, password = url.userinfo.partition(":")
    try:
        return BasicAuth(percent_decoded(name).decode(), percent_decoded(password).decode())
    except ValueError as exc:
        raise InvalidURL("its user name or password cannot be sent: no UTF-8, or a control character or colon") from exc


def parse_challenges(value: str) -> list[tuple[str, dict[str, str]]]:
    """Read WWW-Authenticate or Proxy-Authenticate (RFC 9110 11.6.1): schemes and their parameters, names in lower case.

    What stands behind something malformed is not read.  Takes time linear in the length, and never raises.
    """
    challenges: list[tuple[str, dict[str, str]]] = []
    position = 0
    while match := _SCHEME.match(value, position):
        parameters: dict[str, str] = {}
        challenges.append((match[1].lower(), parameters))
        position = match.end()
        if token := _TOKEN68.match(value, position):
            position = token.end()
            continue
        while parameter := _PARAMETER.match(value, position):
            position = parameter.end()
            text = parameter[3] if parameter[2] is None else re.sub(r"\\(.)", r"\1", parameter[2], flags=re.DOTALL)
            parameters.setdefault(parameter[1].lower(), text)
    return challenges


def _as_octets(text: str) -> str:
    """Return a text's UTF-8 as field values come: a character for each octet."""
    return text.encode().decode("latin-1")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _checked(what: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"{what} is a str, not {type(text).__name__}")
    if _CONTROL.search(text):
        raise ValueError(f"{what} has no control characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} has no lone surrogates") from None
    return text
