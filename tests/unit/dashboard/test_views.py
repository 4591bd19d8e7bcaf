"""What pages show, from a picture."""

import datetime
import re

import pytest
from tests.unit.dashboard import support
from tests.unit.dashboard.support import NOW, ROLLOUT
from tests.world import dashboard as fleet
from tests.world.docs import DOCS
from tests.world.kube import Object

from directdownload.cli import certificate_state
from directdownload.cli.main import cli
from directdownload.cli.rollout import End
from directdownload.cluster import errors, kinds
from directdownload.dashboard import advice, commands, copies
from directdownload.dashboard.copies import tallied
from directdownload.dashboard.feeds import Feed, State
from directdownload.dashboard.history import LIMIT, History
from directdownload.dashboard.picture import Picture
from directdownload.dashboard.views import common, heatmap
from directdownload.resources.certificate import DirectDownloadCertificate
from directdownload.resources.host import Host
from directdownload.resources.reasons import Reason
from directdownload.resources.templateplacement import Phase

MIXED = [fleet.copy(0), fleet.copy(1, "Downloading", percent=57), fleet.copy(2, "Failed", message="expected sha256:1")]


@pytest.mark.parametrize("target", support.PAGES)
def test_every_page_is_shown(target: str) -> None:
    text = support.document(support.pictured(MIXED), target)
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<h1>") == 1


@pytest.mark.parametrize("target", support.PAGES)
def test_every_page_is_shown_while_nothing_is_known(target: str) -> None:
    picture = Picture()
    for name in ("rollouts/", "templates/", "hosts/", "certificates/"):
        if name in target:
            return
    text = support.document(picture, target)
    assert "are being loaded" in text


def test_a_rollout_has_its_counts_from_the_copies() -> None:
    shown = support.page(support.pictured(MIXED), ROLLOUT).content
    assert shown.progress.desired == 3
    assert dict(shown.counts) == {"Ready": 1, "Downloading": 1, "Failed": 1}
    assert shown.progress.bytes_per_second == 2**20
    assert shown.progress.percent == 33
    assert shown.end is End.RUNNING


def test_a_failure_has_its_reason_its_message_and_the_advice_of_the_docs() -> None:
    text = support.document(support.pictured(MIXED), ROLLOUT)
    assert "expected sha256:1" in text
    found = advice.of("ChecksumMismatch")
    assert found is not None
    assert found.advice in text
    assert text.count('href="/hosts/kvm-00002"') >= 2


def test_the_first_view_has_the_counts_of_the_status_and_a_cell_for_each_host() -> None:
    picture = support.pictured(hosts=4, ready=1)
    picture.feeds[kinds.TEMPLATE_PLACEMENTS] = Feed(kinds.TEMPLATE_PLACEMENTS)
    shown = support.page(picture, ROLLOUT).content
    assert (shown.progress.ready, shown.progress.desired) == (1, 4)
    assert set(shown.map.cells.values()) == {"l"}
    support.put(picture, kinds.TEMPLATE_PLACEMENTS, fleet.copy(2))
    assert support.page(picture, ROLLOUT).content.map.cells[fleet.host_name(2)] == "r"


def test_a_cell_shows_the_worst_of_the_copies_of_its_host() -> None:
    found = [copies.project(fleet.copy(0, phase)) for phase in ("Ready", "Failed", "Downloading")]
    assert heatmap.of_copies(found, ["kvm-00009"], loading=False) == {"kvm-00000": "f", "kvm-00009": "n"}


def test_looks_differ_without_their_colour() -> None:
    """Within one map: copies, hosts, proofs."""
    for codes in (set(heatmap.LOOKS) - {"up", "dn", "mt", "cu", "cr", "cf", "cs", "cp"}, {"up", "dn", "mt", "u"}):
        signs = [heatmap.LOOKS[code].sign for code in codes]
        assert len(set(signs)) == len(signs)


def test_the_map_is_grouped_by_the_rack_unless_another_label_is_chosen() -> None:
    picture = support.pictured(hosts=20)
    drawn = support.page(picture, "/hosts").map
    assert drawn is not None
    assert [group.name for group in drawn.groups] == [f"rack-{number:02}" for number in range(10)]
    one = support.page(picture, "/hosts?by=").map
    assert one is not None
    assert [len(group.hosts) for group in one.groups] == [20]
    # a label that each host has its own value of groups nothing, from 200 hosts on; and none that does not exist
    assert support.page(picture, "/hosts?by=nothing").map == one


def test_sums_follow_each_change() -> None:
    picture = support.pictured(MIXED)
    support.put(picture, kinds.TEMPLATE_PLACEMENTS, fleet.copy(1), 2)
    picture.copies.forget(fleet.copy(2)["metadata"]["name"], 3)
    support.put(picture, kinds.HOSTS, fleet.host(1, "Down"), 2)
    key = f"{fleet.NAMESPACE}/{fleet.TEMPLATE}"
    kept, counted = picture.tally(key, fleet.ZONE), tallied(picture.copies_of(key))
    assert kept.phases == counted.phases == {Phase.READY: 2}
    assert not kept.failing
    assert (kept.downloaded_bytes, kept.bytes_per_second) == (2 * fleet.SIZE_BYTES, 0)
    assert +picture.host_states == {(fleet.ZONE, "Up"): 2, (fleet.ZONE, "Down"): 1}
    assert not picture.copies_on(fleet.host_name(2))


def test_a_deployment_that_selects_hosts_shows_only_their_copies() -> None:
    picture = support.pictured(MIXED)
    support.put(picture, kinds.TEMPLATE_DEPLOYMENTS, fleet.deployment(desired=1, hosts=[fleet.host_name(0)]), 2)
    shown = support.page(picture, ROLLOUT).content
    assert dict(shown.counts) == {"Ready": 1}
    assert list(shown.map.cells) == [fleet.host_name(0)]


def test_a_down_host_is_counted_and_shown_so() -> None:
    picture = support.pictured()
    support.put(picture, kinds.HOSTS, fleet.host(1, "Down"), 2)
    assert ("Down", 1) in support.page(picture, "/").content.host_states
    assert support.page(picture, "/hosts").content.map.cells[fleet.host_name(1)] == "dn"


def test_a_revoked_certificate_and_one_that_expires_are_a_concern() -> None:
    picture = support.pictured()
    assert not support.page(picture, "/").content.certificates
    support.put(picture, kinds.CERTIFICATES, fleet.certificate(proved=0, revoked=True), 2)
    (row,) = support.page(picture, "/").content.certificates
    assert row.concern == "Provisioning"
    support.put(picture, kinds.HOSTS, fleet.host(0, proofs=[fleet.proof("Revoked")]), 2)
    shown = support.page(picture, "/certificates/my-ca").content
    assert (shown.proved, shown.pending) == (1, 2)
    assert shown.map.cells[fleet.host_name(0)] == "cr"


def test_proofs_are_judged_as_the_command_line_judges_them() -> None:
    told = [
        fleet.proof(),
        fleet.proof("Failed", reason="KeystoreWriteFailed", message="no space"),
        fleet.proof("Revoked"),
    ]
    documents = [*(fleet.host(number, proofs=[each]) for number, each in enumerate(told)), fleet.host(3, "Down")]
    picture = Picture()
    for each in documents:
        support.put(picture, kinds.HOSTS, each)
    certificate = DirectDownloadCertificate.model_validate(fleet.certificate(hosts=4))
    models = [Host.model_validate(each) for each in documents]
    assert certificate_state.of_hosts(certificate, picture.hosts) == certificate_state.of_hosts(certificate, models)


def test_a_filling_pool_stands_out_with_its_fullest_host() -> None:
    picture = support.pictured()
    support.put(picture, kinds.HOSTS, fleet.host(1, used=91), 2)
    (row,) = support.page(picture, "/").content.pools
    assert (row.fullest_percent, row.full) == (91, True)
    assert row.fullest.text == fleet.host_name(1)
    assert "filling" in support.document(picture, "/")


def test_a_forbidden_kind_is_named_and_no_page_is_empty() -> None:
    picture = support.pictured(MIXED)
    forbidden = errors.Forbidden(403, "Forbidden", "no")
    for resource in (kinds.HOSTS, kinds.TEMPLATE_PLACEMENTS, kinds.CERTIFICATES, kinds.STORAGE_POOLS):
        picture.feeds[resource] = Feed(resource)
        picture.feeds[resource].fail(forbidden)
    text = support.document(picture, "/")
    for plural in ("hosts", "templateplacements", "directdownloadcertificates", "storagepools"):
        assert f"You may not list and watch {plural} (403)" in text
    assert "Hosts are not known." in text


def test_a_lost_connection_is_said_with_the_time_and_ends() -> None:
    feed = Feed(kinds.HOSTS)
    feed.begin(0.0)
    feed.completed(NOW)
    feed.fail(errors.Unreachable(0, "ConnectionFailed", "no"))
    assert feed.state is State.LOST
    picture = support.pictured()
    picture.feeds[kinds.HOSTS] = feed
    shown = NOW.astimezone().strftime("%H:%M:%S")
    assert f"As of {shown}, reconnecting" in support.document(picture, "/")
    # another answer says nothing while no watch is open, nor about one that has just begun
    feed.answered(NOW, 10.0)
    feed.begin(10.0)
    feed.answered(NOW, 10.5)
    assert feed.state is State.LOST
    feed.answered(NOW + datetime.timedelta(seconds=9), 11.5)
    assert (feed.state, feed.as_of) == (State.LIVE, NOW + datetime.timedelta(seconds=9))


def test_a_kind_that_is_not_installed_is_named() -> None:
    picture = Picture()
    picture.feeds[kinds.ZONES].fail(errors.NotFound(404, "NotFound", "no"))
    assert "The cluster serves no zones" in support.document(picture, "/")


def test_an_unreadable_object_is_counted_not_hidden() -> None:
    picture = support.pictured()
    support.put(picture, kinds.TEMPLATE_PLACEMENTS, {**fleet.copy(0), "spec": {}})
    assert "1 of templateplacements cannot be read" in support.document(picture, "/")


def test_a_search_finds_what_begins_so_first() -> None:
    picture = support.pictured(hosts=12)
    groups = support.page(picture, "/search?q=KVM-0001").content.found
    found = {each.kind: [link.text for link in each.links] for each in groups}
    assert found == {"Hosts": ["kvm-00010", "kvm-00011"]}
    names = support.page(picture, "/search?q=ev").content.found
    assert [link.text for each in names for link in each.links] == ["images/everywhere"]


def test_the_history_keeps_its_beginning_and_is_bounded() -> None:
    kept = History()
    for number in range(10 * LIMIT):
        assert kept.sample(NOW + datetime.timedelta(seconds=number), {"a": (number, 5000), "b": (1, 1)}) is True
    assert kept.sample(NOW, {"a": (10 * LIMIT - 1, 5000)}) is False
    samples = kept.of("a")
    assert len(samples) <= LIMIT
    assert (samples[0].ready, samples[-1].ready) == (0, 10 * LIMIT - 1)
    assert not kept.of("b")
    points = common.chart(samples, NOW)
    assert re.fullmatch(r"(\d+\.?\d*,\d+\.?\d* ?)+", points)


def test_each_page_names_commands_that_exist() -> None:
    lines = [
        *(*commands.fleet("zone-1"), *commands.hosts(None), *commands.rollouts(), *commands.templates()),
        *(*commands.rollout("a", "b", "c", "d"), *commands.template("a", "b"), *commands.host("a", "z")),
        *(*commands.certificates("z"), *commands.certificate("a", "z"), commands.pool("a", "h")),
    ]
    for line in lines:
        words = line.split()
        if words[0] == "directdownload":
            context = cli.make_context("directdownload", words[1:])
            while hasattr(context.command, "resolve_command"):
                rest = [*context._protected_args, *context.args]
                _, command, rest = context.command.resolve_command(context, rest)
                context = command.make_context(command.name, rest, parent=context)


def test_names_in_commands_are_quoted_for_a_shell() -> None:
    assert "'a;rm -rf ~'" in commands.host("a;rm -rf ~", "z")[0]


def test_advice_is_that_of_the_page_of_reasons() -> None:
    assert advice.main([str(DOCS / "reasons.md"), "--check"]) == 0, "run `make docs`"
    assert all(advice.of(reason.value) for reason in Reason)


@pytest.mark.parametrize(
    ("told", "concern"),
    [
        ({"conditions": [fleet.condition("Expiring", "True", "ExpiringSoon")]}, "ExpiringSoon"),
        ({"notAfter": "2026-01-31T12:00:00Z", "conditions": []}, "Expired"),
        ({"conditions": [fleet.condition("Ready", "False", "InvalidCertificate")]}, "InvalidCertificate"),
        ({"hosts": {"desired": 3, "uploaded": 2, "failed": 1}}, "not proven everywhere"),
        # a host that is Down catches up when it returns
        ({"hosts": {"desired": 3, "uploaded": 2, "down": 1}}, ""),
        ({}, ""),
    ],
)
def test_a_certificate_near_its_end_or_without_a_proof_is_on_the_first_page(told: Object, concern: str) -> None:
    picture = support.pictured()
    document = fleet.certificate()
    document["status"] |= told
    support.put(picture, kinds.CERTIFICATES, document, 2)
    assert [row.concern for row in support.page(picture, "/").content.certificates] == ([concern] if concern else [])


def test_one_zone_shows_nothing_of_others() -> None:
    """Kinds with a zone are selected by the API server; deployments and Zones here."""
    picture = Picture("zone-2")
    for name in (fleet.ZONE, "zone-2"):
        support.put(picture, kinds.ZONES, fleet.zone(name))
        support.put(picture, kinds.TEMPLATE_DEPLOYMENTS, fleet.deployment(f"in-{name}", zone=name))
    shown = support.page(support.complete(picture), "/").content
    assert [row.name for row in shown.zones] == ["zone-2"]
    assert [row.link.text for row in shown.rollouts] == [f"{fleet.NAMESPACE}/in-zone-2"]
    assert "--zone zone-2" in " ".join(shown.commands)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_times_at_the_ends_of_the_calendar_are_shown(time: str) -> None:
    picture = support.pictured()
    host, certificate = fleet.host(0), fleet.certificate()
    host["status"]["conditions"][0]["lastTransitionTime"] = time
    certificate["status"] |= {"notBefore": time, "notAfter": time}
    support.put(picture, kinds.HOSTS, host, 2)
    support.put(picture, kinds.CERTIFICATES, certificate, 2)
    for target in support.PAGES:
        support.document(picture, target)
    assert time in support.document(picture, f"/hosts/{fleet.host_name(0)}")
