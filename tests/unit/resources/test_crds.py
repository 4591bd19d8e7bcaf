"""The CRDs are those of the models, for every kind, and a stale file is noticed."""

import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.world import checkout
from tests.world.checkout import CRDS

from directdownload.resources import crd, pem
from directdownload.resources.base import Resource
from directdownload.resources.certificate import DirectDownloadCertificate


def generator(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "directdownload.resources.crd", *arguments]
    return subprocess.run(command, env=checkout.environment(), capture_output=True, text=True, timeout=120)


def test_the_files_are_current_and_there_is_one_for_each_kind() -> None:
    checked = generator(str(CRDS), "--check")
    assert checked.returncode == 0, checked.stderr
    assert {path.stem for path in CRDS.glob("*.yaml")} == {kind.DEFINITION.plural for kind in crd.KINDS}


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_a_stale_file_is_named(tmp_path: pathlib.Path, how: str) -> None:
    shutil.copytree(CRDS, tmp_path, dirs_exist_ok=True)
    stale = tmp_path / "zones.yaml"
    if how == "missing":
        stale.unlink()
    else:
        stale.write_text(stale.read_text().replace("enabled", "enabelt", 1))
    checked = generator(str(tmp_path), "--check")
    assert checked.returncode == 1
    assert f"{stale}; run `make crds`" in checked.stderr
    assert generator(str(tmp_path)).returncode == 0
    assert stale.read_text() == (CRDS / "zones.yaml").read_text()


def schemas(node: Any, path: str = "") -> Any:
    """Every schema in a schema, with its path."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from schemas(child, f"{path}.{name}")
    for word in ("items", "additionalProperties"):
        if isinstance(node.get(word), dict):
            yield from schemas(node[word], f"{path}[]")


#: By the end of its path, why a field may be as long as an object may be.
_AS_LONG_AS_THEY_LIKE: dict[str, str] = {}


def _unbounded(schema: Any, path: str) -> Iterator[str]:
    """What has no bound: a text or a list no longest, a map no most or its keys no longest, a number of a status that
    could be negative, which no reader expects."""
    words = schema.get("type"), schema.get("format")
    if words[0] == "string" and not schema.keys() & {"enum", "maxLength"} and words[1] != "date-time":
        yield f"{path}: expected maxLength or enum"
    if words[1] == "date-time" and "pattern" not in schema:
        yield f"{path}: expected the pattern of a time that can be read"
    if schema.get("x-kubernetes-int-or-string") and "maxLength" not in schema:
        yield f"{path}: expected maxLength"
    if words[0] == "array" and "maxItems" not in schema:
        yield f"{path}: expected maxItems"
    if words[0] == "object" and "properties" not in schema:
        rules = [each["rule"] for each in schema.get("x-kubernetes-validations", ())]
        if "maxProperties" not in schema:
            yield f"{path}: expected maxProperties"
        if not any(re.search(r"self\.all\(k, size\(k\) <= \d+\)", rule) for rule in rules):
            yield f"{path}: expected a rule that bounds the length of its keys"
    if words[0] == "integer" and path.startswith("status") and "minimum" not in schema:
        yield f"{path}: expected minimum"


@pytest.mark.parametrize("part", ["spec", "status"])
@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: str(kind.__name__))
def test_everything_has_a_bound(kind: type[Resource], part: str) -> None:
    """Objects are kept for each of thousands, and travel to others: nobody makes one field as large as they like."""
    schema = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    found = [problem for path, each in schemas(schema, part) for problem in _unbounded(each, path)]
    assert not [each for each in found if not each.partition(":")[0].endswith(tuple(_AS_LONG_AS_THEY_LIKE))]


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: str(kind.__name__))
def test_kubectl_explains_every_field(kind: type[Resource]) -> None:
    schema = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert schema["description"].strip()
    found = [each for part in ("spec", "status") for each in schemas(schema["properties"][part], part)]
    assert len(found) > 10
    # What stands in a list is explained by the list.
    assert [path for path, each in found if not each.get("description", "").strip() and not path.endswith("[]")] == []


@pytest.mark.parametrize("kind", crd.KINDS, ids=lambda kind: str(kind.__name__))
def test_every_definition_keeps_the_rules(kind: type[Resource]) -> None:
    document = yaml.safe_load(crd.render(kind))
    names, (version,) = document["spec"]["names"], document["spec"]["versions"]
    assert names["kind"] == kind.__name__
    assert names["categories"] == ["directdownload"]
    assert names["shortNames"][0].startswith("dd")
    assert version["subresources"] == {"status": {}}
    assert version["additionalPrinterColumns"][-1]["name"] == "Age" or kind.__name__ == "TemplatePlacement"
    schema = version["schema"]["openAPIV3Schema"]
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "observedGeneration" in schema["properties"]["status"]["properties"]
    for path, found in schemas(schema["properties"]["spec"], "spec"):
        assert "$ref" not in found, path
        if found.get("type") == "array":
            assert "maxItems" in found, path
        for rule in found.get("x-kubernetes-validations", ()):
            # a transition rule says what cannot be changed; every other one gives an example
            assert "oldSelf" in rule["rule"] or re.search("example|such as|0 to|off|limit", rule["message"]), rule


def test_short_names_are_the_public_ones() -> None:
    found = {kind.DEFINITION.kind: kind.DEFINITION.short_name for kind in crd.KINDS}
    assert found == {
        "Zone": "ddzone",
        "Host": "ddhost",
        "StoragePool": "ddpool",
        "Template": "ddtemplate",
        "TemplateDeployment": "dddeploy",
        "TemplatePlacement": "ddplacement",
        "DirectDownloadCertificate": "ddcert",
    }


def test_what_may_be_published_fits_into_the_status() -> None:
    """A certificate that is taken, and is refused as a status each time, is published by nobody."""
    properties = crd.definition(DirectDownloadCertificate)["spec"]["versions"][0]["schema"]["openAPIV3Schema"][
        "properties"
    ]
    status = properties["status"]["properties"]
    assert properties["spec"]["properties"]["certificate"]["maxLength"] == pem.TEXT_LIMIT
    assert status["certificate"]["maxLength"] == pem.TEXT_LIMIT
    assert status["previous"]["properties"]["certificate"]["maxLength"] == pem.TEXT_LIMIT
