"""A real nginx on free loopback ports, as an independent judge of what HTTP is."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Self

import trustme

from tests.servers import free_port, log_with, start, stop

CONFIG = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/temp; proxy_temp_path {folder}/temp; fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp; scgi_temp_path {folder}/temp;
    default_type application/octet-stream;
    sendfile on;
    keepalive_timeout 60s;
    server {{
        listen 127.0.0.1:{http};
        listen 127.0.0.1:{https} ssl;
        listen unix:{folder}/socket;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        root {root};
        location / {{ }}
        location /slow/ {{ alias {root}/; limit_rate 200k; }}
        location /gzip/ {{ alias {root}/; gzip on; gzip_types *; gzip_min_length 1; }}
        location /redirect/ {{ rewrite ^/redirect(/.*)$ $1 redirect; }}
        {chunked}
    }}
    server {{
        listen 127.0.0.1:{strict} ssl;
        ssl_certificate {folder}/server.pem;
        ssl_certificate_key {folder}/server.pem;
        ssl_client_certificate {folder}/ca.pem;
        ssl_verify_client on;
        root {root};
        add_header X-Client $ssl_client_s_dn;
    }}
}}
"""
# Substitution may change the length, so nginx drops it and sends chunks; a text that no file holds leaves them alone.
CHUNKED = """location /chunked/ {{ alias {root}/; sub_filter_types *; sub_filter "{never}" "{never}"; }}"""


class Nginx:
    """Serve `root` while the context lasts.

    Every file of it is at /NAME, at /slow/NAME with 200 kB/s, at /redirect/NAME by a 302, at /gzip/NAME coded for who
    accepts that, and, where `has_chunked` is true, at /chunked/NAME with chunked framing: over http, https and the Unix
    `socket`.  Over `strict`, it is at /NAME for who has a certificate.
    """

    def __init__(self, program: str, folder: Path, ca: trustme.CA) -> None:
        self._program, self._folder = program, folder
        self.root, self.ca_file, self.socket = folder / "root", folder / "ca.pem", folder / "socket"
        for path in (self.root, folder / "temp"):
            path.mkdir()
        ca.cert_pem.write_to_path(str(self.ca_file))
        ca.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
        version = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
        self.has_chunked = "http_sub_module" in version

    @staticmethod
    def find() -> str | None:
        """Return the path of the program, None if there is none."""
        return shutil.which("nginx", path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin:/usr/local/sbin")

    def __enter__(self) -> Self:
        http, https, strict = free_port(), free_port(), free_port()
        self.http, self.https = f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}"
        self.strict = f"https://127.0.0.1:{strict}"
        config = self._folder / "nginx.conf"
        config.write_text(self._config(http=http, https=https, strict=strict))
        command = [self._program, "-p", str(self._folder), "-e", str(self._folder / "error.log"), "-c", str(config)]
        self._process = start(command, http, (self._folder / "error.log").read_text)
        return self

    def __exit__(self, *exc_info: object) -> None:
        stop(self._process)

    def log(self, words: str = "") -> str:
        """Return the access log, as soon as it has these words."""
        return log_with(self._folder / "access.log", words)

    def _config(self, **ports: int) -> str:
        never = os.urandom(16).hex()
        chunked = CHUNKED.format(root=self.root, never=never) if self.has_chunked else ""
        # As root, the worker would give up its rights, and with them the way into a private temporary folder.
        user = "user root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""
        return CONFIG.format(folder=self._folder, root=self.root, user=user, chunked=chunked, **ports)
