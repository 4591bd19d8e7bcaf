"""Which requests of kubelet are served: every field by a list of what is allowed, as pure functions.

Called by `publishing`. Raises CallError with the field, what was expected, and what to do.
"""

import dataclasses
import os.path
import re

from directdownload import escaping
from directdownload.csi import mountsource
from directdownload.csi.errors import InvalidArgumentError, UnavailableError
from directdownload.csi.messages import AccessMode, NodePublishVolumeRequest, VolumeCapability
from directdownload.csi.mounts import Target

TEMPLATE = "template"
#: Attributes that kubelet adds: of the pod, since the CSIDriver has podInfoOnMount.
_KUBELETS = "csi.storage.k8s.io/"
_POD_NAME, _POD_NAMESPACE = f"{_KUBELETS}pod.name", f"{_KUBELETS}pod.namespace"
#: kubelet sends SINGLE_NODE_WRITER for every volume in a pod's own spec (csi_mounter.go), also for a read-only one.
_MODES = frozenset(AccessMode)
_MOST_PATH = 4096
#: A pod's name is a DNS subdomain.
_POD = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What a pod needs, checked."""

    volume: str
    target: Target
    namespace: str
    pod: str
    template: str


def wanted(request: NodePublishVolumeRequest, pods: str) -> Wanted:
    """`pods`: kubelet's directory of pods, in which targets are."""
    volume, target = where(request.volume_id, request.target_path, pods)
    _check_capability(request.volume_capability)
    if not request.readonly:
        raise InvalidArgumentError("readonly: template volumes are read-only; set readOnly: true at the pod's volume")
    for name, value, advice in (
        ("secrets", request.secrets, "remove nodePublishSecretRef"),
        ("publish_context", request.publish_context, "set attachRequired: false in the CSIDriver"),
        ("staging_target_path", request.staging_target_path, "call NodePublishVolume without NodeStageVolume"),
    ):
        if value:
            raise InvalidArgumentError(f"{name}: expected none; {advice}")
    return Wanted(volume, target, *_context(request.volume_context))


def where(volume: str, path: str, pods: str) -> tuple[str, Target]:
    """The volume and the target of a call."""
    if not mountsource.VOLUME.fullmatch(volume):
        raise InvalidArgumentError(
            f"volume_id: expected 1 to 253 letters, digits, '-', '.' and '_', found {_quoted(volume)}"
        )
    normal = os.path.normpath(path) == path and not path.startswith("//") and path.isprintable()
    if not normal or len(path) > _MOST_PATH or not path.startswith(f"{pods}/"):
        raise InvalidArgumentError(
            f"target_path: expected a path below {pods} without '.', '..' and '//', found {_quoted(path)}; "
            "if kubelet has another --root-dir, set the chart's csi.kubeletDirectory"
        )
    return volume, Target(pods, path)


def _check_capability(capability: VolumeCapability | None) -> None:
    if capability is None:
        raise InvalidArgumentError("volume_capability: expected one")
    if capability.block is not None:
        raise InvalidArgumentError("volume_capability: block volumes are not served; set volumeMode: Filesystem")
    if capability.mount is None:
        raise InvalidArgumentError("volume_capability: expected access type mount")
    if capability.access_mode is None or capability.access_mode.mode not in _MODES:
        raise InvalidArgumentError(
            "volume_capability.access_mode: expected one that reads; set accessModes: ReadOnlyMany"
        )
    for name, value, advice in (
        ("fs_type", capability.mount.fs_type, "remove fsType"),
        ("mount_flags", capability.mount.mount_flags, "remove mountOptions"),
        ("volume_mount_group", capability.mount.volume_mount_group, "set fsGroupPolicy: None in the CSIDriver"),
    ):
        if value:
            raise InvalidArgumentError(f"volume_capability.{name}: expected none; {advice}")


def _context(context: dict[str, str]) -> tuple[str, str, str]:
    """Namespace, pod and template."""
    unknown = [name for name in sorted(context) if name != TEMPLATE and not name.startswith(_KUBELETS)]
    if unknown:
        raise InvalidArgumentError(
            f"volumeAttributes: unknown {escaping.listed(unknown, 3)}; the one attribute is {TEMPLATE}"
        )
    template = context.get(TEMPLATE, "")
    if not mountsource.TEMPLATE.fullmatch(template):
        raise InvalidArgumentError(
            f"volumeAttributes.{TEMPLATE}: expected the name of a Template, as name or namespace/name, "
            f"found {_quoted(template)}"
        )
    namespace, pod = context.get(_POD_NAMESPACE, ""), context.get(_POD_NAME, "")
    if not mountsource.NAMESPACE.fullmatch(namespace) or not _POD.fullmatch(pod):
        # a change of the CSIDriver mends it, so the agent may have been asked before: see `errors`
        raise UnavailableError(
            "the pod's name and namespace: kubelet did not send them; set podInfoOnMount: true in the CSIDriver"
        )
    return namespace, pod, template


def _quoted(text: str) -> str:
    return f"'{escaping.escaped(text, 100)}'" if text else "nothing"
