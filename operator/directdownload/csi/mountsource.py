"""The source of a volume's mount, as it stands in mountinfo: whose volume it is, and of which file.

Written and read by `mounts`. This is all that the plugin remembers, so that a restart loses nothing:
`directdownload.dev/<volume>/<namespace>/<template>/<uid>`, the `/` in a template's `namespace/name` as `+`.
"""

import re

from directdownload.resources import naming
from directdownload.resources.volumes import MountedVolume

PREFIX = f"{naming.GROUP}/"
_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
#: Kubernetes limits the whole name, not its parts.
_PART = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#: Of a PersistentVolume (a DNS subdomain), or kubelet's own for a volume of a pod: `csi-<64 hex digits>`.
VOLUME = re.compile(r"[A-Za-z0-9][-A-Za-z0-9._]{0,252}")
NAMESPACE = re.compile(_LABEL)
#: `name` or `namespace/name`, as kinds have names: a DNS subdomain of at most 253 characters.
TEMPLATE = re.compile(rf"({_LABEL}/)?(?=.{{1,253}}\Z){_PART}(\.{_PART})*")
UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,62}")


def source(volume: MountedVolume) -> str:
    """Raises ValueError for a volume that `read` would not give back."""
    template = volume.template.replace("/", "+")
    text = f"{PREFIX}{volume.volume}/{volume.namespace}/{template}/{volume.uid}"
    if read(text) != volume:
        raise ValueError(f"not the words of a volume: {text!r}")
    return text


def read(text: str) -> MountedVolume | None:
    """None: it is not of a volume."""
    parts = text.removeprefix(PREFIX).split("/")
    if not text.startswith(PREFIX) or len(parts) != 4:
        return None
    volume, namespace, template, uid = parts[0], parts[1], parts[2].replace("+", "/"), parts[3]
    fields = ((VOLUME, volume), (NAMESPACE, namespace), (TEMPLATE, template), (UID, uid))
    if not all(pattern.fullmatch(value) for pattern, value in fields):
        return None
    return MountedVolume(volume=volume, namespace=namespace, template=template, uid=uid)
