"""Checksums as people write them, and how strong each algorithm is.

Called by the validation of Templates and by the download engine; hashing itself is in `download/`. Pure: no I/O.
The notations are CloudStack's `{ALG}hex` and a bare MD5, and the usual `alg:hex`; algorithm and hex in any case.
"""

import dataclasses
import enum
import hashlib
import re
from typing import Self

EXAMPLE = "sha256:c6ab15af7842d23d3c06c138b53a7d09c5e351a79c4eb3c8ca8d65e5ce8900ab"
_NOTATION = re.compile(r"(?:\{(?P<braced>[^{}]*)\}|(?P<prefixed>[^:{}]*):)?(?P<digits>.*)", re.DOTALL)
_HEXADECIMAL = re.compile(r"[0-9a-f]*", re.ASCII)


class Algorithm(enum.StrEnum):
    """The value is hashlib's name; the order of definition is from weakest to strongest."""

    MD5 = "md5"
    SHA1 = "sha1"
    SHA224 = "sha224"
    SHA256 = "sha256"
    SHA384 = "sha384"
    SHA512 = "sha512"

    @classmethod
    def parse(cls, text: str) -> Self:
        """`sha256`, `SHA256`, `SHA-256`, `sha-256`; raises ValueError for anything else."""
        try:
            return cls(re.sub(r"^sha-", "sha", text.strip().lower()))
        except ValueError:
            raise ValueError(f"{text[:32]!r} is not a checksum algorithm: expected one of {ALGORITHMS}") from None

    @property
    def title(self) -> str:  # type: ignore[override] # a StrEnum's own title() has no use here
        """The name as CloudStack and `minimumChecksum` write it: `SHA-256`."""
        return self.value.upper().replace("SHA", "SHA-")

    @property
    def hex_length(self) -> int:
        return _HEX_LENGTHS[self]

    @property
    def strength(self) -> int:
        """Larger is stronger."""
        return list(type(self)).index(self)


_HEX_LENGTHS = {each: hashlib.new(each.value, usedforsecurity=False).digest_size * 2 for each in Algorithm}
#: All of them, for messages.
ALGORITHMS = ", ".join(algorithm.title for algorithm in Algorithm)


@dataclasses.dataclass(frozen=True, slots=True)
class Checksum:
    """An algorithm and lower-case hex digits of exactly its length; `str()` is the canonical `sha256:<hex>`."""

    algorithm: Algorithm
    hexdigest: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Any of the notations; raises ValueError that says what is wrong and gives an example."""
        match = _NOTATION.fullmatch(text.strip())
        name = None if match is None else match["braced"] if match["braced"] is not None else match["prefixed"]
        digits = text.strip().lower() if match is None else match["digits"].lower()
        if name is not None:
            try:
                algorithm = Algorithm.parse(name)
            except ValueError as error:
                raise ValueError(f"checksum {text[:160]!r}: {error}, for example {EXAMPLE}") from None
        else:
            algorithm = Algorithm.MD5
        if not _HEXADECIMAL.fullmatch(digits):
            raise ValueError(
                f"checksum {text[:160]!r}: expected {algorithm.hex_length} hexadecimal digits for {algorithm.title}, "
                f"and nothing after them, for example {EXAMPLE}"
            )
        if len(digits) != algorithm.hex_length:
            hint = "" if name is not None else "; without an algorithm a checksum is MD5"
            raise ValueError(
                f"checksum {text[:160]!r}: expected {algorithm.hex_length} hexadecimal digits for {algorithm.title}, "
                f"found {len(digits)}{hint}, for example {EXAMPLE}"
            )
        return cls(algorithm, digits)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hexdigest}"

    def at_least(self, minimum: Algorithm) -> bool:
        """Whether the algorithm is as strong as `minimum`."""
        return self.algorithm.strength >= minimum.strength
