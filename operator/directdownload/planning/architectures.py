"""Processor architectures: which one a host has, and whether it may get a new copy of a template.

Called by `hosts`, which reports it, and by `selection`, which selects hosts. Only new copies depend on it: a
placement that exists is kept, fetched and repaired on any host (decision 0032).
"""

from directdownload.planning.observed import Node
from directdownload.resources.host import Architecture, Host
from directdownload.resources.template import Template

#: A label of every Node, written by its kubelet: `runtime.GOARCH`.
LABEL = "kubernetes.io/arch"
_BY_GOARCH = {"amd64": Architecture.X86_64, "arm64": Architecture.AARCH64}


def of_node(node: Node) -> Architecture | None:
    """None: the node has no such label."""
    name = node.labels.get(LABEL)
    return _BY_GOARCH.get(name) or Architecture(name) if name else None


def differs(template: Template, host: Host) -> bool:
    """Whether `host` is known to be of another architecture than `template`."""
    return host.status.architecture not in (None, Architecture.UNKNOWN, template.spec.architecture)


def takes(template: Template, host: Host) -> bool:
    """Whether `host` may get a new copy of `template`.

    A Host without a state has just been created. Its architecture comes with its first status.
    """
    return host.status.state is not None and not differs(template, host)
