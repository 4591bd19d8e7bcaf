"""One rule for URLs: a Template is Ready exactly if the download engine takes its URLs."""

from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from tests.unit.planning import build
from tests.unit.planning.build import NOW
from tests.world.admitted import EARLIER_URLS, URLS
from tests.world.soak import ROUNDS

from directdownload.download import sources
from directdownload.download.errors import RequestError
from directdownload.download.sources import SourceOptions
from directdownload.planning import deployments, rollouts, templates
from directdownload.resources.reasons import Reason
from directdownload.resources.zone import SourcePolicy, Timeouts

GOOD = "https://images.example.org/x.qcow2"
#: `directdownload fetch` with everything allowed
OPEN = SourceOptions(Timeouts(), SourcePolicy(nfs_exports=None, nfs_user=None, allowed_cidrs=("0.0.0.0/0", "::/0")))
_PIECES = st.sampled_from(
    [
        *(
            "http",
            "https://",
            "nfs://",
            "NFS",
            "://",
            "/",
            "//",
            "..",
            ".",
            "%2e",
            "%2F",
            "%",
            ":",
            ":0",
            ":80",
            "@",
            "?",
            "#",
        ),
        *(
            "a",
            "-",
            "_",
            "127",
            "0x",
            "[",
            "]",
            "[::1]",
            "h.example",
            "\u00df",
            "\u2100",
            "\u3002",
            "\\",
            " ",
            "\n",
            ";",
            "$(",
        ),
    ]
)
_TEXTS = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["http://", "https://h", "nfs://h/e/", "nfs://"]),
        st.text(max_size=20),
        st.text(max_size=20),
    ),
    st.lists(_PIECES, max_size=12).map("".join),
    st.sampled_from([*URLS, *EARLIER_URLS]),
)


def verdict(**spec: Any) -> tuple[Reason, str]:
    status = templates.plan_template(build.template(spec={"url": GOOD, **spec}), (), [], NOW)
    ready = status.condition("Ready")
    assert ready is not None
    assert (ready.status == "True") == (ready.reason is Reason.REGISTERED)
    return ready.reason, ready.message


def refusal(url: str) -> Reason | None:
    try:
        sources.create(url, OPEN)
    except RequestError as error:
        return error.reason
    return None


@hypothesis.settings(max_examples=300 * ROUNDS)
@hypothesis.given(_TEXTS)
def test_a_template_is_ready_exactly_if_the_engine_takes_its_urls(url: str) -> None:
    reason = refusal(url)
    assert (verdict(url=url)[0] is Reason.REGISTERED) == (reason is None)
    assert (verdict(mirrors=[GOOD, url])[0] is Reason.REGISTERED) == (reason is None)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nfs://h/export/../../etc/shadow", "its path has . or .. in it; for example nfs://"),
        ("nfs://-o/e/a", "'-o' is not a host name; for example https://"),
        ("nfs://h", "it names no file; for example nfs://"),
        ("https://h:99999/a", "its port is not a number from 1 to 65535; for example https://"),
        ("https://u:s3cret@h/a", "it holds credentials; give them by headersSecretRef of the Template"),
        ("https:///a", "expected a scheme and a host; for example https://"),
        ("http://images.example.org[::1]/a", "the text in brackets is not an IPv6 address"),
        ("http://[::1]images.example.org/a", "the text in brackets is not an IPv6 address"),
    ],
)
def test_a_url_that_can_never_work_makes_a_template_not_ready(url: str, problem: str) -> None:
    for field, spec in (("url", {"url": url}), ("mirrors[1]", {"mirrors": [GOOD, url]})):
        reason, message = verdict(**spec)
        assert reason is Reason.INVALID_URL
        assert message.startswith(f"spec.{field} is not a valid URL: {problem.partition(':')[0]}")
        assert problem in message
        assert "s3cret" not in message
    assert refusal(url) is Reason.INVALID_URL


def test_a_deployment_of_such_a_template_gets_no_copies_and_says_why() -> None:
    template = build.template(spec={"url": GOOD, "mirrors": ["nfs://h/e/../a"]})
    template = template.model_copy(update={"status": templates.plan_template(template, (), [], NOW)})
    fleet, wish = build.fleet([build.host("kvm-1")]), build.deployment()
    assert not deployments.plan_placements(template, [wish], fleet, {}).create
    ready = rollouts.plan_deployment(wish, template, fleet, {}, NOW).condition("Ready")
    assert ready is not None
    assert ready.reason is Reason.TEMPLATE_NOT_READY
    assert "spec.mirrors[0] is not a valid URL: its path has . or .. in it" in ready.message
    mended = build.template(spec={"url": GOOD})
    assert deployments.plan_placements(mended, [wish], fleet, {}).create
