"""What lies between here and a server: certificates, proxies, addresses with a token."""

import hashlib
import shutil
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest

from http_server import Server, body, redirect, self_signed, status
from vlae.data.fetch import fetch
from vlae.data.formats.amat import write_amat
from vlae.errors import VlaeError

COUNTS = {"train": 3, "valid": 2, "test": 2}
TOKEN = "sig=c2VjcmV0%2Bsecret"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def files(tmp_path) -> dict[str, bytes]:
    """The content of a small data set by the names of its files."""
    contents = {}
    for split, count in COUNTS.items():
        images = np.random.default_rng(count).integers(0, 2, (count, 28, 28), np.uint8)
        write_amat(tmp_path / "file", images)
        contents[f"tiny/{split}.amat"] = (tmp_path / "file").read_bytes()
    return contents


def block(files: dict[str, bytes], address: str) -> dict:
    """Its block of `datasets:`, with the files below an address, which may have a query."""
    place, mark, query = address.partition("?")
    return {
        "kind": "binary",
        "binarization": "fixed",
        "format": "amat",
        "splits": COUNTS,
        "files": {
            Path(path).stem: {
                "path": path,
                "sha256": hashlib.sha256(content).hexdigest(),
                "bytes": len(content),
                "urls": [f"{place}/{path}{mark}{query}"] if address else [],
            }
            for path, content in files.items()
        },
    }


def get(spec: dict, root: Path, mirror: str | None = None, **limits) -> Path:
    return fetch("tiny", spec, root, mirror, **{"timeout": 5.0, "tries": 2, "pause": 0.0} | limits)


def refused(spec: dict, root: Path, mirror: str | None = None) -> str:
    with pytest.raises(VlaeError) as caught:
        get(spec, root, mirror)
    return str(caught.value)


# Certificates


@pytest.fixture
def tls(tmp_path, files):
    """A server that shows a certificate of its own, and the file of that certificate."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    key = self_signed(tmp_path / "key.pem")
    with Server(key) as server:
        server.routes = {f"/{path}": body(content) for path, content in files.items()}
        yield server, Path(f"{key}.crt")


@pytest.mark.parametrize("way", ["mirror", "origin"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_of_ones_own(tls, files, tmp_path, monkeypatch, variable, way):
    server, certificate = tls
    monkeypatch.setenv(variable, str(certificate))
    if way == "mirror":
        assert get(block(files, ""), tmp_path, server.url).exists()
    else:
        assert get(block(files, server.url), tmp_path).exists()


def test_the_certificates_of_a_folder(tls, files, tmp_path, monkeypatch):
    server, certificate = tls
    folder = tmp_path / "certificates"
    folder.mkdir()
    # OpenSSL finds them by a hash of their names.
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    shutil.copy(certificate, folder / f"{name}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    assert get(block(files, server.url), tmp_path).exists()


def test_an_unknown_certificate_is_refused_at_once_in_one_line(tls, files, tmp_path):
    server, _ = tls
    line = refused(block(files, server.url), tmp_path)
    assert (
        "its certificate is not trusted (self-signed certificate); SSL_CERT_FILE can name" in line
    )
    assert not server.asked and "\n" not in line


# Proxies


@pytest.fixture
def proxy():
    with Server() as server:
        yield server


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(("code", "asked"), [(403, 1), (407, 1), (502, 2)])
def test_a_proxy_that_refuses(files, tmp_path, monkeypatch, proxy, variable, code, asked):
    """It is named with its variable, without its password."""
    proxy.routes["CONNECT"] = status(code)
    monkeypatch.setenv(variable, proxy.url.replace("//", "//user:p@ss@"))
    line = refused(block(files, "https://data.invalid"), tmp_path)
    assert f": HTTP {code} " in line
    assert f" (through the proxy {proxy.url} of {variable})" in line
    assert "p@ss" not in line and "ss@" not in line and "\n" not in line
    assert proxy.asked == {"CONNECT": asked}


@pytest.mark.parametrize("code", [403, 407])
def test_a_proxy_that_refuses_without_a_tunnel(files, tmp_path, monkeypatch, proxy, code):
    address = "http://data.invalid"
    proxy.routes = {f"{address}/{path}": status(code) for path in files}
    monkeypatch.setenv("http_proxy", proxy.url)
    line = refused(block(files, address), tmp_path)
    assert f": HTTP {code} " in line and f"(through the proxy {proxy.url} of http_proxy)" in line


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("form", ["http://{}", "{}"])
def test_a_proxy_that_is_not_there(files, tmp_path, monkeypatch, scheme, form):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setenv(f"{scheme}_proxy", form.format(dead))
    line = refused(block(files, f"{scheme}://data.invalid"), tmp_path)
    assert f": Connection refused (through the proxy http://{dead} of {scheme}_proxy)" in line


def test_a_proxy_of_an_unknown_kind(files, tmp_path, monkeypatch):
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    line = refused(block(files, "https://data.invalid"), tmp_path)
    assert "a SOCKS proxy, which is not supported (through the proxy socks5://127.0.0.1:9" in line


def test_a_proxy_that_works(files, tmp_path, monkeypatch, proxy):
    address = "http://data.invalid"
    proxy.routes = {f"{address}/{path}": body(content) for path, content in files.items()}
    monkeypatch.setenv("http_proxy", proxy.url)
    assert get(block(files, address), tmp_path).exists()


# Addresses with a token


@pytest.fixture
def signed(files):
    """A server that gives what it has to those with the token."""
    with Server() as server:
        server.routes = {f"/{path}?{TOKEN}": body(content) for path, content in files.items()}
        yield server


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_signed_mirror(files, tmp_path, signed, slash):
    assert get(block(files, ""), tmp_path, f"{signed.url}{slash}?{TOKEN}").exists()


def test_a_signed_origin(files, tmp_path, signed):
    assert get(block(files, f"{signed.url}?{TOKEN}"), tmp_path).exists()


def test_a_token_from_the_environment(files, tmp_path, signed, monkeypatch):
    """So that it is neither in params.yaml nor in dvc.lock."""
    monkeypatch.setenv("OUR_TOKEN", TOKEN)
    assert get(block(files, f"{signed.url}?$OUR_TOKEN"), tmp_path).exists()


@pytest.mark.parametrize(
    "answer", [status(401), status(403), status(404), status(500), body(b"x")]
)
def test_a_token_is_never_told(files, tmp_path, signed, capfd, answer):
    for path in files:
        signed.routes[f"/{path}?{TOKEN}"] = answer
    address = f"{signed.url}?{TOKEN}"
    said = refused(block(files, address), tmp_path, address) + "".join(capfd.readouterr())
    assert signed.url in said and "sig" not in said and "ecret" not in said
    signed.routes |= {f"/{path}?{TOKEN}": redirect(f"ftp://x/?{TOKEN}") for path in files}
    said = refused(block(files, address), tmp_path, address) + "".join(capfd.readouterr())
    assert "sig" not in said and "ecret" not in said


def test_a_wrong_mirror_with_a_token(files, tmp_path):
    line = refused(block(files, ""), tmp_path, f"s3://bucket/x?{TOKEN}")
    assert "sig" not in line and "VLAE_DATA_MIRROR=s3://bucket/x is neither" in line
