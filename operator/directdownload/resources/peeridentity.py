"""The parts of a Host's status by which hosts get certificates for reading from each other."""

from typing import Annotated

import pydantic

from directdownload.resources.base import Model, Time, rules

#: Characters of one request, of one certificate, and of a bundle of two authorities, as PEM.
REQUEST_PEM_LENGTH, CERTIFICATE_PEM_LENGTH, BUNDLE_PEM_LENGTH = 2048, 4096, 8192
#: Characters of an Ed25519 public key, as base64 of its 32 bytes.
PUBLIC_KEY_LENGTH = 44


class PeerRequest(Model):
    """The agent's request for certificates. The private keys stay on the host."""

    csr: str = pydantic.Field(
        max_length=REQUEST_PEM_LENGTH, description="Certificate signing request of the host's server, as PEM."
    )
    client_csr: str = pydantic.Field(
        max_length=REQUEST_PEM_LENGTH,
        alias="clientCSR",
        description="Certificate signing request of the host's downloads, as PEM.",
    )
    signing_key: str = pydantic.Field(
        max_length=PUBLIC_KEY_LENGTH,
        description="Ed25519 public key by which the host's server signs pieces, as base64.",
    )


class PeerIdentity(Model):
    """The controller's answer to `peerRequest`: what shows other hosts who this one is."""

    server_certificate: str = pydantic.Field(
        max_length=CERTIFICATE_PEM_LENGTH, description="Certificate of the host's server, as PEM."
    )
    client_certificate: str = pydantic.Field(
        max_length=CERTIFICATE_PEM_LENGTH, description="Certificate of the host's downloads, as PEM."
    )
    bundle: str = pydantic.Field(
        max_length=BUNDLE_PEM_LENGTH, description="The one or two authorities that hosts believe, as PEM."
    )
    keys: tuple[Annotated[str, pydantic.Field(max_length=PUBLIC_KEY_LENGTH)], ...] = pydantic.Field(
        max_length=2,
        description="The one or two Ed25519 public keys by which the controller signs grants, as base64.",
    )
    not_after: Time = pydantic.Field(description="When the certificates expire; new ones come long before.")
    trust_domain: str = pydantic.Field(max_length=253, description="Domain of the names in the certificates.")
    port: int = pydantic.Field(
        description="TCP port of the servers.", json_schema_extra=rules(minimum=1, maximum=65535)
    )
