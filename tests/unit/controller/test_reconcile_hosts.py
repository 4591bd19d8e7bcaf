"""What a host's reconcile tells of repairs in its keystore, whatever the clocks of agent and controller say."""

import datetime

import pytest
from tests.unit.controller import scenes
from tests.unit.planning import build
from tests.unit.planning.build import NOW, seconds, stamp

from directdownload.cluster import kinds
from directdownload.controller.reconcile import hosts
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason


class Recorder:
    """Keeps what is told of keystores."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def tell(self, _: kinds.Resource, __: Host, ___: str, reason: Reason, message: str, ____: str = "") -> None:
        if reason is Reason.KEYSTORE_REPAIRED:
            self.told.append(message)


class Scene(scenes.Scene):
    """One controller, and the Host `kvm-1`, whose node is gone."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        super().__init__(recorder=self.recorder)

    async def look(self, repaired: datetime.datetime | None, alias: str = "my-ca") -> list[str]:
        """All that was told so far, once the host says when it was last `repaired`."""
        drift = {"kind": "EntryMissing", "alias": alias, "time": stamp(repaired)} if repaired is not None else None
        keystore = {"type": "JKS", **({"lastDrift": drift} if drift is not None else {})}
        self.put(kinds.HOSTS, build.host_document(status={"keystore": keystore}))
        await hosts.reconcile(self.context, "kvm-1")
        return self.recorder.told


WORDS = "EntryMissing: someone else had removed an entry: my-ca"


@pytest.mark.parametrize("hours", [-1000, 1000], ids=["behind", "ahead"])
async def test_a_repair_is_told_once_however_wrong_the_agents_clock_is(hours: int) -> None:
    scene, repaired = Scene(), datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    assert await scene.look(None) == []
    assert await scene.look(repaired) == [WORDS]
    assert await scene.look(repaired) == [WORDS]
    # Set back in between.
    assert await scene.look(repaired - seconds(60)) == [WORDS, WORDS]
    assert len(await scene.look(repaired - seconds(60), "other")) == 3


@pytest.mark.parametrize("hours", [-1, 1], ids=["behind", "ahead"])
async def test_what_was_repaired_before_the_first_look_is_not_told_again(hours: int) -> None:
    scene, repaired = Scene(), datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    assert await scene.look(repaired) == []
    assert await scene.look(repaired) == []
    assert await scene.look(NOW) == [WORDS]
