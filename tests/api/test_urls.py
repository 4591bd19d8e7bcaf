"""The rule for URLs of a Template at the API server: what CEL refuses nobody takes, and what is there stays."""

import copy
import itertools
from collections.abc import Iterator

import pytest
from tests.world import kube
from tests.world.admitted import EARLIER_URLS, URLS
from tests.world.kube import Answer, Kube, Object
from tests.world.samples import MINIMAL, NAMESPACE, URL
from tests.world.waiting import until

from directdownload.cluster.kinds import TEMPLATES
from directdownload.resources import crd, urls
from directdownload.resources.template import Template

_DEFINITION = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/templates.directdownload.dev"
#: The rules of 0.1.0.
_EARLIER_RULES = ("matches('^(?i:https?|nfs)://[^/]')", "matches('[[:cntrl:][:space:]]')")
_HOSTS = (
    *(
        "images.example.org",
        "b\u00fccher.example",
        "stra\u00dfe\u3002example",
        "IMAGES.",
        "a..b",
        ".a",
        "-a",
        "a_b",
        "_a",
    ),
    *(
        "a-",
        "10.0.0.1",
        "1.2.3.4.5",
        "0x7f.1",
        "[::1]",
        "[fe80::1%25eth0]",
        "[:]",
        "[::1",
        "::1",
        "a b",
        "a$b",
        "%61",
        "",
    ),
    *("a\u2003b", "\u200d", "u@a", "xn--", "h" * 64, "*", "a,b", "a'b", 'a"b', "{a}", "a^b", "a|b", "a]"),
)
_PORTS = ("", ":", ":0", ":80", ":65536", ":99999", ":123456", ":x", ":8 ", ":-1", ":\u0661")
_PATHS = (
    *(
        "",
        "/",
        "/e/a",
        "/e/../a",
        "/e/..",
        "/e/.",
        "/./a",
        "/..a/b..",
        "/e/%2e%2E/a",
        "/e/%2E",
        "/e/.%2e/a",
        "/%2e%2ea",
    ),
    *("/e/", "//e//a", "/e/a?b", "?b", "#c", "/e/a#c", "/e/a?", "/e;a", "/e|a", "/e`a", "/$(e)", "/$e(a)", "/e%2Fa"),
    *("/e/%zz", "/e/%", "/\u00e9\u2028", "/\U0001d54f", "/e\\a", "/e a", "/e/..?/a", "/@", "/a@b:c/d", "/" + "a" * 256),
)


def _create(admin: Kube, field: str, url: str) -> Answer:
    spec = {**MINIMAL[TEMPLATES], field: url if field == "url" else [URL, url]}
    return admin.create(TEMPLATES, kube.resource(TEMPLATES, kube.unique("url"), spec, NAMESPACE), NAMESPACE, dry=True)


def _valid(url: str) -> bool:
    try:
        return urls.Url.parse(url).scheme in urls.DEFAULT_PORTS
    except urls.URLError:
        return False


def _texts() -> Iterator[str]:
    yield from (f"{scheme}://{host}/e/a" for scheme, host in itertools.product(("https", "nfs"), _HOSTS))
    yield from (f"Http://[::1]{port}/e" for port in _PORTS)
    yield from (f"{scheme}://nas{path}" for scheme, path in itertools.product(("https", "NFS"), _PATHS))
    yield from (*URLS, *EARLIER_URLS)


def test_what_the_api_server_refuses_is_no_url(admin: Kube) -> None:
    """It may admit more: such a Template is not Ready."""
    wrong = [url for url in _texts() if _valid(url) and not _create(admin, "url", url).ok]
    assert wrong == []


@pytest.mark.parametrize("field", ["url", "mirrors"])
@pytest.mark.parametrize("url", EARLIER_URLS)
def test_urls_that_the_api_server_refuses(admin: Kube, field: str, url: str) -> None:
    assert not _valid(url)
    assert f"spec.{field}: Invalid value" in _create(admin, field, url).message


@pytest.mark.parametrize(
    "url", ["https://u:s3cret@a\\b/", "https://u:s3cret @a/", "nfs://u:s3cret@a/e/../b", "nfs://u:s3cret@a"]
)
def test_a_refusal_repeats_no_password_whatever_else_is_wrong(admin: Kube, url: str) -> None:
    for field in ("url", "mirrors"):
        answer = _create(admin, field, url)
        assert "without user name and password" in answer.message
        assert "s3cret" not in str(answer.body)


def _replace(admin: Kube, wanted: Object) -> None:
    current = admin.request("GET", _DEFINITION).object()
    admin.request("PUT", _DEFINITION, {**current, "spec": wanted["spec"]}).object()


@pytest.fixture
def earlier(admin: Kube) -> Iterator[Object]:
    """A Template that the definition of 0.1.0 admitted and ours would not; ours is in place."""
    bad = "nfs://h/export/../../etc/shadow"
    ours = crd.definition(Template)
    theirs = copy.deepcopy(ours)
    fields = theirs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    fields["url"]["x-kubernetes-validations"] = [
        {"rule": f"self.{_EARLIER_RULES[0]}"},
        {"rule": f"!self.{_EARLIER_RULES[1]}"},
    ]
    fields["mirrors"]["x-kubernetes-validations"] = [{"rule": f"self.all(u, u.{_EARLIER_RULES[0]})"}]
    spec = {**MINIMAL[TEMPLATES], "url": bad, "mirrors": [bad, "https://a:port/"]}
    body = kube.resource(TEMPLATES, kube.unique("earlier"), spec, NAMESPACE)
    _replace(admin, theirs)
    try:
        until("the definition of 0.1.0", lambda: admin.create(TEMPLATES, body, NAMESPACE, dry=True).ok)
        made = admin.create(TEMPLATES, body, NAMESPACE).object()
    finally:
        _replace(admin, ours)
    until("our definition", lambda: not _create(admin, "url", bad).ok)
    yield made
    admin.delete(TEMPLATES, made["metadata"]["name"], NAMESPACE).object()


def test_a_template_from_before_the_rule_can_still_be_edited(admin: Kube, earlier: Object) -> None:
    name = earlier["metadata"]["name"]

    def patch(spec: Object) -> Answer:
        return admin.patch(TEMPLATES, name, {"spec": spec}, NAMESPACE)

    assert (
        patch({"displayText": "old", "zones": ["zone-1"], "type": "ROUTING"}).object()["spec"]["url"]
        == earlier["spec"]["url"]
    )
    status = {"status": {"observedGeneration": 1}}
    assert admin.patch(TEMPLATES, name, status, NAMESPACE, subresource="status").ok
    assert admin.patch(TEMPLATES, name, {"metadata": {"labels": {"a": "b"}}}, NAMESPACE).ok
    # a list of mirrors is one value
    assert "spec.mirrors" in patch({"mirrors": [URL, "https://a:port/"]}).message
    assert patch({"mirrors": [URL]}).object()["spec"]["mirrors"] == [URL]
    assert "url is immutable" in patch({"url": URL}).message
