"""A real HTTP server on 127.0.0.1 whose every path can be made to misbehave. It may speak TLS, and
is a proxy as well: its paths are whole addresses then, or CONNECT."""

import contextlib
import ssl
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Serves `routes`, a dict of path to answer, and counts the requests in `asked`."""

    def __init__(self, certificate: Path | None = None):
        self.routes: dict[str, Answer] = {}
        self.asked: Counter[str] = Counter()
        self.stopping = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked[self.path] += 1
                # The client hangs up on some of these answers; that is what they are for.
                with contextlib.suppress(ConnectionError):
                    outer.routes.get(self.path, status(404))(self)

            def do_CONNECT(self):
                outer.asked["CONNECT"] += 1
                outer.routes.get("CONNECT", status(405))(self)

            def log_message(self, *args):
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *args):
                """Say nothing: clients that do not trust a certificate hang up."""

        self.http = Quiet(("127.0.0.1", 0), Handler)
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self.http.server_address[1]}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.stopping.set()
        self.http.shutdown()
        self.http.server_close()


def self_signed(path: Path) -> Path:
    """A key and a certificate of 127.0.0.1 that nobody has signed, in one file."""
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        f"-subj /CN=x -addext subjectAltName=IP:127.0.0.1 -keyout {path} -out {path}.crt".split(),
        check=True,
        capture_output=True,
    )
    certificate = path.with_name(f"{path.name}.crt")
    path.write_bytes(path.read_bytes() + certificate.read_bytes())
    return path


def body(content: bytes, code: int = 200, **headers: str) -> Answer:
    """The content, properly."""

    def answer(request):
        request.send_response(code)
        for key, value in {"Content_Length": str(len(content)), **headers}.items():
            request.send_header(key.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(content)

    return answer


def status(code: int) -> Answer:
    """An error, with a page about it."""
    return body(f"<html>{code}</html>".encode(), code, Content_Type="text/html")


def unmarked(content: bytes) -> Answer:
    """The content without a length: it ends where the connection does."""

    def answer(request):
        request.send_response(200)
        request.end_headers()
        request.wfile.write(content)

    return answer


def truncated(content: bytes) -> Answer:
    """Half of the content under the length of all of it."""
    return body(content[: len(content) // 2], Content_Length=str(len(content)))


def in_turn(*answers: Answer) -> Answer:
    """A different answer to each request; the last one from then on."""
    left = list(answers)

    def answer(request):
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


def redirect(to: str) -> Answer:
    return body(b"", 302, Location=to)


def endless(start: bytes = b"", piece: bytes = b"0 " * 32768, **headers: str) -> Answer:
    """A body that never ends."""

    def answer(request):
        request.send_response(int(headers.pop("code", 200)))
        for key, value in headers.items():
            request.send_header(key, value)
        request.end_headers()
        request.wfile.write(start)
        while True:
            request.wfile.write(piece)

    return answer


def trickle(content: bytes, wait: float) -> Answer:
    """The content at one byte a `wait`, each of which restarts a socket's timeout."""

    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        for byte in content:
            request.wfile.write(bytes([byte]))
            time.sleep(wait)

    return answer


def together(parties: int, proper: Answer) -> Answer:
    """The answer, but to nobody before so many have asked."""
    barrier = threading.Barrier(parties)

    def answer(request):
        barrier.wait(timeout=20)
        proper(request)

    return answer


def silent() -> Answer:
    """The connection is taken, and nothing follows."""
    return lambda request: time.sleep(5)


def raw(content: bytes) -> Answer:
    """Bytes that need not be HTTP at all."""
    return lambda request: request.wfile.write(content)
