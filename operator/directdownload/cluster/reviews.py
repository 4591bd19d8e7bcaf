"""The user of a bearer token, and that user's rights: the API server, which alone knows, is asked.

Used where others call us (`scraping`). A token is sent to the API server and kept nowhere here.
"""

from typing import Any

from directdownload.cluster import client
from directdownload.cluster.kinds import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS, Resource

#: Our caller waits for this.
TIMEOUT_SECONDS = 10.0


async def user_of(api: client.Api, token: str) -> client.Object | None:
    """The user (`username`, `uid`, `groups`, `extra`) of `token`, None if it is not valid here. Raises ApiError."""
    status = await _ask(api, TOKEN_REVIEWS, {"token": token})
    user = status.get("user")
    return dict(user) if status.get("authenticated") is True and user else None


async def may_get(api: client.Api, user: client.Object, path: str) -> bool:
    """Whether `user`, as `user_of` returned it, may `get` the non-resource URL `path`. Raises ApiError."""
    named = {
        "user" if name == "username" else name: user[name]
        for name in ("username", "uid", "groups", "extra")
        if name in user
    }
    status = await _ask(api, SUBJECT_ACCESS_REVIEWS, {**named, "nonResourceAttributes": {"path": path, "verb": "get"}})
    return status.get("allowed") is True and status.get("denied") is not True


async def _ask(api: client.Api, review: Resource, spec: client.Object) -> dict[str, Any]:
    body = {"apiVersion": review.api_version, "kind": review.kind, "spec": spec}
    answer = await api.request("POST", review, body=body, verb="create", timeout_seconds=TIMEOUT_SECONDS)
    return dict(answer.get("status") or {})
