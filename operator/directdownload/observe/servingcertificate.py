"""The certificate of a TLS server of ours: files that somebody mounts and replaces, or a self-signed one.

Used by `scraping`. `context` stays the same object: a certificate that `refresh` loads counts for the next connection.
"""

import asyncio
import datetime
import logging
import os
import pathlib
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

logger = logging.getLogger(__name__)

#: The kubelet brings a changed Secret within about a minute, so a shorter time gains nothing.
POLL_SECONDS = 10.0
_LIFE = datetime.timedelta(days=365)
_LARGEST_BYTES = 1 << 20


class ServingCertificate:
    """`directory` holds `tls.crt` (with its chain) and `tls.key`, as a Secret of type kubernetes.io/tls is mounted.

    Without one the certificate is self-signed, exists in memory only, and is made anew in the middle of its year.
    """

    def __init__(self, directory: pathlib.Path | None) -> None:
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._directory = directory
        self._loaded: tuple[bytes, bytes] | None = None
        self._renewal: datetime.datetime | None = None

    def refresh(self, now: datetime.datetime | None = None) -> bool:
        """Loads changed files; True if any had changed. On OSError (ssl.SSLError is one) the earlier pair stays."""
        now = now or datetime.datetime.now(datetime.UTC)
        if self._directory is not None:
            pair = (_read(self._directory / "tls.crt"), _read(self._directory / "tls.key"))
            if pair == self._loaded:
                return False
        elif self._renewal is not None and now < self._renewal:
            return False
        else:
            pair = _self_signed(now)
        _load(self.context, *pair)
        self._loaded, self._renewal = pair, now + _LIFE / 2
        return True

    async def follow(self) -> None:
        """Refreshes until cancelled. An unusable pair is reported once; the earlier one stays in use."""
        complaint = ""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                if await asyncio.to_thread(self.refresh):
                    logger.info("The certificate for metrics was replaced")
                complaint = ""
            except OSError as error:
                # Not a pair, as it was half replaced: the next look may find one.
                if str(error) != complaint:
                    complaint = str(error)
                    logger.warning("The certificate for metrics cannot be replaced: %s", error)


def _read(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST_BYTES)


def _load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """The library reads files only: this one has no name and exists in memory."""
    # Tried on another context first: a pair that does not fit must leave the loaded one in place.
    probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    descriptor = os.memfd_create("serving-certificate", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        path = f"/proc/self/fd/{descriptor}"
        for each in (probe, context):
            # Without a password OpenSSL would ask the terminal for that of an encrypted key.
            each.load_cert_chain(path, password="")


def _self_signed(now: datetime.datetime) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "direct-download-operator")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks differ.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("direct-download-operator")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem), private
