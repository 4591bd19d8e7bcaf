"""Publishing and unpublishing of volumes: asks the agent for the file, and mounts it.

Called by `server` for kubelet's NodePublishVolume and NodeUnpublishVolume. Promises:

- A volume that is mounted stays so and is confirmed without the agent; unmounting never needs the agent.
- Calls for one volume exclude each other: the second one is Aborted (CSI specification, "Concurrency").
- A file system that hangs delays only the volumes in its pool.
"""

import contextlib
import logging
import os.path
from collections.abc import Iterator

from directdownload.csi import agentlink, mounts, requests
from directdownload.csi.errors import AbortedError, InternalError, UnavailableError
from directdownload.csi.messages import NodePublishVolumeRequest, NodeUnpublishVolumeRequest
from directdownload.csi.mounts import ForeignMountError, Target
from directdownload.csi.reports import Reports
from directdownload.csi.requests import Wanted
from directdownload.csi.settings import Settings
from directdownload.csi.threads import BusyError, Threads
from directdownload.hostfiles import mountinfo
from directdownload.resources.volumes import READY, REFUSED, WAITING, Answer, MountedVolume, Publish

logger = logging.getLogger(__name__)

#: The agent answers after `hold_seconds`; this much later it counts as silent. kubelet gives up after 120 s.
_ANSWER_SECONDS = 9.0


class Publishing:
    """Of one event loop."""

    def __init__(self, settings: Settings, reports: Reports) -> None:
        self._settings = settings
        self._reports = reports
        self._threads = Threads()
        self._busy: set[str] = set()

    async def publish(self, request: NodePublishVolumeRequest) -> None:
        """Raises CallError."""
        wanted = requests.wanted(request, self._settings.pods)
        with self._alone(wanted.volume):
            self._reports.wanted(wanted.volume)
            if _is_there(wanted):
                return
            answer = await self._ask(wanted)
            path, root = agentlink.image(answer, self._settings.pool_roots)
            tree = await self._open(path, root)
            try:
                _mount(wanted, answer.uid, tree)
            finally:
                os.close(tree)
        logger.info("Mounted %s for pod %s/%s", path, wanted.namespace, wanted.pod, extra={"volume": wanted.volume})

    async def unpublish(self, request: NodeUnpublishVolumeRequest) -> None:
        """Raises CallError."""
        volume, target = requests.where(request.volume_id, request.target_path, self._settings.pods)
        with self._alone(volume):
            _unmount(target)
            # pods of this host can share a PersistentVolume
            if all(each.volume != volume for each in mounts.mounted(mountinfo.read(), self._settings.pods)):
                self._reports.gone(volume)
        logger.info("Unmounted %s", target.path, extra={"volume": volume})

    async def _ask(self, wanted: Wanted) -> Answer:
        """A Ready answer."""
        hold = self._settings.hold_seconds
        question = Publish(wanted.volume, wanted.namespace, wanted.pod, wanted.template, hold)
        answer = await agentlink.ask(self._settings.agent_socket, question, hold + _ANSWER_SECONDS)
        if answer.state == READY:
            return answer
        if answer.state not in (WAITING, REFUSED):
            raise UnavailableError(
                f"the agent of this host gave the unknown answer '{answer.state}'; "
                "both must be of the same version as the CSI plugin"
            )
        # Also a refusal, see `errors`: the agent remembers who asked, until NodeUnpublishVolume.
        words = ": ".join(filter(None, (answer.reason, answer.message)))
        raise UnavailableError(words or f"Template {wanted.template}: {answer.state}")

    async def _open(self, path: str, root: str) -> int:
        directory, seconds = os.path.dirname(path), self._settings.open_seconds
        try:
            return await self._threads.descriptor(directory, lambda: mounts.open_image(path, root), seconds)
        except (BusyError, TimeoutError):
            raise UnavailableError(
                f"{directory} does not answer within {seconds:g} seconds; check the file system of this pool"
            ) from None
        except FileNotFoundError:
            raise UnavailableError(f"{path} is not there any more; the agent is asked again") from None
        except PermissionError:
            # the plugin is root, but has no capability to enter what is closed to root
            raise UnavailableError(f"{path} cannot be opened: root must be able to enter its directories") from None
        except OSError as error:
            raise UnavailableError(f"{path} cannot be mounted: {error.strerror}") from None

    @contextlib.contextmanager
    def _alone(self, volume: str) -> Iterator[None]:
        if volume in self._busy:
            raise AbortedError(f"another call for volume {volume} is not over")
        self._busy.add(volume)
        try:
            yield
        finally:
            self._busy.discard(volume)


def _is_there(wanted: Wanted) -> bool:
    """Whether the volume is complete at its target. Raises UnavailableError if something else is."""
    found = _at(wanted.target)
    if not isinstance(found, MountedVolume):
        return False
    if (found.volume, found.namespace, found.template) != (wanted.volume, wanted.namespace, wanted.template):
        raise UnavailableError(
            f"target_path: volume {found.volume} with Template {found.template} for namespace {found.namespace} is "
            "mounted there already; unpublish it first"
        )
    return True


def _mount(wanted: Wanted, uid: str, tree: int) -> None:
    """Does not wait: nobody else has changed the target meanwhile."""
    volume = MountedVolume(volume=wanted.volume, namespace=wanted.namespace, template=wanted.template, uid=uid)
    if _is_there(wanted):
        return
    try:
        if _at(wanted.target) is not None:
            logger.warning("Half a volume was mounted at %s: it is made again", wanted.target.path)
            mounts.detach(wanted.target)
        mounts.attach(wanted.target, volume, tree)
    except ForeignMountError as error:
        raise _foreign(error) from None
    except OSError as error:
        raise UnavailableError(f"{wanted.target.path} cannot be mounted: {error.strerror}") from None


def _unmount(target: Target) -> None:
    try:
        mounts.detach(target)
    except ForeignMountError as error:
        raise InternalError(_foreign(error).message) from None
    except OSError as error:
        raise InternalError(f"{target.path} cannot be unmounted: {error.strerror}") from None


def _at(target: Target) -> MountedVolume | mounts.Partial | None:
    try:
        return mounts.at(mountinfo.read(), target.path)
    except ForeignMountError as error:
        raise _foreign(error) from None


def _foreign(error: ForeignMountError) -> UnavailableError:
    return UnavailableError(f"target_path: {error}; unmount it on the host")
