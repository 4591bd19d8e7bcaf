"""How this process reaches the API server: address, TLS, credentials, proxy, connection pool.

`client.Api` is the only user. The official library reads kubeconfigs (certificates, tokens, exec plugins, OIDC) and
in-cluster tokens and keeps the latter fresh; this module adds what long-lived processes need besides:

- refused credentials are loaded anew (exec plugins and token files rotate);
- proxies of the environment are looked up once, not per request;
- TCP notices a silently vanished peer within a minute, also under an idle watch;
- data that is undelivered when the process ends is never delivered: a leader that was cut off writes nothing
  afterwards.
"""

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
import time
import urllib.parse
import urllib.request
import weakref
from typing import Any

import aiohttp
import yaml
import yarl
from kubernetes.aio import client as library
from kubernetes.aio import config as library_config
from kubernetes.aio.client import rest

from directdownload.cluster import errors

_SERVICE_ACCOUNT = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
_KEEPALIVE_SECONDS = 60
_DEAD_PEER_SECONDS = 30
_RELOAD_INTERVAL_SECONDS = 10
_CLOSE_SECONDS = 2
#: After this time nothing runs over a client with earlier credentials: the longest watches take 300 s.
_RETIREMENT_SECONDS = 600
_LOAD_ERRORS = (library_config.ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError)


class Connection:
    """One API server, one set of credentials, one pool. Open it with `open`, close it with `close`."""

    def __init__(self, kubeconfig: str | None, context: str | None, user_agent: str) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._headers = {"User-Agent": user_agent, "Accept": "application/json", "Accept-Encoding": "identity"}
        self._configuration: Any = None
        self._rest: Any = None
        self._connector: aiohttp.TCPConnector | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        #: earlier credentials' clients, and when each was replaced
        self._retired: list[tuple[Any, aiohttp.TCPConnector | None, float]] = []
        self._loaded_monotonic = 0.0
        self._reloading = asyncio.Lock()
        #: counts how often credentials were loaded
        self.generation = 0
        self.namespace = "default"

    @classmethod
    async def open(cls, kubeconfig: str | None, context: str | None, user_agent: str) -> "Connection":
        """Loads the configuration; sends nothing yet. Raises `ConfigurationError`."""
        connection = cls(kubeconfig, context, user_agent)
        await connection._load()
        return connection

    async def send(
        self, method: str, target: str, body: object, content_type: str, bounds: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Sends one request. The caller reads or closes the response. `target` is a path with its query, encoded."""
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            # reads a service account's token again once a minute
            authentication = await self._configuration.auth_settings()
        except library_config.ConfigException as error:
            raise errors.ConfigurationError(f"{self._source()} cannot be used: {error}") from error
        for setting in authentication.values():
            headers[setting["key"]] = setting["value"]
        # Encoded already: parsing and quoting the URL again costs as much as building the request.
        url = yarl.URL(self._configuration.host + target, encoded=True)
        answer = await self._rest.request(method, url, headers=headers, body=body, _request_timeout=bounds)
        response: aiohttp.ClientResponse = answer.response
        return response

    async def reload(self, generation: int) -> bool:
        """Loads the credentials again after a 401 to those of `generation`: True if another try is worthwhile.

        False if they were loaded a moment ago, so that a lasting refusal comes to an end.
        """
        async with self._reloading:
            if generation == self.generation:
                if time.monotonic() - self._loaded_monotonic < _RELOAD_INTERVAL_SECONDS:
                    return False
                await self._load()
            return True

    async def close(self) -> None:
        for client, connector, _ in self._retired:
            await _close(client, connector)
        self._retired.clear()
        await _close(self._rest, self._connector)
        # aiohttp does not wait for connections that were given up before (watches, timeouts): their TLS shutdown may
        # take half a minute with a silent peer. Closing the sockets makes the event loop drop them now.
        for sock in self._open_sockets():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                while self._open_sockets():  # noqa: ASYNC110 - sockets set no event
                    await asyncio.sleep(0.001)

    def _open_sockets(self) -> list[socket.socket]:
        return [sock for sock in self._sockets if sock.fileno() >= 0]

    async def _load(self) -> None:
        self._loaded_monotonic = time.monotonic()
        configuration = library.Configuration()
        # The pool has no bound of its own: `client.Api` bounds requests, so that watches and leases never queue.
        configuration.connection_pool_maxsize = 0
        try:
            if self._kubeconfig is None and self._context is None and _in_cluster():
                library_config.load_incluster_config(client_configuration=configuration)
                self.namespace = (_SERVICE_ACCOUNT / "namespace").read_text().strip()
            else:
                self.namespace = await self._load_kubeconfig(configuration)
            client = rest.RESTClientObject(configuration)
        except _LOAD_ERRORS as error:
            raise errors.ConfigurationError(f"{self._source()} cannot be used: {error}") from error
        if configuration.proxy is None:
            configuration.proxy = _environment_proxy(configuration.host)
        connector = aiohttp.TCPConnector(
            limit=0, ssl=client.ssl_context, socket_factory=self._socket, keepalive_timeout=_KEEPALIVE_SECONDS
        )
        # trust_env: aiohttp would read the environment's proxies and ~/.netrc for every request.
        configuration.client_session_kwargs = {"connector": connector, "trust_env": False}
        if self._rest is not None:
            # Watches still run over the old one.
            self._retired.append((self._rest, self._connector, self._loaded_monotonic))
        self._configuration, self._rest, self._connector = configuration, client, connector
        self.generation += 1
        over = self._loaded_monotonic - _RETIREMENT_SECONDS
        ended = [each for each in self._retired if each[2] <= over]
        self._retired = [each for each in self._retired if each[2] > over]
        for old, its_connector, _ in ended:
            await _close(old, its_connector)

    async def _load_kubeconfig(self, configuration: Any) -> str:
        paths = self._kubeconfig_paths()
        if not any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path):  # noqa: ASYNC240
            raise FileNotFoundError("no such file; set KUBECONFIG or name a kubeconfig")
        loader = await library_config.load_kube_config(
            config_file=paths, context=self._context, client_configuration=configuration, persist_config=False
        )
        if configuration.host.startswith("https") and not (configuration.api_key or configuration.cert_file):
            # The library only logs that an exec plugin failed and would continue as system:anonymous.
            raise ValueError("no credentials for this context; expected a certificate, a token or a working exec")
        return str(loader.current_context["context"].get("namespace") or "default")

    def _kubeconfig_paths(self) -> str:
        return self._kubeconfig or os.environ.get("KUBECONFIG") or str(pathlib.Path.home() / ".kube" / "config")

    def _source(self) -> str:
        if self._kubeconfig is None and self._context is None and _in_cluster():
            return f"the service account in {_SERVICE_ACCOUNT}"
        context = f", context {self._context!r}" if self._context else ""
        return f"kubeconfig {self._kubeconfig_paths()}{context}"

    def _socket(self, address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        self._sockets.add(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The kernel would go on sending accepted data for minutes after the process has ended: writes of a leader whose
        # network returns when another one has long been leading. A caller that needs an answer waits for it before.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for name, value in (
            ("TCP_KEEPIDLE", 20),
            ("TCP_KEEPINTVL", 10),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", _DEAD_PEER_SECONDS * 1000),
        ):
            # Linux names; elsewhere (the command line on a laptop) the system's defaults stay.
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return sock


async def _close(client: Any, connector: aiohttp.TCPConnector | None) -> None:
    await client.close()
    if connector is not None:
        await connector.close()


def _in_cluster() -> bool:
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and (_SERVICE_ACCOUNT / "token").exists()


def _environment_proxy(host: str) -> str | None:
    parts = urllib.parse.urlsplit(host)
    if not parts.hostname or urllib.request.proxy_bypass(parts.hostname):
        return None
    return urllib.request.getproxies().get(parts.scheme)
