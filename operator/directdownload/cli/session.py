"""One connection to one cluster, and the namespace that the user means."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import directdownload
from directdownload.cluster import client, errors

_REQUEST_TIMEOUT_SECONDS = 30
_BUSY_RETRIES = 5
_LONGEST_PAUSE_SECONDS = 5.0


class _PatientApi(client.Api):
    """Retries requests that the API server answers with 429, as kubectl does: it has not begun them."""

    async def request(self, *args: Any, **kwargs: Any) -> client.Object:
        for _ in range(_BUSY_RETRIES):
            try:
                return await super().request(*args, **kwargs)
            except errors.TooManyRequests as error:
                await asyncio.sleep(min(error.retry_after_seconds, _LONGEST_PAUSE_SECONDS))
        return await super().request(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Session:
    """One connection to one cluster; `namespace` is the one that the user means."""

    api: client.Api
    namespace: str


@contextlib.asynccontextmanager
async def open_session(kubeconfig: str | None, context: str | None, namespace: str | None) -> AsyncIterator[Session]:
    """A session that ends with the block. Raises errors.ApiError; ConfigurationError without usable credentials."""
    api = await _PatientApi.connect(
        kubeconfig=kubeconfig,
        context=context,
        request_timeout_seconds=_REQUEST_TIMEOUT_SECONDS,
        user_agent=f"directdownload/{directdownload.__version__}",
    )
    try:
        yield Session(api, namespace or api.namespace)
    finally:
        await api.close()
