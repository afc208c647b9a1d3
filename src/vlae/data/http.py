"""A file over HTTP: trusted as the system trusts, through the proxy that the environment names.

Whatever goes wrong on the way is a Failure of a few words. Neither a password nor a token of an
address is ever in one.
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
    """What a body is sent to: `html` and `framed` (its end is marked) are set before."""

    html: bool
    framed: bool

    def write(self, chunk: bytes) -> None:
        """Take the next bytes."""


def is_http(source: str) -> bool:
    """Return True if a source is asked over the network."""
    return source.startswith(("http://", "https://"))


def shown(source: str) -> str:
    """A source as it may be shown: without user name and password, and without a query, which may
    be a token."""
    if "://" not in source:
        return source
    return re.sub(r"//[^/?#]*@", "//", re.sub(r"[?#].*", "", source))


def below(address: str, name: str) -> str:
    """The address of a file below an address, which may have a query."""
    place, mark, query = address.partition("?")
    return f"{place.removesuffix('/')}/{name}{mark}{query}"


def receive(url: str, sink: Receiver, timeout: float) -> None:
    """Send what an http(s) URL serves to `sink`."""
    try:
        _receive(url, sink, timeout)
    except Failure as failure:
        raise Failure(failure.kind, f"{failure}{_through_proxy(url)}") from None


def slow(timeout: float) -> Failure:
    """Return the failure of a server that sends nothing, or too little."""
    return Failure(DOWN, f"silent or too slow, less than {CHUNK // 1024} KiB in {timeout:g} s")


def _receive(url: str, sink: Receiver, timeout: float) -> None:
    import requests
    import urllib3

    responses = []

    def take_undecoded(response: requests.Response, **_: object) -> None:
        # Some servers declare a .gz file as a gzipped transfer of its content, and it would be
        # unpacked on the way: what counts are the bytes themselves, and the sink unpacks.
        responses.append(response)
        response.raw.headers.pop("Content-Encoding", None)
        headers = response.headers
        sink.html = headers.get("Content-Type", "").startswith("text/html")
        sink.framed = "Content-Length" in headers or "Transfer-Encoding" in headers
        if response.is_redirect:
            response.raw.close()  # its body is of no use, and might not end

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
    # Headers that contradict themselves, or are not what they should be.
    except (ValueError, urllib3.exceptions.HTTPError) as error:
        raise Failure(WRONG, f"no proper answer ({type(error).__name__})") from None
    except OSError as error:  # requests' own errors are of this kind
        raise _disconnection(error) from None
    finally:
        for response in responses:
            response.close()


def _session() -> "requests.Session":
    """A session that trusts the system's certificates (SSL_CERT_FILE and SSL_CERT_DIR name others)
    beside those that requests trusts (REQUESTS_CA_BUNDLE names others)."""
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
    """Name the proxy that a request to `url` goes through, and the variable that says so, for the
    end of a message; empty if there is none."""
    from requests.utils import get_environ_proxies, select_proxy

    try:
        proxy = select_proxy(url, get_environ_proxies(url))
    except ValueError:  # an address that is none
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
    # Stores of files answer 403 for what they do not have.
    if status in (403, 404, 410):
        return Failure(MISSING, reason)
    if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return Failure(BARRED, reason)
    return Failure(DOWN if status >= 500 or status in (408, 429) else WRONG, reason)


def _disconnection(error: OSError) -> Failure:
    """A failure such as "Connection refused", from the depth of the exception of a connection."""
    names = []
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, ssl.SSLCertVerificationError):
            return Failure(
                BARRED,
                f"its certificate is not trusted ({at.verify_message}); SSL_CERT_FILE names a "
                "file of those that are",
            )
        if isinstance(at, OSError) and str(at).startswith("Tunnel connection failed: "):
            answer = str(at).removeprefix("Tunnel connection failed: ")
            return Failure(DOWN if answer.startswith("5") else BARRED, f"HTTP {answer}")
        if isinstance(at, OSError) and at.strerror:
            return Failure(DOWN, at.strerror)
        names.append(type(at).__name__)
        # requests and urllib3 hand on what happened as an argument or as `reason`.
        inner = [*at.args, getattr(at, "reason", None), at.__cause__]
        at = next((e for e in inner if isinstance(e, BaseException)), None)
    return Failure(DOWN, f"the connection failed ({names[-1]})")
