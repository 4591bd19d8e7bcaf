"""Deployments and placements as the controller would leave them, for tests of the command line."""

from typing import Any

from directdownload.resources.templatedeployment import TemplateDeployment
from directdownload.resources.templateplacement import TemplatePlacement

MIB = 1024**2


def condition(kind: str, status: str, reason: str, **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": "",
        "lastTransitionTime": "2026-05-01T12:00:00Z",
        **more,
    }


def deployment(
    name: str = "d",
    *,
    generation: int = 1,
    observed: int | None = 1,
    conditions: list[dict[str, Any]] | None = None,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> TemplateDeployment:
    return TemplateDeployment.model_validate(
        {
            "metadata": {"namespace": "ns", "name": name, "uid": name, "generation": generation},
            "spec": {"templateRef": {"name": "t"}, "zone": "z", **spec},
            "status": {
                **({} if observed is None else {"observedGeneration": observed}),
                "conditions": conditions or [],
                **(status or {}),
            },
        }
    )


def placement(
    host: str,
    phase: str | None = None,
    *,
    done: int | None = None,
    total: int | None = None,
    served: int | None = None,
    rate: int | None = None,
    eta: int | None = None,
    reason: str = "",
    message: str = "",
    next_attempt: str | None = None,
    pool: str = "local",
    zone: str = "z",
    template: str = "t",
) -> TemplatePlacement:
    status: dict[str, Any] = {"phase": phase} if phase else {}
    if phase == "Ready":
        status["file"] = {"path": "/p/u", "sizeBytes": total, "servedBytes": served}
    elif done is not None:
        status["progress"] = {
            "bytesDownloaded": done,
            "bytesTotal": total,
            "bytesPerSecond": rate,
            "etaSeconds": eta,
        }
    if reason:
        ready = "True" if phase == "Ready" else "False"
        status["conditions"] = [condition("Ready", ready, reason, message=message)]
    if next_attempt:
        status["nextAttemptTime"] = next_attempt
    return TemplatePlacement.model_validate(
        {
            "metadata": {"name": f"t-{host}-{pool}", "uid": host},
            "spec": {
                "templateRef": {"namespace": "ns", "name": template, "uid": "u"},
                "zone": zone,
                "pool": pool,
                "host": host,
                "path": "/p/u",
            },
            "status": status,
        }
    )
