"""What the plugin answers instead of a volume: a code of gRPC and words for people.

The code decides what kubelet does later (pkg/volume/csi/csi_client.go, isFinalError): after CANCELLED,
DEADLINE_EXCEEDED, UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED a volume may be half there, and kubelet calls
NodeUnpublishVolume once its pod is gone; after any other code it forgets the volume. So:

- INVALID_ARGUMENT for a request that can never be served: nothing was asked and nothing mounted.
- UNAVAILABLE for everything after that, a refusal of the agent included: the agent has been asked and remembers the
  volume, so that the end of the pod must reach it. kubelet tries again after all codes alike.
- ABORTED while another call works on the same volume, as the CSI specification says.
- INTERNAL where unmounting fails; kubelet tries that again whatever the code.
"""

import re

from grpclib.const import Status

from directdownload import escaping

#: kubelet repeats a message in an Event, which takes 1,024 bytes with its own words in front.
_LIMIT = 600
_PER_CENT = re.compile(r" ?%")


class CallError(Exception):
    """The answer to a call: `status`, and `message` as one printable line."""

    status = Status.UNAVAILABLE

    def __init__(self, message: str) -> None:
        # kubelet formats a message once more, which garbles every per cent sign
        self.message = escaping.escaped(_PER_CENT.sub(" per cent", message), _LIMIT)
        super().__init__(self.message)


class InvalidArgumentError(CallError):
    """The request can never be served."""

    status = Status.INVALID_ARGUMENT


class UnavailableError(CallError):
    """Not now."""


class AbortedError(CallError):
    """Another call works on this volume."""

    status = Status.ABORTED


class InternalError(CallError):
    """Unmounting failed."""

    status = Status.INTERNAL
