"""The certificate of this host, and the authorities of the others, for connections to parents.

Read before a process gives up its rights: only root reads them.
"""

import contextlib
import os
import ssl

from directdownload.download.errors import SourceError
from directdownload.resources import peers
from directdownload.resources.reasons import Reason

_preloaded: dict[str, ssl.SSLContext] = {}


def preload(directory: str) -> None:
    """Read them now; a failure is reported when they are needed."""
    with contextlib.suppress(SourceError):
        _preloaded[directory] = _read(directory)


def context(directory: str) -> ssl.SSLContext:
    """TLS 1.3 with the files of `directory`. Raises SourceError(PeersUnavailable)."""
    return _preloaded.get(directory) or _read(directory)


def _read(directory: str) -> ssl.SSLContext:
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # a certificate names a host of the cluster, not an address: `links` compares it
    found.check_hostname = False
    found.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        found.load_verify_locations(os.path.join(directory, peers.AUTHORITIES))
        found.load_cert_chain(os.path.join(directory, peers.CERTIFICATE), os.path.join(directory, peers.KEY))
    except (OSError, ssl.SSLError) as error:
        detail = error.strerror or str(error)
        message = f"the certificate of this host in {directory} cannot be used: {detail}; see the agent's log"
        raise SourceError(Reason.PEERS_UNAVAILABLE, message) from error
    return found
