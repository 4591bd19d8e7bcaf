"""Who may see a page, and under which headers. Pure decisions; `server` asks for every request, before anything else.

A page of this machine is reached by every program and every web site that the user's browser shows. So:

- a name that is not this server's is refused (DNS rebinding: `evil.example` that resolves to 127.0.0.1);
- a request that another site or page caused is refused (Sec-Fetch-Site, Origin), as is all that is not GET;
- without the cookie nothing is shown. A token in the printed address, good once, becomes the cookie: HttpOnly, so
  that no script reads it, and SameSite=Strict, so that no other site sends it.
"""

import hmac
import secrets
from collections.abc import Mapping
from typing import NamedTuple

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_BYTES = 32


class Refusal(NamedTuple):
    status: int
    sentences: tuple[str, ...]


class Guard:
    """Of one server, on 127.0.0.1 at `port`."""

    def __init__(self, port: int) -> None:
        self._names = frozenset({f"127.0.0.1:{port}", f"localhost:{port}"})
        # Cookies know no ports: another dashboard on this machine has one of another name.
        self.cookie = f"directdownload-{port}"
        self._session = secrets.token_urlsafe(_BYTES)
        self._token = secrets.token_urlsafe(_BYTES)

    @property
    def token(self) -> str:
        """The one that the next browser may use."""
        return self._token

    def refused(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is refused before its cookie is looked at; None: it may be one of ours."""
        host = headers.get("Host", "")
        if host not in self._names:
            return Refusal(403, ("This server has another name.", "Open the address that the command has printed."))
        if method != "GET":
            return Refusal(405, ("These pages can only be read.",))
        if headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
            return Refusal(403, ("Another site has asked for this page.", "Type or paste the address instead."))
        if headers.get("Origin", f"http://{host}") != f"http://{host}":
            return Refusal(403, ("A page of another origin has asked for this.",))
        return None

    def known(self, cookie: str | None) -> bool:
        return cookie is not None and _equal(cookie, self._session)

    def redeemed(self, token: str | None) -> str | None:
        """The cookie's value for a token that was not used before; then there is a new `token`. None: it is none."""
        if token is None or not _equal(token, self._token):
            return None
        self._token = secrets.token_urlsafe(_BYTES)
        return self._session

    def stranger(self) -> Refusal:
        return Refusal(
            403,
            (
                "This browser has not shown the token of this dashboard.",
                "Open the address that the command has printed last; each is good once.",
            ),
        )


def _equal(shown: str, secret: str) -> bool:
    # aiohttp keeps bytes that are no UTF-8 as surrogates
    return hmac.compare_digest(shown.encode(errors="surrogateescape"), secret.encode())
