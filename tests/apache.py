"""A real Apache on free loopback ports: passwords, codings, and a forward proxy."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import trustme

from tests.servers import free_port, log_with, start, stop

USER, PASSWORD, REALM = "user", "secret: word", "a realm"
_MODULES = "mpm_event authn_core authn_file authz_core authz_user auth_basic auth_digest alias filter deflate"
_MODULES += " proxy proxy_http proxy_connect ssl"
_OPTIONAL = "unixd brotli"  # unixd is built in, in some
CONFIG = """
ServerRoot {folder}
ServerName 127.0.0.1
PidFile {folder}/pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
{modules}
{user}
LogFormat "%h %>s \\"%r\\" \\"%{{Authorization}}i\\" \\"%{{Proxy-Authorization}}i\\"" plain
ThreadsPerChild 25
StartServers 1
Listen 127.0.0.1:{http}
Listen 127.0.0.1:{proxy}
Listen 127.0.0.1:{locked}
Listen 127.0.0.1:{secure}
DocumentRoot {root}
CustomLog {folder}/access.log plain
<Directory {root}>
    Require all granted
</Directory>
Alias /digest {root}
<Location /digest>
    AuthType Digest
    AuthName "{realm}"
    AuthDigestProvider file
    AuthUserFile {folder}/digests
    Require valid-user
</Location>
Alias /basic {root}
<Location /basic>
    AuthType Basic
    AuthName "{realm}"
    AuthBasicProvider file
    AuthUserFile {folder}/passwords
    Require valid-user
</Location>
Alias /gzip {root}
<Location /gzip>
    SetOutputFilter DEFLATE
</Location>
<VirtualHost 127.0.0.1:{proxy}>
    CustomLog {folder}/proxy.log plain
    ProxyRequests On
    AllowCONNECT 1-65535
</VirtualHost>
<VirtualHost 127.0.0.1:{locked}>
    CustomLog {folder}/locked.log plain
    ProxyRequests On
    AllowCONNECT 1-65535
    <Proxy *>
        AuthType Basic
        AuthName "{realm}"
        AuthBasicProvider file
        AuthUserFile {folder}/passwords
        Require valid-user
    </Proxy>
</VirtualHost>
<VirtualHost 127.0.0.1:{secure}>
    SSLEngine on
    SSLCertificateFile {folder}/server.pem
    CustomLog {folder}/secure.log plain
    ProxyRequests On
    AllowCONNECT 1-65535
</VirtualHost>
"""


class Apache:
    """Serve `root` while the context lasts.

    Every file of it is at /NAME, at /digest/NAME and /basic/NAME for `USER`, and at /gzip/NAME with that coding.
    ``proxy`` is the URL of a forward proxy, ``locked`` that of one for `USER`, and ``secure`` that of one over TLS.
    """

    def __init__(self, program: str, ca: trustme.CA) -> None:
        self._program = program
        self._ca = ca

    @staticmethod
    def find() -> str | None:
        """Return the path of the program, None if there is none with all that is needed."""
        program = shutil.which("apache2", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin")
        return program if program and all(_module(name).exists() for name in _MODULES.split()) else None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            # Its workers have few rights, and the folders of pytest let nobody in.
            self._folder = Path(stack.enter_context(TemporaryDirectory(prefix="apache-")))
            self._folder.chmod(0o755)
            self.root = self._folder / "root"
            self.root.mkdir()
            ports = [free_port() for _ in range(4)]
            self.http, self.proxy, self.locked, secure = (f"http://127.0.0.1:{port}" for port in ports)
            self.secure = secure.replace("http:", "https:")
            self._write(*ports)
            command = [self._program, "-D", "FOREGROUND", "-f", str(self._folder / "conf")]
            stack.callback(stop, start(command, ports[0], (self._folder / "error.log").read_text))
            self._end = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.close()

    def log(self, name: str = "access", words: str = "", times: int = 1) -> str:
        """Return a log, `access`, `proxy`, `locked` or `secure`, as soon as it has these words so often."""
        return log_with(self._folder / f"{name}.log", words, times)

    def _write(self, http: int, proxy: int, locked: int, secure: int) -> None:
        certificate = self._ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem
        certificate.write_to_path(str(self._folder / "server.pem"))
        modules = [name for name in f"{_MODULES} {_OPTIONAL}".split() if _module(name).exists()]
        lines = "\n".join(f"LoadModule {name}_module {_module(name)}" for name in modules)
        user = "User nobody" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        names = {"folder": self._folder, "root": self.root, "realm": REALM, "modules": lines, "user": user}
        text = CONFIG.format(http=http, proxy=proxy, locked=locked, secure=secure, **names)
        (self._folder / "conf").write_text(text)
        hashed = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode()).hexdigest()
        (self._folder / "digests").write_text(f"{USER}:{REALM}:{hashed}\n")
        sha = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True)
        (self._folder / "passwords").write_text(f"{USER}:{sha.stdout.strip()}\n")


def _module(name: str) -> Path:
    return Path(f"/usr/lib/apache2/modules/mod_{name}.so")
