"""Which volumes are served: each refusal names its field, what was expected, and what to do."""

import pathlib
from typing import Any

import pytest
from tests.world.csi_world import CONTEXT, UID, VOLUME, Host

from directdownload.csi import mountsource, requests
from directdownload.csi.errors import InvalidArgumentError, UnavailableError
from directdownload.csi.messages import Access, Empty, MountVolume, VolumeCapability
from directdownload.resources.volumes import MountedVolume

HOST = Host(pathlib.Path("/h"))
PODS = "/h/kubelet/pods"
MOUNT = MountVolume()


def wanted(**changed: Any) -> requests.Wanted:
    return requests.wanted(HOST.request(**changed), PODS)


def capability(mode: int) -> VolumeCapability:
    return VolumeCapability(mount=MOUNT, access_mode=Access(mode))


def mounting(**fields: Any) -> VolumeCapability:
    return VolumeCapability(mount=MountVolume(**fields), access_mode=Access(3))


def test_a_request_of_kubelet_is_served() -> None:
    found = wanted()
    assert (found.volume, found.namespace, found.pod, found.template) == (VOLUME, "team-a", "vm-0", "debian-13")
    assert (found.target.pods, found.target.path) == (PODS, str(HOST.target()))


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_access_modes_that_read_are_served_and_what_kubelet_sends_for_every_volume_of_a_pod(mode: int) -> None:
    assert wanted(volume_capability=capability(mode)).volume == VOLUME


@pytest.mark.parametrize(
    "template", ["a", "golden/debian-13", "debian.13", "n" * 63 + "/" + "t" * 253, "t" * 200, "n" * 63 + "/" + "t" * 63]
)
def test_a_template_is_named_alone_or_with_its_namespace(template: str) -> None:
    assert wanted(volume_context={**CONTEXT, "template": template}).template == template


@pytest.mark.parametrize("volume", ["pvc-" + UID, "a", "A_b.c-d", "v" * 253])
def test_volumes_have_the_names_of_kubelet_and_of_persistent_volumes(volume: str) -> None:
    assert wanted(volume_id=volume).volume == volume


def test_tokens_that_kubelet_adds_are_ignored() -> None:
    assert wanted(volume_context={**CONTEXT, "csi.storage.k8s.io/serviceAccount.tokens": "{}"}).volume == VOLUME


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in CONTEXT.items() if key != name}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"volume_id": ""}, "volume_id: expected 1 to 253 letters, digits, '-', '.' and '_', found nothing"),
        ({"volume_id": "a/b"}, "found 'a/b'"),
        ({"volume_id": ".."}, "found '..'"),
        ({"volume_id": "v" * 254}, "volume_id"),
        ({"volume_id": "v\n"}, "found 'v\\\\n'"),
        ({"target_path": ""}, "target_path: expected a path below /h/kubelet/pods"),
        ({"target_path": "kubelet/pods/x"}, "target_path"),
        ({"target_path": PODS}, "set the chart's csi.kubeletDirectory"),
        ({"target_path": f"{PODS}/../x"}, "without '.', '..' and '//'"),
        ({"target_path": f"{PODS}/a//b"}, "target_path"),
        ({"target_path": f"{PODS}/a/"}, "target_path"),
        ({"target_path": f"/{PODS}/a"}, "target_path"),
        ({"target_path": f"{PODS}/a\0"}, "target_path"),
        ({"target_path": f"{PODS}/" + "a/" * 2048 + "b"}, "target_path"),
        ({"target_path": "/h/kubelet/podsx/a"}, "target_path"),
        ({"volume_capability": None}, "volume_capability: expected one"),
        ({"volume_capability": VolumeCapability(block=Empty(), access_mode=Access(3))}, "set volumeMode: Filesystem"),
        ({"volume_capability": VolumeCapability(access_mode=Access(3))}, "expected access type mount"),
        ({"volume_capability": VolumeCapability(mount=MOUNT)}, "access_mode: expected one that reads"),
        *(({"volume_capability": capability(mode)}, "set accessModes: ReadOnlyMany") for mode in (0, 4, 5, 6, 7, 99)),
        ({"volume_capability": mounting(fs_type="ext4")}, "fs_type: expected none; remove fsType"),
        ({"volume_capability": mounting(mount_flags=("rw",))}, "mount_flags: expected none; remove mountOptions"),
        (
            {"volume_capability": mounting(volume_mount_group="7")},
            "volume_mount_group: expected none; set fsGroupPolicy",
        ),
        ({"readonly": False}, "readonly: template volumes are read-only; set readOnly: true"),
        ({"secrets": {"password": "x"}}, "secrets: expected none; remove nodePublishSecretRef"),
        ({"publish_context": {"a": "b"}}, "publish_context: expected none; set attachRequired: false"),
        ({"staging_target_path": "/s"}, "staging_target_path: expected none"),
        (
            {"volume_context": {**CONTEXT, "size": "1", "Template": "x"}},
            "volumeAttributes: unknown Template, size; the",
        ),
        ({"volume_context": without("template")}, "volumeAttributes.template: expected the name of a Template"),
        *(
            ({"volume_context": {**CONTEXT, "template": name}}, "volumeAttributes.template: expected")
            for name in (
                "Debian",
                "a/b/c",
                "/a",
                "a/",
                "a..b",
                "-a",
                "a-",
                "a+b",
                "a b",
                "a\n",
                "t" * 254,
                "n" * 64 + "/a",
            )
        ),
    ],
)
def test_everything_else_is_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        wanted(**changed)
    assert words.replace("\\\\", "\\") in refused.value.message
    assert "password" not in refused.value.message


@pytest.mark.parametrize(
    "context",
    [
        without("csi.storage.k8s.io/pod.namespace"),
        without("csi.storage.k8s.io/pod.name"),
        {**CONTEXT, "csi.storage.k8s.io/pod.namespace": "a/b"},
        {**CONTEXT, "csi.storage.k8s.io/pod.name": "A"},
    ],
)
def test_without_the_words_of_kubelet_about_the_pod_nothing_is_served_until_the_csidriver_asks_for_them(
    context: dict[str, str],
) -> None:
    with pytest.raises(UnavailableError, match="set podInfoOnMount: true"):
        wanted(volume_context=context)


def test_a_refusal_is_one_short_line_without_the_sign_that_kubelet_garbles() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        wanted(volume_context={**CONTEXT, "50%\n\x1b[31m" + "x" * 5000: "1"})
    assert "50 per cent\\n\\x1b[31mx" in refused.value.message
    assert "%" not in refused.value.message
    assert len(refused.value.message) <= 600
    assert refused.value.message.isprintable()


def test_a_mount_names_a_volume_that_can_be_read_again() -> None:
    volume = MountedVolume(volume=VOLUME, namespace="team-a", template="golden/debian-13", uid=UID)
    assert mountsource.source(volume) == f"directdownload.dev/{VOLUME}/team-a/golden+debian-13/{UID}"
    assert mountsource.read(mountsource.source(volume)) == volume


@pytest.mark.parametrize(
    "text",
    [
        "tmpfs",
        "directdownload.dev/",
        "directdownload.dev/a/b/c",
        "directdownload.dev/a/b/c/d/e",
        "x/a/b/c/d",
        "directdownload.dev/a b/b/c/d",
    ],
)
def test_other_mounts_name_none(text: str) -> None:
    assert mountsource.read(text) is None


def test_no_mount_is_named_by_words_that_could_not_be_read_again() -> None:
    with pytest.raises(ValueError, match="not the words of a volume"):
        mountsource.source(MountedVolume(volume="a/b", namespace="n", template="t", uid=UID))


def test_directories_are_compared_without_their_last_slash() -> None:
    settings = HOST.settings(kubelet_directory="/var/lib/kubelet/", pool_roots=("/var/lib/libvirt//images/",))
    assert settings.pods == "/var/lib/kubelet/pods"
    assert settings.socket == "/var/lib/kubelet/plugins_registry/directdownload.dev.sock"
    assert settings.pool_roots == ("/var/lib/libvirt/images",)
