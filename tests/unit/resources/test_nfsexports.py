"""NFS exports as people write them, by tables."""

import pytest

from directdownload.resources.nfsexports import EXAMPLE, NFSExport


@pytest.mark.parametrize(
    ("text", "host", "port", "path", "shown"),
    [
        (EXAMPLE, "nfs.example.org", 2049, "/export/templates", EXAMPLE),
        ("NFS.Example.ORG:/export//templates/", "nfs.example.org", 2049, "/export/templates", EXAMPLE),
        ("nas:/", "nas", 2049, "/", "nas:/"),
        ("nas:2049:/export", "nas", 2049, "/export", "nas:/export"),
        ("nas:2050:/export", "nas", 2050, "/export", "nas:2050:/export"),
        ("10.0.0.5:/a b/100%", "10.0.0.5", 2049, "/a b/100%", "10.0.0.5:/a b/100%"),
        ("[FD00:0::5]:/export", "fd00::5", 2049, "/export", "[fd00::5]:/export"),
        ("[fd00::5]:65535:/export/..hidden", "fd00::5", 65535, "/export/..hidden", "[fd00::5]:65535:/export/..hidden"),
        ("nas:/café:/x", "nas", 2049, "/café:/x", "nas:/café:/x"),
    ],
)
def test_exports_that_are(text: str, host: str, port: int, path: str, shown: str) -> None:
    export = NFSExport.parse(text)
    assert (export.host, export.port, export.path, str(export)) == (host, port, path, shown)
    assert NFSExport.parse(shown) == export


@pytest.mark.parametrize(
    "text",
    [
        *("", "nas", "/export", "nas/export", "nas:export", ":/export", "nfs://nas/export", "nas:/a\n", "nas:/a\x7f"),
        *("nas:/export/../other", "nas:/..", "nas:/./a", "nas:/a/.", "nas:0:/a", "nas:65536:/a", "nas:x:/a"),
        *("fd00::5:/export", "[nas]:/export", "[10.0.0.5]:/export", "[:::1]:/export", "[fe80::1%eth0]:/export"),
        *("*.example.org:/export", "user@nas:/export", "-nas:/export", "nas.:/export", "nfs example:/a"),
    ],
)
def test_exports_that_are_not(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a host and a directory .*for example nfs\.example\.org:/export"):
        NFSExport.parse(text)
