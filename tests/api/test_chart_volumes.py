"""The chart's part of volumes: nothing without `csi.enabled`, and with it one privileged container."""

import re

import pytest
from tests.world.chart import documents, one
from tests.world.kube import Object

from directdownload.cli import pods, volume

ENABLED = ("--set", "csi.enabled=true")


def agent(*arguments: str) -> Object:
    spec: Object = one(documents("release", "system", *arguments), "DaemonSet")["spec"]["template"]["spec"]
    return spec


def test_without_volumes_nothing_is_privileged() -> None:
    found = documents("release", "system", hooks=True)
    assert "privileged: True" not in str(found).replace("'", "")
    assert not [each for each in found if each["kind"] == "CSIDriver" or each["metadata"]["name"].endswith("-volumes")]
    (container,) = agent()["containers"]
    assert not [argument for argument in container["args"] if "csi" in argument]
    assert not [each for each in agent()["volumes"] if "kubelet" in str(each)]
    assert agent()["automountServiceAccountToken"] is True
    assert "priorityClassName" not in agent()


def test_the_plugin_alone_is_privileged_and_has_no_token() -> None:
    spec = agent(*ENABLED)
    of_agent, of_plugin = spec["containers"]
    assert of_plugin["securityContext"] == {"privileged": True, "readOnlyRootFilesystem": True}
    assert of_agent["securityContext"] == agent()["containers"][0]["securityContext"]
    assert spec["automountServiceAccountToken"] is False
    token = "/var/run/secrets/kubernetes.io/serviceaccount"
    assert [token in str(each["volumeMounts"]) for each in (of_agent, of_plugin)] == [True, False]
    assert [
        each["mountPath"] for each in of_plugin["volumeMounts"] if each.get("mountPropagation") == "Bidirectional"
    ] == ["/var/lib/kubelet/pods"]
    assert all(each["readOnly"] for each in of_plugin["volumeMounts"] if each["name"].startswith("pool-root"))
    assert not [each for each in of_agent["volumeMounts"] if "kubelet" in each["mountPath"]]
    assert spec["priorityClassName"] == "system-node-critical"
    chosen = agent(*ENABLED, "--set", "agent.priorityClassName=mine")
    assert chosen["priorityClassName"] == "mine"


def test_the_plugin_takes_the_arguments_of_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    values = "csi.enabled=true,csi.kubeletDirectory=/data/kubelet,csi.holdSeconds=7"
    of_agent, of_plugin = agent("--set", values)["containers"]
    monkeypatch.setenv("NODE_NAME", "kvm-1")
    name, *arguments = of_plugin["args"]
    given = pods.csi.make_context(name, arguments).params
    assert (name, given["kubelet_directory"], given["hold_seconds"]) == ("csi", "/data/kubelet", 7)
    socket = pods.agent.make_context("agent", of_agent["args"][1:]).params["csi_socket"]
    assert given["agent_socket"] == socket
    assert [each["mountPath"] for each in of_plugin["volumeMounts"] if "kubelet" in each["mountPath"]] == [
        "/data/kubelet/plugins_registry",
        "/data/kubelet/pods",
    ]


def test_the_driver_says_whose_pod_it_is_and_is_for_pods_of_every_profile() -> None:
    driver = one(documents("release", "system", *ENABLED), "CSIDriver")
    assert driver["metadata"]["name"] == "directdownload.dev"
    assert driver["metadata"]["labels"]["security.openshift.io/csi-ephemeral-volume-profile"] == "restricted"
    assert driver["spec"] == {
        "attachRequired": False,
        "podInfoOnMount": True,
        "fsGroupPolicy": "None",
        "requiresRepublish": False,
        "seLinuxMount": False,
        "storageCapacity": False,
        "volumeLifecycleModes": ["Ephemeral", "Persistent"],
    }


def test_uninstalling_looks_for_volumes_first() -> None:
    found = [
        each
        for each in documents("release", "system", *ENABLED, "--set", "networkPolicy.enabled=true", hooks=True)
        if each["metadata"]["name"].endswith("-volumes")
    ]
    hooks = {each["kind"]: each["metadata"]["annotations"]["helm.sh/hook"] for each in found}
    assert hooks == dict.fromkeys(
        ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "Job"), "pre-delete"
    )
    (container,) = one(found, "Job")["spec"]["template"]["spec"]["containers"]
    group, name, *arguments = container["args"]
    assert group == volume.volume.name
    command = volume.volume.commands[name]
    assert command.make_context(name, arguments).params["expect_none"] is True
    (rule,) = one(found, "ClusterRole")["rules"]
    assert (rule["resources"], rule["verbs"]) == (["hosts"], ["get", "list"])


@pytest.mark.parametrize(
    ("value", "words"),
    [("csi.holdSeconds=120", "holdSeconds"), ("csi.kubeletDirectory=kubelet", "kubeletDirectory"), ("csi.on=1", "on")],
)
def test_bad_values_are_refused(value: str, words: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(words)):
        documents("release", "system", "--set", value)
