"""What the unit tests draw as admitted (`tests/world/admitted.py`) is admitted: a real API server takes it, and what
it makes of it is read.
"""

import json

import pytest
from tests.world import kube
from tests.world.admitted import KINDS, Draw, refused, schema_of
from tests.world.kube import Kube
from tests.world.samples import FULL, NAMESPACE

from directdownload.cluster import kinds
from directdownload.controller.context import projections
from directdownload.planning.observed import Views

_SPECS, _STATUSES = 40, 25
#: An object may have 1.5 MB (etcd).
_LARGEST_BYTES = 500_000


@pytest.mark.parametrize("kind", kinds.OURS, ids=lambda kind: kind.kind)
def test_every_spec_that_is_drawn_is_admitted_and_read(admin: Kube, kind: kinds.Resource) -> None:
    namespace = NAMESPACE if kind.namespaced else None
    for seed in range(_SPECS):
        document = Draw(seed, newer=False).document(kind, served=False)
        if namespace is not None:
            document["metadata"]["namespace"] = namespace
        answer = admin.create(kind, document, namespace, dry=True)
        assert answer.ok, (seed, answer.message)
        made = answer.object()
        # A dry run gives no version.
        made["metadata"].setdefault("resourceVersion", "1")
        assert projections(Views())[kind](made) is not None
        assert KINDS[kind.plural].model_validate(made) is not None


@pytest.mark.parametrize("kind", kinds.OURS, ids=lambda kind: kind.kind)
def test_every_status_that_is_drawn_is_admitted_and_read(admin: Kube, kind: kinds.Resource) -> None:
    namespace = NAMESPACE if kind.namespaced else None
    name = "kvm-1" if kind is kinds.HOSTS else "admitted"
    admin.create(kind, kube.resource(kind, name, FULL[kind], namespace), namespace).object()
    try:
        written = 0
        for seed in range(_STATUSES):
            status = Draw(seed, newer=False).value(schema_of(kind)["status"], status=True)
            types = {each["type"]: each for each in status.get("conditions", ())}
            if "conditions" in status:
                status["conditions"] = list(types.values())
            if len(json.dumps(status)) > _LARGEST_BYTES:
                continue
            assert not list(refused(schema_of(kind)["status"], status)), seed
            answer = admin.patch(kind, name, {"status": None}, namespace, subresource="status")
            answer = admin.patch(kind, name, {"status": status}, namespace, subresource="status")
            assert answer.ok, (seed, answer.message[:1000])
            assert projections(Views())[kind](answer.object()) is not None
            written += 1
        assert written > _STATUSES // 2
    finally:
        admin.delete(kind, name, namespace)
