"""Files that shall go: never from under a virtual machine, and never forgotten."""

import datetime

from tests.world.kube import Object
from tests.world.simulation import Simulation, succeed
from tests.world.steps import (
    History,
    ask,
    counted,
    delete,
    deployed,
    empty,
    file_of,
    hosts_of_a_zone,
    kill,
    pause_seconds,
    ran,
    settle,
    states,
    until_state,
)
from tests.world.waiting import until

from directdownload.cluster import kinds
from directdownload.resources.jobs import Verb

DEPLOYMENTS = kinds.TEMPLATE_DEPLOYMENTS


def test_a_file_in_use_stays_and_is_asked_for_ever_later_until_it_is_released(world: Simulation) -> None:
    busy, idle = deployed(world, 2, retry={"initial": "2s", "maximum": "60s"})
    placement = world.placement(busy)
    name, disk = file_of(placement), world.disk(busy)
    disk.in_use.add(name)
    with History(world) as history:
        delete(world, DEPLOYMENTS, "everywhere")
        until("the deployment to go", lambda: world.gone(DEPLOYMENTS, "everywhere"))
        until("the idle file to go", lambda: states(world) == {busy: ("Removing", "InUse")})
        until("three tries", lambda: _failures(world) == 3)
        assert {phase for phase, _ in history.states(busy)} == {"Ready", "Removing"}
        waiting = {v["status"]["recentFailures"]: v for v in history.versions(busy) if "nextAttemptTime" in v["status"]}
    pauses = [pause_seconds(waiting[number]) for number in (1, 2, 3)]
    # 2, 4 and 8 s, each up to a quarter shorter, and up to a second longer as times have whole seconds
    assert 1.5 <= pauses[0] < pauses[1] < pauses[2]
    assert pauses[2] >= 6
    assert name in disk.files
    assert name in disk.records
    disk.in_use.clear()
    until("the placement to go", lambda: not world.placements())
    assert empty(world, busy)
    assert empty(world, idle)
    assert counted(world)[busy, "remove"] == 4
    assert counted(world)[idle, "remove"] == 1


def _failures(world: Simulation) -> int:
    return int(world.placements()[0]["status"].get("recentFailures", 0))


def test_a_request_while_a_file_is_in_use_is_served_when_the_pause_ends(world: Simulation) -> None:
    (host,) = deployed(world, 1, retry={"initial": "8s", "maximum": "8s"})
    placement = world.placement(host)
    world.disk(host).in_use.add(file_of(placement))
    delete(world, DEPLOYMENTS, "everywhere")
    waiting = until_state(world, host, "Removing", "InUse")
    value = ask(world, kinds.TEMPLATE_PLACEMENTS, placement["metadata"]["name"])
    ask(world, kinds.HOSTS, host)
    until("another try", lambda: ran(world) == ["fetch", "remove", "remove"])
    assert datetime.datetime.now(datetime.UTC) >= datetime.datetime.fromisoformat(waiting["status"]["nextAttemptTime"])
    again = until("its end", lambda: _later(world, waiting))
    assert again["status"]["lastHandledRequest"] == value
    assert again["status"]["recentFailures"] == 2
    assert world.disk(host).files
    world.disk(host).in_use.clear()
    until("the placement to go", lambda: not world.placements())
    assert ran(world) == ["fetch", "remove", "remove", "remove"]
    assert not world.disk(host).files


def _later(world: Simulation, before: Object) -> Object | None:
    """The only placement, once it waits for a later attempt than `before`."""
    (found,) = world.placements()
    later = found["status"].get("nextAttemptTime", "") > before["status"]["nextAttemptTime"]
    return found if later else None


def test_a_removal_survives_controllers_that_are_killed_at_any_point(world: Simulation) -> None:
    running, waiting = hosts_of_a_zone(world, 2)
    first = world.start_controller("first")
    world.create_template()
    world.deploy()
    world.converged(2)
    world.disk(waiting).in_use.add(file_of(world.placement(waiting)))
    world.behaviour = lambda d: None if d.verb is Verb.REMOVE and d.host == running else succeed(d)
    delete(world, DEPLOYMENTS, "everywhere")
    until_state(world, waiting, "Removing", "InUse")
    until("the removal that runs", lambda: counted(world)[running, "remove"] == 1)
    kill(world, first)
    world.behaviour = succeed
    until("its end, which nobody reads", lambda: not world.disk(running).files)
    second = world.start_controller("second")
    until("its placement to go", lambda: list(states(world)) == [waiting])
    assert counted(world)[running, "remove"] == 1
    kill(world, second)
    # It may have begun another try, whose job runs to its end without it.
    settle(world)
    world.disk(waiting).in_use.clear()
    settle(world)
    assert world.disk(waiting).files
    world.start_controller("third")
    until("the last placement to go", lambda: not world.placements())
    assert empty(world, waiting)


def test_what_a_broken_download_has_left_goes_with_its_placement(world: Simulation) -> None:
    (host,) = hosts_of_a_zone(world, 1)
    world.origin.cut = True
    world.start_controller()
    world.create_template()
    world.deploy()
    until_state(world, host, "Pending", "SourceUnreachable")
    assert world.disk(host).parts
    delete(world, DEPLOYMENTS, "everywhere")
    until("the placement to go", lambda: not world.placements())
    assert not world.disk(host).parts
    assert ran(world)[-1] == "remove"
