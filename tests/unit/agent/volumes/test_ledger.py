"""Which volumes there are, and which Template each one has, over a restart."""

import errno
import logging
import pathlib

import hypothesis
import pytest
from hypothesis import strategies
from tests.world.faulty_fs import Fault, FaultyFileSystem
from tests.world.plugin import NOW, UID

from directdownload.agent.volumes.ledger import FILE_NAME, Entry, Ledger, Volume

VOLUME = Volume(namespace="web", template="debian-13", uid=UID, since=NOW)
ENTRY = Entry(namespace="web", template="default/debian-13", since=NOW, last_used_time=NOW)


async def filled(directory: pathlib.Path) -> Ledger:
    ledger = Ledger.load(str(directory))
    ledger.volumes["v1"] = VOLUME
    ledger.demands[ENTRY.key] = ENTRY
    return ledger


async def test_what_was_saved_is_known_after_a_restart(tmp_path: pathlib.Path) -> None:
    ledger = await filled(tmp_path)
    assert (ledger.saved, ledger.durable("v1")) == (False, False)
    assert await ledger.save()
    assert (ledger.saved, ledger.durable("v1")) == (True, True)
    assert not ledger.durable("v2")
    again = Ledger.load(str(tmp_path))
    assert (again.volumes, again.demands) == ({"v1": VOLUME}, {ENTRY.key: ENTRY})
    assert again.saved
    assert again.durable("v1")


async def test_a_volume_is_durable_only_with_its_present_uid(tmp_path: pathlib.Path) -> None:
    ledger = await filled(tmp_path)
    await ledger.save()
    ledger.volumes["v1"] = VOLUME.model_copy(update={"uid": "another"})
    assert not ledger.durable("v1")


async def test_nothing_is_written_while_nothing_changes(tmp_path: pathlib.Path) -> None:
    ledger = Ledger.load(str(tmp_path))
    assert await ledger.save()
    assert not (tmp_path / FILE_NAME).exists()
    ledger.volumes["v1"] = VOLUME
    await ledger.save()
    (tmp_path / FILE_NAME).unlink()
    await ledger.save()
    assert not (tmp_path / FILE_NAME).exists()


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version":2}',
        '{"volumes":{"v":1}}',
        '{"volumes":{"v":{"namespace":"web","template":"a","since":"2025-01-31T12:00:00"}}}',
        '{"volumes":{"v":{"namespace":"web","template":"a","since":"9999-12-31T23:59:59-14:00"}}}',
        '{"volumes":{"v":{"namespace":"../web","template":"a","since":"2025-01-31T12:00:00Z"}}}',
        '{"volumes":{"v":{"namespace":"web","template":"a/b/c","since":"2025-01-31T12:00:00Z"}}}',
        '{"volumes":{"a b":{"namespace":"web","template":"a","since":"2025-01-31T12:00:00Z"}}}',
        '{"demands":[{"namespace":"web","template":"a","uid":"/","since":"2025-01-31T12:00:00Z"}]}',
        "[" * 100_000,
        "\0" * 100,
    ],
)
def test_a_file_that_cannot_be_read_counts_as_none(
    tmp_path: pathlib.Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    ledger = Ledger.load(str(tmp_path))
    assert (ledger.volumes, ledger.demands) == ({}, {})
    assert "starting with no volumes" in caplog.text


@pytest.mark.parametrize("kind", ["directory", "link", "large"])
def test_what_is_no_plain_file_of_bounded_size_counts_as_none(tmp_path: pathlib.Path, kind: str) -> None:
    path = tmp_path / FILE_NAME
    match kind:
        case "directory":
            path.mkdir()
        case "link":
            path.symlink_to("/dev/zero")
        case "large":
            with path.open("wb") as file:
                file.write(b'{"version":1')
                file.truncate(2**30)
    assert Ledger.load(str(tmp_path)).volumes == {}


@hypothesis.given(strategies.data())
@hypothesis.settings(suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_any_damage_of_the_file_is_read_or_ignored(tmp_path: pathlib.Path, data: strategies.DataObject) -> None:
    path = tmp_path / FILE_NAME
    known = (
        b'{"version":1,"volumes":{"v1":{"namespace":"web","template":"debian-13","uid":"u","since":'
        b'"2025-01-31T12:00:00Z"}},"demands":[{"namespace":"web","template":"debian-13","uid":"u",'
        b'"since":"2025-01-31T12:00:00Z","lastUsedTime":null}]}'
    )
    start = data.draw(strategies.integers(0, len(known)))
    end = data.draw(strategies.integers(start, min(len(known), start + 8)))
    path.write_bytes(known[:start] + data.draw(strategies.binary(max_size=8)) + known[end:])
    ledger = Ledger.load(str(tmp_path))
    assert all(volume.key for volume in ledger.volumes.values())
    assert all(key == entry.key for key, entry in ledger.demands.items())


async def test_a_state_directory_that_cannot_be_written_is_reported_once_and_tried_again(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "absent"
    ledger = await filled(state)
    with caplog.at_level(logging.INFO):
        assert not await ledger.save()
        assert "cannot write" in ledger.problem
        first = ledger.retry_monotonic
        assert not await ledger.save()
        assert ledger.retry_monotonic == first, "not before the pause is over"
        ledger.retry_monotonic = 0
        assert not await ledger.save()
        assert len(caplog.records) == 1
        assert not ledger.durable("v1")
        state.mkdir()
        ledger.retry_monotonic = 0
        assert await ledger.save()
    assert ledger.problem == ""
    assert ledger.durable("v1")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_what_is_not_durable_does_not_count_as_written(tmp_path: pathlib.Path) -> None:
    """The file has its name, but the directory could not be synced: after a crash it may be the one before."""
    with FaultyFileSystem(tmp_path) as disk:
        ledger = await filled(disk.path)
        disk.fail(Fault("fsyncdir", errno.EIO))
        assert not await ledger.save()
        assert not ledger.durable("v1")
        disk.fail()
        del ledger.volumes["v1"], ledger.demands[ENTRY.key]
        assert not ledger.saved, "the file may have what is not wanted any more"
        ledger.retry_monotonic = 0
        assert await ledger.save()
        assert Ledger.load(str(disk.path)).volumes == {}
