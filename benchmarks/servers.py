"""Origins for the benchmarks: a real nginx and a server that holds its connections open, both on loopback.

Both are context managers; they stop what they started, by process, and remove the folder they made.
"""

from __future__ import annotations

import os
import resource
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
CHUNK = 65536  # octets in one chunk of the chunked location
SMALL = 10240  # octets of the small file
HELD_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 1048576\r\n\r\n"
HELD_BODY = bytes(1024)

# One cipher suite, so that no client wins by having negotiated a cheaper one.  `/chunked/` reads the file in pieces of
# `output_buffers` and, because a subrequest follows the body, cannot know the length: each piece becomes one chunk.
NGINX_CONF = """\
{user}worker_processes 1; daemon off; pid {root}/nginx.pid; error_log {root}/error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; tcp_nopush on; default_type application/octet-stream; open_file_cache max=64;
  keepalive_requests 1000000; keepalive_timeout 600s; send_timeout 600s;
  client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
  uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp;
  server {{
    listen {host}:{port} backlog=4096; listen {host}:{tls_port} ssl backlog=4096;
    ssl_certificate {root}/cert.pem; ssl_certificate_key {root}/key.pem;
    ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
    root {root}/files;
    location /chunked/ {{
      alias {root}/files/; sendfile off; output_buffers 1 {chunk}; addition_types *; add_after_body /nothing;
    }}
    location = /nothing {{ internal; return 200 ""; }}
  }}
}}
"""


class Missing(Exception):
    """A program that the benchmark needs is not installed."""


class Nginx:
    """A private nginx serving `large.bin` (`size` octets) and `small.bin` (10 KiB) over http and https.

    `port` and `tls_port` are the free loopback ports it took, `ca_file` is what to trust.
    """

    def __init__(self, size: int, directory: str | None = None) -> None:
        self._size = size
        self._directory = directory

    def __enter__(self) -> Nginx:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None or shutil.which("openssl") is None:
            raise Missing("nginx and openssl are needed (Debian: apt-get install nginx-light openssl)")
        self.root = Path(tempfile.mkdtemp(prefix="rawdl-bench-", dir=self._directory))
        self.ca_file = str(self.root / "cert.pem")
        try:
            self._write_files()
            self._process = self._start(program)
        except BaseException:
            shutil.rmtree(self.root, ignore_errors=True)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        stop(self._process)
        shutil.rmtree(self.root, ignore_errors=True)

    def url(self, case: str, name: str = "large.bin") -> str:
        """Return the address of a file for a case: "http", "https" or "chunked"."""
        if case == "https":
            return f"https://{HOST}:{self.tls_port}/{name}"
        return f"http://{HOST}:{self.port}/{'chunked/' if case == 'chunked' else ''}{name}"

    def _write_files(self) -> None:
        (self.root / "files").mkdir()
        (self.root / "tmp").mkdir()
        write_random(self.root / "files" / "large.bin", self._size)
        write_random(self.root / "files" / "small.bin", SMALL)
        make_certificate(self.root)

    def _start(self, program: str) -> subprocess.Popen[bytes]:
        # A port found free may be taken before nginx binds it, hence a few attempts.
        for _ in range(5):
            self.port, self.tls_port = free_ports(2)
            user = "user root; " if os.geteuid() == 0 else ""  # workers must enter the 0700 folder
            conf = NGINX_CONF.format(
                user=user, root=self.root, host=HOST, port=self.port, tls_port=self.tls_port, chunk=CHUNK
            )
            (self.root / "nginx.conf").write_text(conf)
            log = str(self.root / "error.log")
            process = subprocess.Popen(
                [program, "-p", str(self.root), "-e", log, "-c", str(self.root / "nginx.conf")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if wait_for_port(self.tls_port, process):
                return process
            stop(process)
        raise Missing("nginx does not start: " + (self.root / "error.log").read_text(errors="replace")[-500:])


class HoldingOrigin:
    """A child process that answers every request with a head and 1 KiB of a longer body, and then waits."""

    def __enter__(self) -> HoldingOrigin:
        self._process = subprocess.Popen([sys.executable, __file__], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url = f"http://{HOST}:{int(self._process.stdout.readline())}/"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        stop(self._process)
        assert self._process.stdout is not None
        self._process.stdout.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that we started: SIGTERM, and SIGKILL if it has not gone after 5 s."""
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def write_random(path: Path, size: int) -> None:
    """Write `size` octets: one random MiB, over and over, so that no filesystem or client can take a short cut."""
    block = os.urandom(1 << 20)
    with path.open("wb", buffering=0) as file:
        for offset in range(0, size, len(block)):
            file.write(block[: size - offset])


def make_certificate(root: Path) -> None:
    """Make a self-signed P-256 certificate for the loopback address; it is its own authority."""
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=localhost"
    extensions = [f"subjectAltName=IP:{HOST},DNS:localhost", "keyUsage=critical,digitalSignature,keyCertSign"]
    added = [word for extension in extensions for word in ("-addext", extension)]
    files = ["-keyout", str(root / "key.pem"), "-out", str(root / "cert.pem")]
    subprocess.run([*command.split(), *added, *files], check=True, capture_output=True)


def free_ports(count: int) -> list[int]:
    """Return loopback ports that were free a moment ago."""
    sockets = [socket.create_server((HOST, 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Wait up to 5 s until somebody listens on the port; False if the process ended or nobody does."""
    for _ in range(100):
        if process.poll() is not None:
            return False
        try:
            socket.create_connection((HOST, port), 1).close()
            return True
        except OSError:
            time.sleep(0.05)
    return False


def hold() -> None:
    """Serve as the holding origin: print the port, then answer until terminated."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with socket.create_server((HOST, 0), backlog=4096) as listener, selectors.DefaultSelector() as selector:
        print(listener.getsockname()[1], flush=True)
        selector.register(listener, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    selector.register(listener.accept()[0], selectors.EVENT_READ)
                else:
                    answer_and_hold(key.fileobj, selector)  # type: ignore[arg-type]


def answer_and_hold(sock: socket.socket, selector: selectors.BaseSelector) -> None:
    """Answer one request (they fit into one segment here); close when the client has gone."""
    try:
        request = sock.recv(65536)
        if request:
            sock.sendall(HELD_HEAD + HELD_BODY)
            return
    except OSError:
        pass
    selector.unregister(sock)
    sock.close()


if __name__ == "__main__":
    hold()
