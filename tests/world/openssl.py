"""A real `openssl s_server`, for settings of TLS that nginx and Python's server do not have."""

import contextlib
import pathlib
import socket
import subprocess
from collections.abc import Iterator

from tests.world.certificates import Certificate
from tests.world.origin import free_port
from tests.world.waiting import until_started


@contextlib.contextmanager
def serving(certificate: Certificate, directory: pathlib.Path, *options: str) -> Iterator[str]:
    """The URL of a page of the server, which presents `certificate`."""
    both = directory / "s_server.pem"
    both.write_bytes(certificate.pem + certificate.key_pem)
    port = free_port()
    log = directory / "s_server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", str(both), "-www", *options],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        until_started(process, answers, lambda: f"s_server did not start: {log.read_text()}")
        yield f"https://127.0.0.1:{port}/image"
    finally:
        process.kill()
        process.wait()
