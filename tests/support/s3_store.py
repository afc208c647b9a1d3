"""A store with S3's interface on this machine, as a DVC remote."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import requests

NUMBERS = itertools.count()

# The store asks for a signature and does not check whose it is.
SIGNED = {
    "Authorization": "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, "
    "SignedHeaders=host, Signature=x"
}
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "x",
    "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "NO_PROXY": "*",
}


@contextmanager
def store() -> Iterator[str]:
    """The address of an empty bucket in a server of S3's interface."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        # Of a name of its own: all such servers in one process have the same buckets.
        address = f"http://{host}:{port}/bucket{next(NUMBERS)}"
        requests.put(address, timeout=30).raise_for_status()
        yield address
    finally:
        server.stop()


def config(address: str, verify: bool = True) -> str:
    """The lines of docs/sharing.md in .dvc/config.local, with times that suit a test."""
    server, _, name = address.rpartition("/")
    return (
        f"[core]\n    remote = s3\n['remote \"s3\"']\n    url = s3://{name}/vlae\n"
        f"    endpointurl = {server}\n    verify = {str(verify).lower()}\n"
        "    connect_timeout = 2\n    read_timeout = 2\n"
    )
