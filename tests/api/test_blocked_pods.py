"""Jobs whose pods do not come up: the cause is told, the slot goes to another, and the copy comes once it can."""

import re
from typing import Any

import pytest
from tests.world import controllers, steps
from tests.world.kube import Kube, Object
from tests.world.simulation import Simulation, succeed
from tests.world.steps import until_state
from tests.world.stuck import Stuck
from tests.world.waiting import until

from directdownload.cluster import kinds

#: Only a request ends such a pause.
LONG = {"initial": "1h", "maximum": "1h"}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes:\ncpu"}
CREATING = {"reason": "ContainerCreating"}
MISSING = 'MountVolume.SetUp failed for volume "pool-root-0" : hostPath type check failed: /srv is not a directory'
QUOTA = 'Error creating: pods "x" is forbidden: exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0'
#: By what keeps the pod: how it is stuck, and what the placement says then.
CAUSES: dict[str, tuple[Stuck, str]] = {
    "image": (
        Stuck(waiting={"reason": "ErrImagePull", "message": "no such host\x1b[2J"}),
        "its image cannot be pulled: ErrImagePull: no such host",
    ),
    "config": (
        Stuck(waiting={"reason": "CreateContainerConfigError", "message": 'secret "proxy" not found'}),
        'its container cannot be created: CreateContainerConfigError: secret "proxy" not found',
    ),
    "unschedulable": (
        Stuck(scheduled=False, conditions=(UNSCHEDULABLE,)),
        "its pod cannot be scheduled: Unschedulable: 0/3 nodes: cpu",
    ),
    "mount": (
        Stuck(waiting=CREATING, events=(("Normal", "Scheduled", "assigned"), ("Warning", "FailedMount", MISSING))),
        f"a volume of its pod cannot be mounted: FailedMount: {MISSING}",
    ),
    "no pod": (
        Stuck(pod=False, events=(("Warning", "FailedCreate", QUOTA),)),
        f"its pod cannot be created: FailedCreate: {QUOTA}",
    ),
    "suspended": (Stuck(pod=False, suspended="by Kueue"), "its Job is suspended: Suspended: by Kueue"),
}


def conditions(placement: Object) -> Object:
    found: Object = placement["status"]["conditions"][0]
    return found


def attempts(world: Simulation, host: str) -> int:
    return int(world.placement(host)["status"]["attempts"])


def started(world: Simulation) -> None:
    """A controller with one template for all hosts."""
    world.start_controller()
    world.create_template()
    world.deploy()


def test_every_cause_is_told_and_the_copies_come_once_it_is_gone(world: Simulation) -> None:
    hosts = dict(zip(CAUSES, steps.hosts_of_a_zone(world, len(CAUSES), retry=LONG), strict=True))
    causes = {host: CAUSES[name] for name, host in hosts.items()}
    world.kubelets.stuck = lambda document: causes[document.host][0] if document.host in causes else None
    started(world)
    for host, (_, words) in tuple(causes.items()):
        placement = until_state(world, host, "Pending", "PodBlocked")
        said = conditions(placement)["message"]
        assert said.startswith(words), said
        assert said.isprintable()
        assert (placement["status"].get("attempts", 0), "nextAttemptTime" in placement["status"]) == (0, True)

    def listed() -> bool:
        failures = world.deployment()["status"]["failures"]
        return {(f["host"], f["reason"]) for f in failures} == {(host, "PodBlocked") for host in causes}

    until("the deployment to list them", listed)
    causes.clear()
    steps.ask(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    world.converged(len(hosts))
    assert {attempts(world, host) for host in hosts.values()} == {1}


def test_the_slot_goes_to_others_meanwhile(world: Simulation) -> None:
    first, *others = steps.hosts_of_a_zone(world, 3, maxParallel=1, retry=LONG)
    blocked = {first, others[0]}
    world.kubelets.stuck = lambda document: CAUSES["no pod"][0] if document.host in blocked else None
    started(world)
    for host in blocked:
        until_state(world, host, "Pending", "PodBlocked")
    until_state(world, others[1], "Ready")
    until("their Jobs to be gone", lambda: not world.jobs())
    assert world.most_active == 1
    blocked.clear()
    for host in (first, others[0]):
        steps.ask(world, kinds.TEMPLATE_PLACEMENTS, world.placement(host)["metadata"]["name"])
        until_state(world, host, "Ready")


def test_a_pod_that_pulls_its_image_keeps_its_job(world: Simulation) -> None:
    (host,) = steps.hosts_of_a_zone(world, 1)
    stuck = [Stuck(waiting=CREATING, events=(("Warning", "FailedMount", "not yet"), ("Normal", "Pulling", "big")))]
    world.kubelets.stuck = lambda document: stuck[0] if stuck else None
    started(world)
    waits = f"attempt 1 waits for its pod on host {host}: Pulling: big"
    until_state(world, host, "Downloading")
    until("what it waits for", lambda: conditions(world.placement(host))["message"] == waits)
    assert steps.state(world, host) == ("Downloading", "Downloading")
    (job,) = world.jobs()
    world.behaviour = steps.hang
    stuck.clear()
    running = f"attempt 1 runs on host {host}"
    until("it to run", lambda: conditions(world.placement(host))["message"] == running)
    assert [each["metadata"]["uid"] for each in world.jobs()] == [job["metadata"]["uid"]]
    world.behaviour = succeed
    until_state(world, host, "Ready")
    assert attempts(world, host) == 1


def test_a_removal_whose_pod_is_blocked_says_so_and_is_done_once_it_can(world: Simulation) -> None:
    (host,) = steps.deployed(world, 1)
    stuck = [CAUSES["mount"][0]]
    world.kubelets.stuck = lambda document: stuck[0] if stuck else None
    steps.delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    placement = until_state(world, host, "Removing", "PodBlocked")
    assert MISSING in conditions(placement)["message"]
    stuck.clear()
    until("it to be gone", lambda: not world.placements())
    # The pod that was given up may have run in the moment before it was deleted.
    assert set(steps.ran(world, host)[1:]) == {"remove"}


def test_a_probe_whose_pod_is_blocked_says_so(world: Simulation) -> None:
    steps.hosts_of_a_zone(world, 1)
    world.kubelets.stuck = lambda document: CAUSES["image"][0]
    world.start_controller()
    world.create_template()

    def told() -> bool:
        found = {c["type"]: c for c in world.get(kinds.TEMPLATES, "debian")["status"]["conditions"]}
        reachable = found["SourceReachable"]
        return (reachable["status"], reachable["reason"]) == ("Unknown", "PodBlocked")

    until("the cause", told)


def test_a_removal_on_a_lost_host_says_so_while_a_pod_lingers_there(world: Simulation) -> None:
    (host,) = steps.hosts_of_a_zone(world, 1)
    world.behaviour = steps.hang
    started(world)
    until("the download", lambda: world.started)
    world.unplug(host)
    until_state(world, host, "Downloading", "HostDown")
    steps.delete(world, kinds.TEMPLATE_DEPLOYMENTS, "everywhere")
    until_state(world, host, "Removing", "HostDown")
    until("its Job to be gone", lambda: not world.jobs())
    assert steps.state(world, host) == ("Removing", "HostDown")
    world.behaviour = succeed
    world.restore(host)
    until("it to be gone", lambda: not world.placements())


# --- refused by the API server itself


def restrict(kube: Kube, world: Simulation, what: str) -> None:
    """From now on no pod of a job is admitted."""
    core = f"/api/v1/namespaces/{world.namespace}"
    if what == "PodSecurity":
        labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
        kube.patch(kinds.NAMESPACES, world.namespace, labels).object()
    elif what == "ResourceQuota":
        hard = {"pods": "0"}
        body: dict[str, Any] = {"metadata": {"name": "none"}, "spec": {"hard": hard}}
        kube.request("POST", f"{core}/resourcequotas", body).object()
        # Its controller does not run here.
        body["status"] = {"hard": hard, "used": hard}
        kube.request("PUT", f"{core}/resourcequotas/none/status", body).object()
    elif what == "LimitRange":
        limits = [{"type": "Container", "max": {"memory": "1Mi"}, "default": {"memory": "1Mi"}}]
        limits += [{"type": "Pod", "min": {"memory": "2Mi"}}]
        kube.request(
            "POST", f"{core}/limitranges", {"metadata": {"name": "small"}, "spec": {"limits": limits}}
        ).object()


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("PodSecurity", r'violates PodSecurity "restricted'),
        ("ResourceQuota", r"exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"),
        ("LimitRange", r"minimum memory usage per Pod is 2Mi"),
        ("PriorityClass", r"no PriorityClass with name absent was found"),
    ],
)
def test_what_the_api_server_refuses_is_told_in_its_words(
    world: Simulation, monkeypatch: pytest.MonkeyPatch, what: str, words: str
) -> None:
    (host,) = steps.hosts_of_a_zone(world, 1)
    if what == "PriorityClass":
        pod = controllers.JOB_TEMPLATE["spec"]["template"]["spec"]  # type: ignore[index]
        monkeypatch.setitem(pod, "priorityClassName", "absent")
    with world.kube() as kube:
        restrict(kube, world, what)
    started(world)
    placement = until_state(world, host, "Pending", "PodBlocked")
    said = conditions(placement)["message"]
    assert said.startswith("its pod cannot be created: FailedCreate: Error creating: ")
    assert re.search(words, said), said
