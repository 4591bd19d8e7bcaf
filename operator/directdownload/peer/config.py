"""What the agent says to the two processes of the peer server, in one small file (`config.json`).

The agent writes it from the Host's status; `server` and `opener` read it again when it changes.
"""

import base64
import binascii
import dataclasses
import json
import os
from typing import Any, Self

from directdownload.hostfiles import reading
from directdownload.resources import peers

VERSION = 1
_LIMIT_BYTES = 256 * 1024
_POOLS_LIMIT = 256
_TEXT_LIMIT = 253


class ConfigError(ValueError):
    """There is no such file yet, or it is not of this version; the message says which."""


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """`keys`: raw public keys of the controller. `pools`: the absolute paths of the host's pools."""

    host: str
    zone: str
    trust_domain: str
    keys: tuple[bytes, ...]
    pools: tuple[str, ...]
    port: int = peers.DEFAULT_PORT

    def encoded(self) -> bytes:
        """The file."""
        told = {
            "version": VERSION,
            "host": self.host,
            "zone": self.zone,
            "trustDomain": self.trust_domain,
            "port": self.port,
            "keys": [base64.b64encode(key).decode() for key in self.keys],
            "pools": list(self.pools),
        }
        return json.dumps(told, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ConfigError."""
        try:
            told = json.loads(data)
        except (ValueError, RecursionError):
            raise ConfigError("it is no JSON") from None
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise ConfigError(f"expected version {VERSION}; agent and peer server must be of the same version")
        port = told.get("port")
        if type(port) is not int or not 0 <= port <= 65535:
            raise ConfigError("port: expected a number from 1 to 65535")
        return cls(
            host=_text(told, "host"),
            zone=_text(told, "zone"),
            trust_domain=_text(told, "trustDomain"),
            keys=tuple(map(_key, _texts(told, "keys", peers.KEYS_LIMIT))),
            pools=tuple(map(_pool, _texts(told, "pools", _POOLS_LIMIT))),
            port=port,
        )

    @classmethod
    def read(cls, path: str) -> Self:
        """Raises ConfigError."""
        try:
            return cls.parse(reading.read(path, _LIMIT_BYTES).data)
        except OSError as error:
            raise ConfigError(error.strerror or str(error)) from None


def _text(told: dict[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_LIMIT or "/" in value:
        raise ConfigError(f"{name}: expected a name of 1 to {_TEXT_LIMIT} characters without a slash")
    return value


def _texts(told: dict[str, Any], name: str, most: int) -> list[str]:
    value = told.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(each, str) for each in value):
        raise ConfigError(f"{name}: expected at most {most} texts")
    return value


def _key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("keys: expected base64") from None


def _pool(path: str) -> str:
    if not os.path.isabs(path) or os.path.normpath(path) != path or "\0" in path:
        raise ConfigError("pools: expected absolute paths")
    return path
