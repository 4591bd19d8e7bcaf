"""Which NFS exports a source policy lets URLs name, by tables."""

import json
import pathlib
from typing import Any

import pytest
import yaml
from tests.unit.download.support import PATIENT, job_document, run_job

from directdownload.download import sources
from directdownload.download.errors import RequestError
from directdownload.download.sources import SourceOptions, policy
from directdownload.download.sources.exports import allowed_root
from directdownload.download.sources.urls import Url
from directdownload.resources.jobs import JobDocument
from directdownload.resources.nfsexports import NFSExport
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import NFSUser, SourcePolicy

URL = "nfs://nfs.example.org/export/templates/debian.qcow2"


@pytest.mark.parametrize(
    ("url", "exports", "root"),
    [
        (URL, ("nfs.example.org:/export/templates",), "/export/templates"),
        (URL, ("other.example.org:/export", "nfs.example.org:/export"), "/export"),
        (URL, ("nfs.example.org:/export", "nfs.example.org:/export/templates"), "/export/templates"),
        (URL, ("nfs.example.org:/",), "/"),
        (URL, None, "/"),
        (
            "nfs://NFS.Example.org.:2049//export//templates/x",
            ("nfs.example.ORG:/export/templates//",),
            "/export/templates",
        ),
        ("NFS://nfs.example.org/export/%74emplates/x", ("nfs.example.org:/export/templates",), "/export/templates"),
        ("nfs://nas/a%20b/c%C3%A9/x", ("nas:/a b/cé",), "/a b/cé"),
        ("nfs://nas:2050/export/x", ("nas:2050:/export",), "/export"),
        ("nfs://[fd00:0::5]/export/x", ("[FD00::5]:/export",), "/export"),
        ("nfs://bücher.example/export/x", ("xn--bcher-kva.example:/export",), "/export"),
    ],
)
def test_exports_that_are_allowed(url: str, exports: tuple[str, ...] | None, root: str) -> None:
    rules = SourcePolicy(nfs_exports=exports)
    policy.check_url(Url.parse(url), rules)
    assert allowed_root(Url.parse(url), rules) == root


@pytest.mark.parametrize(
    ("url", "exports", "line"),
    [
        (URL, (), "nfs.example.org:/export/templates"),
        (URL, ("nfs.example.org:/export/tem",), "nfs.example.org:/export/templates"),
        (URL, ("nfs.example.org:/export/templates/more",), "nfs.example.org:/export/templates"),
        # a file is not a directory
        (URL, ("nfs.example.org:/export/templates/debian.qcow2",), "nfs.example.org:/export/templates"),
        (URL, ("nfs.example.org:/Export",), "nfs.example.org:/export/templates"),
        (URL, ("fs.example.org:/export", "example.org:/export"), "nfs.example.org:/export/templates"),
        ("nfs://nas/export/other/x", ("nas:/export/templates",), "nas:/export/other"),
        ("nfs://nas/export/templates%20/x", ("nas:/export/templates",), "nas:/export/templates "),
        # encoded once is not encoded twice
        ("nfs://nas/export/%2574/x", ("nas:/export/t",), "nas:/export/%74"),
        ("nfs://nas:2050/export/x", ("nas:/export",), "nas:2050:/export"),
        ("nfs://nas/export/x", ("nas:2050:/export",), "nas:/export"),
        ("nfs://[fd00::5]/export/x", ("[fd00::6]:/export",), "[fd00::5]:/export"),
        ("nfs://nas/x", ("nas:/export",), "nas:/"),
        ('nfs://nas/a"b/x', (), 'nas:/a"b'),
    ],
)
def test_exports_that_are_refused(url: str, exports: tuple[str, ...], line: str) -> None:
    """The message has the line as YAML reads it; once added, it allows the URL."""
    with pytest.raises(RequestError) as caught:
        policy.check_url(Url.parse(url), SourcePolicy(nfs_exports=exports))
    message = caught.value.message
    assert caught.value.reason is Reason.URL_NOT_ALLOWED
    assert message.startswith(f"{url}: ")
    assert "sourcePolicy.nfsExports of the Zone" in message
    assert message.endswith(f"; allowed so far: {', '.join(exports) or 'none'}")
    added = message.partition(" the line ")[2].rpartition("; allowed so far")[0]
    assert yaml.safe_load(added) == [line]
    policy.check_url(Url.parse(url), SourcePolicy(nfs_exports=(*exports, line)))


@pytest.mark.parametrize(
    "path",
    [
        *("export/templates/../other/x", "export/templates/%2e%2e/other/x", "export/templates/%2E./other/x"),
        *(
            "export/templates%2F..%2Fother/x",
            "export/./templates/x",
            "export/templates/x/..",
            "..",
            "export/templates/",
        ),
        *("export/templates/a%5C..%5Cb", "export/templates/a%00b"),
    ],
)
def test_no_spelling_of_a_path_escapes(path: str) -> None:
    with pytest.raises(RequestError) as caught:
        policy.check_url(Url.parse(f"nfs://nas/{path}"), SourcePolicy(nfs_exports=("nas:/export/templates",)))
    assert caught.value.reason is Reason.INVALID_URL


def test_an_entry_that_is_no_export_allows_nothing() -> None:
    with pytest.raises(RequestError, match=r"nfsExports of the Zone: 'nas' is not an NFS export") as caught:
        policy.check_url(Url.parse(URL), SourcePolicy(nfs_exports=("nfs.example.org:/export", "nas")))
    assert caught.value.reason is Reason.URL_NOT_ALLOWED


def test_redirects_to_nfs_are_judged_as_well() -> None:
    before = Url.parse("http://images.example.org/x")
    policy.check_redirect(before, Url.parse(URL), SourcePolicy(nfs_exports=("nfs.example.org:/export",)))
    with pytest.raises(RequestError, match="nfsExports"):
        policy.check_redirect(before, Url.parse(URL), SourcePolicy())


def test_the_other_rules_hold_beside_it() -> None:
    allowed = {"nfs_exports": ("nfs.example.org:/export", "127.0.0.1:/export")}
    for url, rules, told in (
        (URL, SourcePolicy(**allowed, protocols=("HTTPS",)), "sourcePolicy.protocols"),
        (URL, SourcePolicy(**allowed, allowed_hosts=("images.example.org",)), "sourcePolicy.allowedHosts"),
        ("nfs://127.0.0.1/export/x", SourcePolicy(**allowed), "sourcePolicy.allowedCIDRs"),
    ):
        with pytest.raises(RequestError, match=told):
            sources.create(url, SourceOptions(PATIENT, rules))


def test_a_probe_says_the_same(tmp_path: pathlib.Path) -> None:
    """SourceReachable of the Template shows it before anybody deploys."""
    url = "nfs://127.0.0.1/export/x"
    document = {"verb": "probe", "templateUid": "uid-1", "host": "kvm-1", "url": url, "format": "RAW"}
    status, result = run_job({**document, "policy": {"nfsExports": ["127.0.0.1:/other"]}})
    assert (status, result.reason) == (3, Reason.URL_NOT_ALLOWED)
    assert "127.0.0.1 is 127.0.0.1 (loopback address)" in result.message
    status, result = run_job(
        {**document, "policy": {"nfsExports": ["127.0.0.1:/other"], "allowedCIDRs": ["127.0.0.0/8"]}}
    )
    assert (status, result.reason) == (3, Reason.URL_NOT_ALLOWED)
    assert NFSExport.parse("127.0.0.1:/export").quoted() in result.message


@pytest.mark.parametrize("mirror", [False, True])
def test_a_job_document_without_the_field_allows_no_nfs(tmp_path: pathlib.Path, mirror: bool) -> None:
    """As a controller from before writes it: without exports, and without a user."""
    url = "nfs://127.0.0.1/export/x"
    places: dict[str, Any] = {"url": "http://127.0.0.1:9/none", "mirrors": [url]} if mirror else {"url": url}
    document = job_document(tmp_path / "pool", **places)
    assert "nfs" not in json.dumps(document["policy"])
    assert JobDocument.model_validate(document).policy.nfs_user == NFSUser(uid=65534, gid=65534)
    status, result = run_job(document)
    if mirror:
        assert (status, result.reason) == (1, Reason.SOURCE_UNREACHABLE)
    else:
        assert (status, result.reason) == (3, Reason.URL_NOT_ALLOWED)
        assert NFSExport.parse("127.0.0.1:/export").quoted() in result.message
