"""What a zone's policy has against the sources of a Template, before any job is made."""

import pathlib
import threading
from typing import Any

import pytest
from tests.unit.planning import build

from directdownload import sourcing
from directdownload.download import engine
from directdownload.download.errors import RequestError
from directdownload.download.request import FetchRequest
from directdownload.download.store.place import Place
from directdownload.planning.conditions import Verdict
from directdownload.resources.jobs import Limits
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy

URL = "https://images.example.org/x.qcow2"
NFS_URL = "nfs://nfs.example.org/export/templates/x.qcow2"


def judged(policy: dict[str, Any], **spec: Any) -> tuple[list[sourcing.Source], Verdict | None]:
    return sourcing.judged(build.template(spec={"url": URL, **spec}), SourcePolicy.model_validate(policy))


@pytest.mark.parametrize(
    ("policy", "spec", "reason"),
    [
        ({}, {}, None),
        ({"protocols": ["HTTP"]}, {}, Reason.URL_NOT_ALLOWED),
        ({"protocols": ["HTTP"]}, {"mirrors": ["http://images.example.org/x.qcow2"]}, None),
        ({"allowedHosts": ["*.example.com"]}, {}, Reason.URL_NOT_ALLOWED),
        ({"allowedHosts": ["*.example.org"]}, {}, None),
        ({}, {"url": "http://169.254.169.254/x"}, Reason.URL_NOT_ALLOWED),
        ({}, {"url": NFS_URL}, Reason.URL_NOT_ALLOWED),
        ({"nfsExports": ["nfs.example.org:/export/tem"]}, {"url": NFS_URL}, Reason.URL_NOT_ALLOWED),
        ({"nfsExports": ["nfs.example.org:/export/templates"]}, {"url": NFS_URL}, None),
        ({}, {"mirrors": [NFS_URL]}, None),
        ({}, {"url": "nfs://nfs.example.org/export/../x"}, Reason.INVALID_URL),
        ({"requireChecksum": True}, {}, Reason.CHECKSUM_REQUIRED),
        ({"minimumChecksum": "SHA-256"}, {"checksum": "0" * 32}, Reason.CHECKSUM_TOO_WEAK),
        ({"minimumChecksum": "SHA-256"}, {"checksum": "sha256:" + "0" * 64}, None),
        ({"requireChecksum": True, "protocols": ["HTTP"]}, {}, Reason.CHECKSUM_REQUIRED),
    ],
)
def test_the_engines_policy_judges_in_the_words_of_the_job(
    policy: dict[str, Any], spec: dict[str, Any], reason: Reason | None, tmp_path: pathlib.Path
) -> None:
    """A job that would not fail for good by it is not started here: it would ask a source."""
    template, zone = build.template(spec={"url": URL, **spec}), build.zone(spec={"sourcePolicy": policy})
    problem = sourcing.refusal(template, zone)
    if reason is None:
        assert problem is None
        return
    request = FetchRequest(
        url=template.spec.url,
        place=Place.beside(str(tmp_path / "x")),
        mirrors=template.spec.mirrors,
        timeouts=zone.spec.timeouts,
        limits=Limits(),
        checksum=template.spec.checksum or "",
        policy=zone.spec.source_policy,
    )
    with pytest.raises(RequestError) as failed:
        engine.fetch(request, stop=threading.Event())
    assert problem == Verdict(False, reason, failed.value.message, stalled=True)


def test_sources_are_shown_without_secrets() -> None:
    url = "https://ann:geheim@images.example.org/x.meta4?token=geheim"
    sources, _ = judged({}, url="https://images.example.org/x.meta4?token=geheim", mirrors=[url])
    assert "geheim" not in str(sources)
    assert [(s.url, s.protocol, s.metalink, bool(s.problem)) for s in sources] == [
        ("https://images.example.org/x.meta4", "HTTPS", True, False),
        ("https://images.example.org/x.meta4", "HTTPS", False, True),
    ]


def test_a_refused_nfs_export_is_named_with_the_line_to_add() -> None:
    sources, problem = judged({}, mirrors=[NFS_URL])
    assert problem is None
    assert [bool(source.problem) for source in sources] == [False, True]
    assert 'nfsExports of the Zone the line - "nfs.example.org:/export/templates"' in sources[1].problem
