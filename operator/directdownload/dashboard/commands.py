"""The commands that show what a page shows: for those who go on in a terminal. Pure.

Names are quoted for a shell, as they may come from anybody.
"""

import shlex

from directdownload.resources import naming
from directdownload.resources.base import GROUP


def _line(*words: str) -> str:
    return shlex.join(words)


def fleet(zone: str | None) -> tuple[str, ...]:
    of_zone = ("--zone", zone) if zone else ()
    return (
        "kubectl get ddzone,ddhost,ddpool,ddcert",
        _line("directdownload", "host", "list", *of_zone),
        _line("directdownload", "pool", "list", *of_zone),
        "directdownload status --all-namespaces",
    )


def hosts(zone: str | None) -> tuple[str, ...]:
    of_zone = ("--zone", zone) if zone else ()
    return ("kubectl get ddhost -o wide", _line("directdownload", "host", "list", *of_zone))


def rollouts() -> tuple[str, ...]:
    return ("kubectl get dddeploy -A -o wide", "directdownload status --all-namespaces --watch")


def rollout(namespace: str, name: str, template_namespace: str, template: str) -> tuple[str, ...]:
    return (
        _line("kubectl", "describe", "dddeploy", name, "-n", namespace),
        _line("kubectl", "get", "ddplacement", "-o", "wide", "-l", _selector(template_namespace, template)),
        _line("directdownload", "status", name, "-n", namespace, "--watch"),
    )


def templates() -> tuple[str, ...]:
    return ("kubectl get ddtemplate -A -o wide", "directdownload template list")


def template(namespace: str, name: str) -> tuple[str, ...]:
    return (
        _line("kubectl", "describe", "ddtemplate", name, "-n", namespace),
        _line("kubectl", "get", "ddplacement", "-o", "wide", "-l", _selector(namespace, name)),
        _line("directdownload", "template", "describe", name, "-n", namespace),
    )


def host(name: str, zone: str) -> tuple[str, ...]:
    return (
        _line("kubectl", "describe", "ddhost", name),
        _line("kubectl", "get", "ddplacement", "-o", "wide", "--field-selector", f"spec.host={name}"),
        _line("directdownload", "host", "list", "--zone", zone),
    )


def pool(name: str, host: str) -> str:
    return _line("directdownload", "pool", "files", name, "--host", host)


def certificates(zone: str | None) -> tuple[str, ...]:
    of_zone = ("--zone", zone) if zone else ()
    return ("kubectl get ddcert", _line("directdownload", "certificate", "list", *of_zone))


def certificate(name: str, zone: str) -> tuple[str, ...]:
    return (
        _line("kubectl", "describe", "ddcert", name),
        _line("directdownload", "certificate", "list", "--zone", zone, "--hosts"),
    )


def _selector(namespace: str, template: str) -> str:
    return f"{GROUP}/template={naming.label_value(template)},{GROUP}/template-namespace={naming.label_value(namespace)}"
