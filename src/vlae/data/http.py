"""Downloads a file over HTTP with the system's certificates and the environment's proxy.

Every fault becomes a Failure with a few words, which never contain a password or token.
"""

import os
import re
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from vlae.data.failure import BARRED, BROKEN, DOWN, MISSING, WRONG, Failure

if TYPE_CHECKING:
    import requests

CHUNK = 64 * 1024


class Receiver(Protocol):
    """Receives a body. `html` and `framed` (the server declares where it ends) are set before."""

    html: bool
    framed: bool

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""


def is_http(source: str) -> bool:
    """Return True if a source is an http or https URL."""
    return source.startswith(("http://", "https://"))


def shown(source: str) -> str:
    """Return a source as a message may show it: without user name, password and query.

    The query may be a token.
    """
    if "://" not in source:
        return source
    return re.sub(r"//[^/?#]*@", "//", re.sub(r"[?#].*", "", source))


def below(address: str, name: str) -> str:
    """Return the address of file `name` below `address`, which may have a query."""
    place, mark, query = address.partition("?")
    return f"{place.removesuffix('/')}/{name}{mark}{query}"


def receive(url: str, sink: Receiver, timeout: float) -> None:
    """Download an http(s) URL to `sink`. Raises Failure."""
    try:
        _receive(url, sink, timeout)
    except Failure as failure:
        raise Failure(failure.kind, f"{failure}{_through_proxy(url)}") from None


def slow(timeout: float) -> Failure:
    """Return the Failure of a server that sends nothing or too little."""
    return Failure(DOWN, f"silent or too slow, less than {CHUNK // 1024} KiB in {timeout:g} s")


def _receive(url: str, sink: Receiver, timeout: float) -> None:
    import requests
    import urllib3

    responses = []

    def take_undecoded(response: requests.Response, **_: object) -> None:
        # Some servers declare a .gz file as a compressed transfer of its content, which requests
        # would unpack. The sink needs the bytes of the file itself.
        responses.append(response)
        response.raw.headers.pop("Content-Encoding", None)
        headers = response.headers
        sink.html = headers.get("Content-Type", "").startswith("text/html")
        sink.framed = "Content-Length" in headers or "Transfer-Encoding" in headers
        if response.is_redirect:
            response.raw.close()  # the body is not needed, and may never end

    try:
        with _session() as session:
            session.hooks["response"].append(take_undecoded)
            answer = session.get(url, stream=True, timeout=timeout)
            answer.raise_for_status()
            for chunk in answer.iter_content(CHUNK):
                sink.write(chunk)
    except requests.HTTPError as error:
        raise _refusal(error.response.status_code) from None
    except requests.TooManyRedirects:
        raise Failure(WRONG, "redirects without end") from None
    except requests.exceptions.InvalidProxyURL:
        raise Failure(BARRED, "not a usable proxy") from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as error:
        if "SOCKS" in str(error):
            raise Failure(BARRED, "a SOCKS proxy, which is not supported") from None
        raise Failure(WRONG, "not a usable URL") from None
    except requests.Timeout:
        raise slow(timeout) from None
    except requests.exceptions.ChunkedEncodingError:
        raise Failure(BROKEN, "the connection broke off") from None
    # Headers that are invalid or contradict each other.
    except (ValueError, urllib3.exceptions.HTTPError) as error:
        raise Failure(WRONG, f"invalid answer ({type(error).__name__})") from None
    except OSError as error:  # the base class of requests' own errors
        raise _disconnection(error) from None
    finally:
        for response in responses:
            response.close()


def _session() -> "requests.Session":
    """Return a session that trusts the certificates of the system and those of requests.

    SSL_CERT_FILE and SSL_CERT_DIR replace the former, REQUESTS_CA_BUNDLE the latter.
    """
    import requests
    import truststore

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            options["ssl_context"] = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            super().init_poolmanager(*arguments, **options)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            options["ssl_context"] = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            return super().proxy_manager_for(proxy, **options)

    session = requests.Session()
    session.mount("https://", Adapter())
    session.headers["Accept-Encoding"] = "identity"
    return session


def _through_proxy(url: str) -> str:
    """Return the end of a message that names the proxy for `url` and the variable that sets it.

    Returns "" if there is no proxy.
    """
    from requests.utils import get_environ_proxies, select_proxy

    try:
        proxy = select_proxy(url, get_environ_proxies(url))
    except ValueError:  # not a valid address
        return ""
    if not proxy:
        return ""
    names = (f"{url.partition(':')[0]}_proxy", "all_proxy")
    spellings = [spelling for name in names for spelling in (name, name.upper())]
    variable = next((name for name in spellings if os.environ.get(name) == proxy), "the system")
    address = proxy if "://" in proxy else f"http://{proxy}"
    return f" (through the proxy {shown(address)} of {variable})"


def _refusal(status: int) -> Failure:
    try:
        reason = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        reason = f"HTTP {status}"
    # Object stores answer 403 for a missing file.
    if status in (403, 404, 410):
        return Failure(MISSING, reason)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Failure(BARRED, reason)
    return Failure(DOWN if status >= 500 or status in (408, 429) else WRONG, reason)


def _disconnection(error: OSError) -> Failure:
    """Return a Failure with the reason inside nested exceptions, such as "Connection refused"."""
    names = []
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ssl.SSLCertVerificationError):
            return Failure(
                BARRED,
                f"its certificate is not trusted ({at.verify_message}); SSL_CERT_FILE can name a "
                "file of trusted ones",
            )
        if isinstance(at, OSError) and str(at).startswith("Tunnel connection failed: "):
            answer = str(at).removeprefix("Tunnel connection failed: ")
            return Failure(DOWN if answer.startswith("5") else BARRED, f"HTTP {answer}")
        if isinstance(at, OSError) and at.strerror:
            return Failure(DOWN, at.strerror)
        names.append(type(at).__name__)
        # requests and urllib3 keep the inner exception as an argument or as `reason`.
        inner = [*at.args, getattr(at, "reason", None), at.__cause__]
        at = next((e for e in inner if isinstance(e, BaseException)), None)
    return Failure(DOWN, f"the connection failed ({names[-1]})")
