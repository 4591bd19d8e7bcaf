"""The settings that messages of the engine name, each by its field of the Zone or Template.

One table: a caller without a cluster replaces these texts by its own names (`cli/fetch`). Each has spaces, so that no
URL holds one.
"""

import enum


class Setting(enum.StrEnum):
    CONNECT_TIMEOUT = "timeouts.connect of the Zone"
    SOCKET_TIMEOUT = "timeouts.socket of the Zone"
    CONNECTION_REQUEST_TIMEOUT = "timeouts.connectionRequest of the Zone"
    MINIMUM_RATE = "downloads.minimumRate of the Zone"
    MAX_SIZE = "downloads.maxSize of the Zone"
    MAX_VIRTUAL_SIZE = "downloads.maxVirtualSize of the Zone"
    PROTOCOLS = "sourcePolicy.protocols of the Zone"
    ALLOWED_HOSTS = "sourcePolicy.allowedHosts of the Zone"
    ALLOWED_CIDRS = "sourcePolicy.allowedCIDRs of the Zone"
    NFS_EXPORTS = "sourcePolicy.nfsExports of the Zone"
    NFS_USER = "sourcePolicy.nfsUser of the Zone"
    MAX_REDIRECTS = "sourcePolicy.maxRedirects of the Zone"
    REQUIRE_CHECKSUM = "sourcePolicy.requireChecksum of the Zone"
    MINIMUM_CHECKSUM = "sourcePolicy.minimumChecksum of the Zone"
    CERTIFICATES = "a DirectDownloadCertificate of the Zone"
    HEADERS = "headersSecretRef of the Template"
    RESERVE = "reserve of the StoragePool"
