"""The command line against a real API server: the test writes status as the controller would."""

import json
import os
import re
import signal
import subprocess
import time
from typing import Any

import pytest
import yaml
from tests.cluster import harness
from tests.world import checkout, policies
from tests.world.cli_world import SHA256, Cluster, condition, directdownload

from directdownload.cluster import kinds

MIB = 1024**2


@pytest.fixture
def cluster(definitions: harness.ControlPlane) -> Cluster:
    return Cluster(definitions)


def converged(generation: int, copies: int) -> dict[str, Any]:
    return {
        "observedGeneration": generation,
        "placements": {"desired": copies, "ready": copies, "downloading": 0, "pending": 0, "failed": 0},
        "conditions": [condition("Ready", "True", "Converged", generation)],
    }


def test_a_template_is_registered_listed_described_and_deleted(cluster: Cluster) -> None:
    url = "https://images.example.org/debian-13.qcow2"
    options = ["--url", url, "--mirror", url + "?m=1", "--mirror", url + "?m=2", "--checksum", SHA256]
    options += ["--format", "qcow2", "--zone", cluster.name, "--display-text", "Debian 13", "--type", "ROUTING"]
    done = cluster.run("template", "register", "debian", *options, "--architecture", "aarch64")
    assert (done.returncode, done.stdout) == (0, f"Template debian registered in namespace {cluster.name}.\n")
    spec = cluster.get(kinds.TEMPLATES, "debian")["spec"]
    assert spec == spec | {
        "url": url,
        "mirrors": [url + "?m=1", url + "?m=2"],
        "checksum": SHA256,
        "format": "QCOW2",
        "zones": [cluster.name],
        "displayText": "Debian 13",
        "type": "ROUTING",
        "architecture": "aarch64",
    }
    listed = cluster.run("template", "list").stdout.splitlines()
    assert listed[0].split() == ["NAME", "FORMAT", "TYPE", "SIZE", "COPIES", "STATUS", "AGE", "URL"]
    assert listed[1].split()[:6] == ["debian", "QCOW2", "ROUTING", "-", "-", "-"]
    assert cluster.run("template", "list", "-o", "name").stdout == "template.directdownload.dev/debian\n"
    everywhere = json.loads(cluster.run("template", "list", "-A", "-o", "json").stdout)["items"]
    assert cluster.name in {item["metadata"]["namespace"] for item in everywhere}
    described = cluster.run("template", "describe", "debian").stdout
    assert f"Checksum:     {SHA256}\n" in described
    assert "Display text: Debian 13\n" in described
    assert cluster.run("template", "delete", "debian", "--yes").stdout == "Template debian deleted.\n"
    assert cluster.run("template", "list").stdout == ""


def test_deleting_asks_first(cluster: Cluster) -> None:
    cluster.template()
    question = cluster.run("template", "delete", "debian", input="n\n")
    assert question.returncode == 1
    assert question.stderr.endswith("Error: nothing was deleted\n")
    assert f"Delete template debian in namespace {cluster.name} (no host has a copy)?" in question.stderr
    assert cluster.get(kinds.TEMPLATES, "debian")


def test_describe_shows_where_copies_are(cluster: Cluster) -> None:
    cluster.template()
    cluster.status(kinds.TEMPLATE_PLACEMENTS, cluster.placement("kvm-1"), {"phase": "Downloading", "attempts": 2})
    described = cluster.run("template", "describe", "debian").stdout.splitlines()
    assert described[-1].split() == ["kvm-1", "local", "Downloading", "-", "-", "-", "-", "2", "/p/u"]


def test_refusals_are_readable_and_permanent(cluster: Cluster) -> None:
    options = ["--url", "ftp://x/y", "--checksum", "sha256:12", "--format", "QCOW2"]
    done = cluster.run("template", "register", "bad", *options)
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert lines[0] == "Error: refused, nothing was created or changed:"
    assert lines[1].startswith("  spec.checksum: expected an algorithm (MD5, SHA-1,")
    assert lines[1].endswith('(given: "sha256:12")')
    assert lines[2].startswith(
        "  spec.url: expected an http, https or nfs URL with the name or address of a host, for example https://"
    )
    assert len(lines) == 3


def test_a_format_that_does_not_exist(cluster: Cluster) -> None:
    done = cluster.run("template", "register", "bad", "--url", "http://x/y", "--format", "qcow3")
    assert done.returncode == 3
    assert "spec.format: expected one of QCOW2, RAW, ISO" in done.stderr
    assert '(given: "QCOW3")' in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("template", "describe", "nope"), "there is no template 'nope' in namespace"),
        (("template", "describe", "nope"), "; existing templates: debian"),
        (("template", "describe", "debain"), "(did you mean 'debian'?)"),
        (("plan", "debain", "--zone", "z"), "(did you mean 'debian'?)"),
        (("status", "d"), "; existing deployments: none yet"),
        (("template", "delete", "nope", "--yes"), "there is no template 'nope' in namespace"),
        (("deploy", "nope", "--zone", "z"), "there is no template 'nope' in namespace"),
        (("deploy", "debian", "--zone", "nope"), "there is no zone 'nope'; zones of this cluster: "),
        (("status", "nope"), "there is no deployment 'nope' in namespace"),
        (("status", "nope", "--watch"), "there is no deployment 'nope' in namespace"),
        (
            ("template", "register", "debian", "--url", "http://x/y", "--format", "RAW"),
            "template 'debian' already exists",
        ),
    ],
)
def test_what_does_not_exist_or_exists_already(cluster: Cluster, arguments: tuple[str, ...], words: str) -> None:
    cluster.template()
    done = cluster.run(*arguments)
    assert done.returncode == 3
    assert words in done.stderr


def test_a_user_without_permission_is_told_which(cluster: Cluster) -> None:
    done = cluster.run("template", "list", kubeconfig=cluster.control_plane.kubeconfig("ann", ["nobodies"]))
    assert done.returncode == 3
    assert f"'ann' may not list templates.directdownload.dev in namespace '{cluster.name}'" in done.stderr
    assert "the verb 'list' on templates.directdownload.dev" in done.stderr
    assert "the chart's ClusterRole <release>-view has it; bind it with a RoleBinding" in done.stderr


def test_a_zone_that_is_mistyped(cluster: Cluster) -> None:
    cluster.template()
    done = cluster.run("deploy", "debian", "--zone", f"{cluster.name[:-1]}")
    assert done.returncode == 3
    assert f"(did you mean '{cluster.name}'" in done.stderr


def test_hosts_and_pools_that_there_are_not_yet_are_told(cluster: Cluster) -> None:
    cluster.template()
    host = f"{cluster.name}-1"
    cluster.apply(kinds.HOSTS, host, spec={"nodeName": host, "zone": cluster.name})
    arguments = ("deploy", "debian", "--zone", cluster.name, "--host", host, "--host", f"{host}1", "--pool", "local")
    done = cluster.run(*arguments)
    assert done.returncode == 0
    notes = [line for line in done.stderr.splitlines() if line.startswith("Note: ")]
    start = f"Note: zone {cluster.name} has no"
    end = ": it gets its copies once it exists, and the deployment is not Ready before."
    assert notes == [f"{start} host '{host}1' (did you mean '{host}'?){end}", f"{start} pool 'local'{end}"]


def test_what_is_made_can_be_printed(cluster: Cluster) -> None:
    registered = cluster.run("template", "register", "x", "--url", "http://h/x", "--format", "RAW", "-o", "name")
    assert registered.stdout == "template.directdownload.dev/x\n"
    registered = cluster.run("template", "register", "y", "--url", "http://h/x", "--format", "RAW", "-o", "json")
    assert json.loads(registered.stdout) == cluster.get(kinds.TEMPLATES, "y") | {
        "metadata": json.loads(registered.stdout)["metadata"]
    }
    deploy = ("deploy", "x", "--zone", cluster.name, "--name", "d", "-o")
    assert cluster.run(*deploy, "name").stdout == "templatedeployment.directdownload.dev/d\n"
    again = cluster.run(*deploy, "yaml")
    assert yaml.safe_load(again.stdout)["spec"]["zone"] == cluster.name
    assert "already exists with the same spec" in again.stderr


def test_the_object_follows_the_progress(cluster: Cluster) -> None:
    cluster.template()
    arguments = ("deploy", "debian", "--zone", cluster.name, "--name", "d")
    assert cluster.run(*arguments).returncode == 0
    cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", converged(1, 2))
    waited = cluster.run(*arguments, "--wait", "-o", "json")
    assert waited.returncode == 0
    assert json.loads(waited.stdout)["status"]["placements"]["ready"] == 2
    assert "d: ready, 2 copies" in waited.stderr
    one = cluster.run("status", "d", "--watch", "-o", "name")
    assert (one.stdout, one.returncode) == ("templatedeployment.directdownload.dev/d\n", 0)
    everything = cluster.run("status", "--watch", "-o", "json")
    assert [item["metadata"]["name"] for item in json.loads(everything.stdout)["items"]] == ["d"]
    late = cluster.run("status", "d", "--watch", "-o", "yaml", "--timeout", "5s")
    assert yaml.safe_load(late.stdout)["metadata"]["name"] == "d"


def test_resources_that_are_not_installed() -> None:
    with harness.ControlPlane() as empty:
        done = directdownload("zone", "list", "--kubeconfig", str(empty.kubeconfig()))
    assert done.returncode == 3
    assert "not installed" in done.stderr
    assert "helm install" in done.stderr


def test_zones_hosts_and_pools_are_listed(cluster: Cluster) -> None:
    zone = cluster.name
    cluster.status(
        kinds.ZONES, zone, {"hosts": {"total": 3, "up": 2}, "conditions": [condition("Ready", "True", "Ready")]}
    )
    cluster.apply(kinds.HOSTS, f"{zone}-1", spec={"nodeName": f"{zone}-1", "zone": zone})
    storage = [{"pool": "local", "availableBytes": 5 * 1024**3}]
    cluster.status(
        kinds.HOSTS,
        f"{zone}-1",
        {"state": "Up", "architecture": "aarch64", "agentVersion": "0.1.0", "storage": storage},
    )
    cluster.apply(kinds.STORAGE_POOLS, f"{zone}-pool", spec={"zone": zone, "path": "/var/lib/libvirt/images"})
    cluster.status(kinds.STORAGE_POOLS, f"{zone}-pool", {"hosts": {"total": 3, "ready": 2}, "capacityBytes": 1024**4})

    rows = [line.split() for line in cluster.run("zone", "list").stdout.splitlines()]
    assert rows[0] == ["NAME", "ENABLED", "HOSTS", "UP", "STATUS", "AGE"]
    assert [zone, "yes", "3", "2", "Ready"] in [row[:5] for row in rows]
    hosts = cluster.run("host", "list", "--zone", zone).stdout.splitlines()
    assert len(hosts) == 2
    assert hosts[1].split()[:11] == [f"{zone}-1", zone, "Up", "-", "-", "0", "local", "5.0", "GiB", "aarch64", "0.1.0"]
    assert cluster.run("host", "list", "--zone", "elsewhere").stdout == ""
    pools = cluster.run("pool", "list", "--zone", zone).stdout.splitlines()
    expected = [f"{zone}-pool", zone, "Filesystem", "/var/lib/libvirt/images", "2/3", "1.0", "TiB", "-"]
    assert pools[1].split()[:8] == expected


def test_files_of_a_pool_are_listed_with_who_wants_them(cluster: Cluster) -> None:
    zone, pool, path = cluster.name, f"{cluster.name}-pool", "/var/lib/libvirt/images"
    cluster.apply(kinds.STORAGE_POOLS, pool, spec={"zone": zone, "path": path})
    empty = cluster.run("pool", "files", pool)
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", f"No files are known in {path}.\n")

    cluster.template("debian")
    uid = cluster.get(kinds.TEMPLATES, "debian")["metadata"]["uid"]
    for host in ("1", "2"):
        cluster.apply(kinds.HOSTS, f"{zone}-{host}", spec={"nodeName": f"{zone}-{host}", "zone": zone})
    unplaced = [
        {"name": uid, "sizeBytes": 3 * MIB, "state": "Published"},
        {"name": "gone.iso", "sizeBytes": 2 * MIB, "state": "Published"},
        {"name": ".directdownload/gone.h.part", "sizeBytes": MIB, "state": "Partial"},
    ]
    storage = {"pool": pool, "unplaced": unplaced, "unplacedBytes": 10 * MIB}
    cluster.status(kinds.HOSTS, f"{zone}-1", {"storage": [storage]})
    reference = {"namespace": cluster.name, "name": "debian", "uid": uid}
    spec = {"templateRef": reference, "zone": zone, "pool": pool, "host": f"{zone}-2", "path": f"{path}/{uid}"}
    cluster.apply(kinds.TEMPLATE_PLACEMENTS, f"{zone}-p", spec=spec)
    cluster.status(
        kinds.TEMPLATE_PLACEMENTS, f"{zone}-p", {"phase": "Ready", "file": {"path": f"{path}/{uid}", "sizeBytes": MIB}}
    )

    listed = cluster.run("pool", "files", pool)
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["HOST", "FILE", "STATE", "SIZE", "PHASE", "TEMPLATE", "VOLUMES"],
        [f"{zone}-1", ".directdownload/gone.h.part", "Partial", "1.0", "MiB", "-", "gone", "0"],
        *sorted(
            [
                [f"{zone}-1", uid, "Retained", "3.0", "MiB", "-", f"{zone}/debian", "0"],
                [f"{zone}-1", "gone.iso", "Orphaned", "2.0", "MiB", "-", "gone", "0"],
            ]
        ),
        [f"{zone}-2", uid, "Placed", "1.0", "MiB", "Ready", f"{zone}/debian", "0"],
    ]
    assert f"Note: {zone}-1: only the 3 largest files without a placement" in listed.stderr
    assert "the others take 4.0 MiB." in listed.stderr
    assert f"Note: {zone}-2: its agent has not reported its files yet" in listed.stderr
    names = cluster.run("pool", "files", pool, "--host", f"{zone}-2", "-o", "name")
    assert names.stdout == f"{zone}-2:{path}/{uid}\n"
    document = json.loads(cluster.run("pool", "files", pool, "--host", f"{zone}-2", "-o", "json").stdout)
    assert (document["pool"], document["items"][0]["sizeBytes"]) == (pool, MIB)
    for arguments, words in (
        (("absent",), "there is no storage pool 'absent'"),
        ((pool, "--host", "absent"), f"zone {zone} of pool {pool} has no host 'absent'"),
    ):
        refused = cluster.run("pool", "files", *arguments)
        assert refused.returncode == 3
        assert words in refused.stderr


def test_deploy_creates_what_was_asked_for(cluster: Cluster) -> None:
    cluster.template()
    options = ["--zone", cluster.name, "--host", "b", "--host", "a", "--pool", "p", "--deletion-policy", "Retain"]
    done = cluster.run("deploy", "debian", *options)
    name = f"debian-{cluster.name}"
    assert done.returncode == 0
    assert done.stdout == f"Deployment {name} created: debian goes to 2 hosts of {cluster.name}.\n"
    spec = cluster.get(kinds.TEMPLATE_DEPLOYMENTS, name)["spec"]
    expected = {"templateRef": {"name": "debian"}, "hosts": ["a", "b"], "pools": ["p"], "deletionPolicy": "Retain"}
    assert spec == spec | expected


def test_deploy_again_changes_nothing(cluster: Cluster) -> None:
    cluster.template()
    assert cluster.run("deploy", "debian", "--zone", cluster.name, "--name", "d").returncode == 0
    again = cluster.run("deploy", "debian", "--zone", cluster.name, "--name", "d")
    assert (again.returncode, again.stdout) == (0, "Deployment d already exists with the same spec.\n")
    other = cluster.run("deploy", "debian", "--zone", cluster.name, "--name", "d", "--host", "a")
    assert other.returncode == 3
    assert "with another spec: hosts is all, not a" in other.stderr
    assert cluster.get(kinds.TEMPLATE_DEPLOYMENTS, "d")["metadata"]["generation"] == 1


def test_deploy_wait_shows_progress_and_ends_when_ready(cluster: Cluster) -> None:
    cluster.template()
    with cluster.start("deploy", "debian", "--zone", cluster.name, "--name", "d", "--wait") as waiting:
        waiting.until("total    0 of 0 ready")
        first, second = cluster.placement("kvm-1"), cluster.placement("kvm-2")
        progress = {"bytesDownloaded": 45 * MIB, "bytesTotal": 100 * MIB, "bytesPerSecond": 12_897_485, "etaSeconds": 8}
        cluster.status(kinds.TEMPLATE_PLACEMENTS, first, {"phase": "Downloading", "progress": progress})
        waiting.until("kvm-1  local  Downloading  45 %  45.0 MiB / 100.0 MiB  12.3 MiB/s  ETA 8 s")
        waiting.until("kvm-2  local  Pending")
        file = {"path": "/p/u", "sizeBytes": 100 * MIB}
        for name in (first, second):
            cluster.status(kinds.TEMPLATE_PLACEMENTS, name, {"phase": "Ready", "file": file})
        waiting.until("kvm-2  local  Ready  100.0 MiB")
        # Ready of an older generation is not the end
        cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", converged(0, 2))
        waiting.until("total         2 of 2 ready")
        assert waiting.process.poll() is None
        cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", converged(1, 2))
        status, text = waiting.end()
    assert status == 0
    assert "d: ready, 2 copies, after " in text


def test_deploy_wait_ends_with_the_failures(cluster: Cluster) -> None:
    cluster.template()
    with cluster.start("deploy", "debian", "--zone", cluster.name, "--name", "d", "--wait") as waiting:
        waiting.until("total    0 of 0 ready")
        failure = {"host": "kvm-1", "pool": "local", "reason": "ChecksumMismatch", "message": "expected c6ab, got 0000"}
        message = "1 of 2 placements failed"
        status = {
            "observedGeneration": 1,
            "placements": {"desired": 2, "ready": 1, "failed": 1, "skipped": 3},
            "failures": [failure],
            "conditions": [
                condition("Ready", "False", "PlacementsFailed", message=message),
                condition("Stalled", "True", "PlacementsFailed", message=message),
            ],
        }
        cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", status)
        code, text = waiting.end()
    assert code == 3
    assert "Error: d has stalled: PlacementsFailed: 1 of 2 placements failed" in text
    assert "HOST    POOL    REASON             MESSAGE" in text
    assert "kvm-1   local   ChecksumMismatch   expected c6ab, got 0000" in text
    shown = cluster.run("status", "d").stdout
    counts = "2: 1 ready, 0 downloading, 0 pending, 1 failed, 3 skipped on hosts of another architecture"
    assert f"Copies:     {counts}" in shown
    assert "kvm-1   local   ChecksumMismatch   expected c6ab, got 0000" in shown


def test_deploy_wait_ends_in_time(cluster: Cluster) -> None:
    cluster.template()
    began = time.monotonic()
    done = cluster.run("deploy", "debian", "--zone", cluster.name, "--wait", "--timeout", "1s")
    assert done.returncode == 1
    elapsed = time.monotonic() - began
    told = re.search(r"is not ready after (\d+) s: 0 of 0 copies are ready\. The rollout goes on\.", done.stderr)
    assert told, done.stderr
    # one second, and what the last look took
    assert 1 <= int(told[1]) <= elapsed + 1
    assert elapsed >= 1


def test_a_deployment_that_is_deleted_meanwhile(cluster: Cluster) -> None:
    cluster.template()
    with cluster.start("deploy", "debian", "--zone", cluster.name, "--name", "d", "--wait") as waiting:
        waiting.until("total    0 of 0 ready")
        cluster.delete(kinds.TEMPLATE_DEPLOYMENTS, "d")
        assert waiting.end()[0] == 3
    assert "deployment 'd' was deleted meanwhile" in waiting.text


def test_ctrl_c_ends_the_watching_and_not_the_rollout(cluster: Cluster) -> None:
    cluster.template()
    with cluster.start("deploy", "debian", "--zone", cluster.name, "--name", "d", "--wait") as waiting:
        waiting.until("total    0 of 0 ready")
        waiting.process.send_signal(signal.SIGINT)
        status, text = waiting.end()
    assert status == 130
    assert "The rollout goes on; see it again with: directdownload status d --watch" in text
    assert cluster.get(kinds.TEMPLATE_DEPLOYMENTS, "d")["spec"]["zone"] == cluster.name


def test_tenants_who_may_not_see_placements_follow_the_sum(cluster: Cluster) -> None:
    cluster.template()
    rules = [
        {
            "apiGroups": ["directdownload.dev"],
            "resources": ["templates", "templatedeployments"],
            "verbs": ["get", "list", "watch", "create"],
        }
    ]
    cluster.apply(policies.ROLES, "tenant", rules=rules)
    group = {"apiGroup": "rbac.authorization.k8s.io"}
    cluster.apply(
        policies.ROLE_BINDINGS,
        "tenant",
        subjects=[{**group, "kind": "User", "name": "tenant"}],
        roleRef={**group, "kind": "Role", "name": "tenant"},
    )
    cluster.placement("kvm-1")
    tenant = cluster.control_plane.kubeconfig("tenant", [])
    arguments = ("deploy", "debian", "--zone", cluster.name, "--name", "d")
    assert cluster.run(*arguments, kubeconfig=tenant).returncode == 0
    with cluster.start("status", "d", "--watch", kubeconfig=tenant) as watching:
        watching.until("total    0 of 0 ready")
        # The rate is measured: it takes two changes.
        for downloaded in (0, 10, 20, 30):
            status = {"placements": {"desired": 7}, "bytes": {"total": 100 * MIB, "downloaded": downloaded * MIB}}
            cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", status)
            watching.until(f"{downloaded} %" if downloaded else "0 of 7 ready")
        assert re.search(r"total    0 of 7 ready  30 %  30\.0 MiB / 100\.0 MiB  \S+ [KM]iB/s  ETA ", watching.text)
        cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", converged(1, 7))
        assert watching.end()[0] == 0
    waited = cluster.run("status", "d", "--watch", kubeconfig=tenant)
    assert waited.returncode == 0
    assert waited.stdout.splitlines()[0] == "total    7 of 7 ready  30.0 MiB"
    assert "kvm-1" not in waited.stdout
    assert "Copies:     7: 7 ready" in cluster.run("status", "d", kubeconfig=tenant).stdout


def test_status_lists_deployments_and_watches_all(cluster: Cluster) -> None:
    cluster.template()
    for name in ("a", "b"):
        assert cluster.run("deploy", "debian", "--zone", cluster.name, "--name", name).returncode == 0
    rows = [line.split() for line in cluster.run("status").stdout.splitlines()]
    assert rows[1][:9] == ["a", "debian", cluster.name, "0/0", "0", "0", "0", "-", "-"]
    assert [cluster.name, "a"] in [line.split()[:2] for line in cluster.run("status", "-A").stdout.splitlines()]
    with cluster.start("status", "--watch") as watching:
        watching.until("  0 of 2 deployments ready")
        cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "a", converged(1, 1))
        cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "b", converged(1, 1))
        status, text = watching.end()
    assert status == 0
    assert "2 of 2 deployments ready" in text


@pytest.mark.parametrize(
    "arguments",
    [("status", "d", "-A"), ("status", "--timeout", "5s"), ("deploy", "debian"), ("template", "list", "-o", "wide")],
)
def test_options_that_do_not_go_together_are_a_usage_error(cluster: Cluster, arguments: tuple[str, ...]) -> None:
    assert cluster.run(*arguments).returncode == 2


def test_a_terminal_gets_bars(cluster: Cluster, terminal: tuple[int, int]) -> None:
    master, slave = terminal
    cluster.template()
    assert cluster.run("deploy", "debian", "--zone", cluster.name, "--name", "d").returncode == 0
    cluster.status(
        kinds.TEMPLATE_PLACEMENTS,
        cluster.placement("kvm-1"),
        {"phase": "Ready", "file": {"path": "/p", "sizeBytes": MIB}},
    )
    environment = checkout.environment(TERM="xterm", COLUMNS="120", LINES="30")
    process = subprocess.Popen(cluster.arguments("status", "d", "-w"), stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    shown = b""
    while "━━━".encode() not in shown:
        shown += os.read(master, 65536)
    cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "d", converged(1, 1))
    while b"d: ready, 1 copy" not in shown:
        shown += os.read(master, 65536)
    assert process.wait(timeout=120) == 0
    assert re.search(r"kvm-1.*local.*Ready.*━━━.*1\.0 MiB", shown.decode())


def test_a_word_that_this_version_does_not_know_is_shown_as_unknown(cluster: Cluster) -> None:
    """A newer version may have written it."""
    cluster.template("debian")
    spec = {"templateRef": {"name": "debian"}, "zone": cluster.name}
    cluster.apply(kinds.TEMPLATE_DEPLOYMENTS, "odd", spec=spec)
    failure = {"host": "kvm-1", "pool": "local", "reason": "OfTomorrow", "message": "new"}
    cluster.status(kinds.TEMPLATE_DEPLOYMENTS, "odd", {"failures": [failure]})
    shown = cluster.run("status", "odd")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert ["kvm-1", "local", "Unknown", "new"] in [line.split() for line in shown.stdout.splitlines()]
