"""Which URLs may be fetched: the cheap checks of `Zone.spec.sourcePolicy`, made for every URL and every redirect.

Called by the sources before they connect. Nothing here touches the network; whatever must be decided about an
address after it was resolved belongs here too.
"""

from directdownload.download.errors import RequestError
from directdownload.download.urls import Url
from directdownload.resources.jobs import Policy
from directdownload.resources.reasons import Reason


def check_url(url: Url, policy: Policy) -> None:
    """RequestError(URLNotAllowed) unless protocol and host of `url` are allowed."""
    if url.protocol not in policy.protocols:
        raise RequestError(
            Reason.URL_NOT_ALLOWED,
            f"{url}: protocol {url.protocol} is not allowed; sourcePolicy.protocols allows "
            f"{', '.join(policy.protocols)}",
        )
    if policy.allowed_hosts and not any(_matches(url.host, pattern) for pattern in policy.allowed_hosts):
        raise RequestError(
            Reason.URL_NOT_ALLOWED,
            f"{url}: host {url.host} is not allowed; sourcePolicy.allowedHosts allows "
            f"{', '.join(policy.allowed_hosts[:10])}",
        )


def check_redirect(previous: Url, following: Url, policy: Policy) -> None:
    """As `check_url`, and no step from an encrypted connection down to a plain one."""
    if previous.scheme == "https" and following.scheme != "https":
        raise RequestError(
            Reason.URL_NOT_ALLOWED,
            f"{previous} redirects to {following}: a redirect from https to {following.scheme} is not followed",
        )
    check_url(following, policy)


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return host == pattern
