"""What can stand in the way of work on a placement, and the reason that each is told with."""

from tests.unit.planning import build
from tests.unit.planning.build import around, facts, host, pool, zone

from directdownload.planning.plans import Surroundings
from directdownload.resources.reasons import Reason
from directdownload.resources.template import Template


def _without_secret(reason: Reason) -> Template:
    told = {"conditions": [build.condition("Ready", "False", reason)]}
    return build.template(spec={"headersSecretRef": {"name": "token"}}, status=told)


OBSTACLES: dict[str, Surroundings] = {
    "no zone": around(zone=None),
    "zone disabled": around(zone=zone(spec={"enabled": False})),
    "no host": around(host=None),
    "host never seen": around(host=host(state=None)),
    "host down": around(host=host(state="Down")),
    "maintenance": around(host=host(state="Maintenance")),
    "no pool": around(pool=None),
    "pool not exposed": around(pool_roots=("/srv",)),
    "pool not writable": around(host=host(storage=[facts(writable=False)])),
    "path missing": around(host=host(storage=[facts(reason="PathMissing")])),
    "shared pool not mounted": around(pool=pool(spec=build.SHARED), host=host(storage=[facts(mounted=False)])),
    "no template": around(template=None),
    "template being deleted": around(template=build.template(deleting=True)),
    "paused": around(paused=True),
    "no header Secret": around(template=_without_secret(Reason.SECRET_NOT_FOUND)),
    "a header Secret that may not be used": around(template=_without_secret(Reason.SECRET_FORBIDDEN)),
}
REASONS = {
    "no zone": Reason.ZONE_DISABLED,
    "zone disabled": Reason.ZONE_DISABLED,
    "no host": Reason.HOST_DOWN,
    "host never seen": Reason.HOST_DOWN,
    "host down": Reason.HOST_DOWN,
    "maintenance": Reason.MAINTENANCE,
    "no pool": Reason.POOL_NOT_READY,
    "pool not exposed": Reason.POOL_NOT_READY,
    "pool not writable": Reason.POOL_NOT_READY,
    "path missing": Reason.POOL_NOT_READY,
    "shared pool not mounted": Reason.NOT_MOUNTED,
    "no template": Reason.TEMPLATE_NOT_FOUND,
    "template being deleted": Reason.TEMPLATE_NOT_FOUND,
    "paused": Reason.PAUSED,
    "no header Secret": Reason.SECRET_NOT_FOUND,
    "a header Secret that may not be used": Reason.SECRET_FORBIDDEN,
}
