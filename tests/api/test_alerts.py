"""The chart's alerts, as Helm renders them, by promtool: they fire when they should and not when they should not.

The cases are in alerts_test.yaml. Their words are compared with runbooks, documentation and the metrics that exist.
"""

import pathlib
import re
import subprocess
from typing import Any

import pytest
import yaml
from tests.world import kube, promql
from tests.world.checkout import CHART, REPOSITORY
from tests.world.kube import Object

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

CASES = pathlib.Path(__file__).with_name("alerts_test.yaml")
RUNBOOKS = REPOSITORY / "docs" / "runbooks"
SEVERITIES = ("critical", "warning", "info")


def rule(*arguments: str) -> Object:
    rendered = kube.rendered("release", "there", "--set", "prometheusRule.enabled=true", *arguments)
    (found,) = (each for each in yaml.safe_load_all(rendered) if each and each["kind"] == "PrometheusRule")
    return dict(found)


def alerts(*arguments: str) -> dict[str, Object]:
    (group,) = rule(*arguments)["spec"]["groups"]
    found = {each["alert"]: each for each in group["rules"]}
    assert len(found) == len(group["rules"]), "two alerts of one name"
    return found


@pytest.fixture(scope="module")
def rendered() -> dict[str, Object]:
    return alerts()


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=300)


def written(directory: pathlib.Path, *arguments: str) -> pathlib.Path:
    """The rendered rules as a file for Prometheus."""
    path = directory / "alerts.yaml"
    path.write_text(yaml.safe_dump(rule(*arguments)["spec"]))
    return path


def test_alerts_fire_when_they_should_and_not_otherwise(tmp_path: pathlib.Path) -> None:
    written(tmp_path)
    (tmp_path / CASES.name).write_text(CASES.read_text())
    tested = promtool("test", "rules", str(tmp_path / CASES.name))
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(rendered: dict[str, Object]) -> None:
    cases = [case for test in yaml.safe_load(CASES.read_text())["tests"] for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == set(rendered)
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == set(rendered)


def test_a_threshold_moves_its_alert(tmp_path: pathlib.Path) -> None:
    """Else the cases would pass whatever the values say."""
    written(tmp_path, "--set", "prometheusRule.thresholds.poolFillingPercent=91")
    (tmp_path / CASES.name).write_text(CASES.read_text())
    tested = promtool("test", "rules", str(tmp_path / CASES.name))
    assert tested.returncode != 0
    assert re.findall(r"alertname: (\w+)", tested.stdout + tested.stderr) == ["DirectDownloadPoolFilling"]


def test_every_threshold_is_used_and_every_place_of_one_is_filled() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())["prometheusRule"]["thresholds"]
    used = set(re.findall(r"@(\w*)@", (CHART / "files" / "alerts.yaml").read_text()))
    assert used == set(values)
    assert "@" not in yaml.safe_dump(rule())


def test_rules_are_ones_that_prometheus_loads(tmp_path: pathlib.Path) -> None:
    checked = promtool("check", "rules", str(written(tmp_path)))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_each_alert_says_how_bad_what_and_where_to_read_on(rendered: dict[str, Object]) -> None:
    for name, alert in rendered.items():
        assert re.fullmatch(r"DirectDownload[A-Z]\w+", name)
        assert alert["labels"]["severity"] in SEVERITIES, name
        annotations = alert["annotations"]
        assert set(annotations) == {"summary", "description", "runbook_url"}, name
        assert annotations["runbook_url"] == f"docs/runbooks/{name}.md"
        assert len(annotations["summary"]) < 100, name
        # Whatever it is split by, it names.
        for label in promql.grouping(alert["expr"]):
            assert f"$labels.{label}" in annotations["summary"] + annotations["description"], f"{name}: {label}"


def test_each_alert_has_a_runbook_and_each_runbook_its_alert(rendered: dict[str, Object]) -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == set(rendered)
    for name in rendered:
        page = (RUNBOOKS / f"{name}.md").read_text()
        headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        assert headings == [name, "Meaning", "Impact", "Diagnosis", "Mitigation"], name
        assert "```sh\n" in page.partition("## Diagnosis")[2].partition("## Mitigation")[0], f"{name}: no command"


def test_the_list_of_alerts_is_complete_and_says_the_same(rendered: dict[str, Object]) -> None:
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(runbooks/(\w+)\.md\) \| (\w+) \| .* \|$",
        (REPOSITORY / "docs" / "alerts.md").read_text(),
        re.M,
    )
    assert [(name, name, severity) for name, _, severity in rows] == rows
    assert {name: severity for name, _, severity in rows} == {
        name: alert["labels"]["severity"] for name, alert in rendered.items()
    }


def test_alerts_use_metrics_and_labels_that_exist(rendered: dict[str, Object]) -> None:
    for name, alert in rendered.items():
        assert promql.metrics(alert["expr"]), name
        assert promql.unknown(alert["expr"]) == [], name


def test_values_of_the_rule_arrive() -> None:
    arguments: list[Any] = [
        *("--set", "prometheusRule.disabled={DirectDownloadPoolFull,DirectDownloadPoolFilling}"),
        *("--set", "prometheusRule.labels.release=prometheus,prometheusRule.alertLabels.team=storage"),
        *(
            "--set",
            "prometheusRule.alertLabels.severity=mine,prometheusRule.runbookUrl=https://wiki.example.org/runbooks/",
        ),
        *("--set", "prometheusRule.thresholds.certificateDays=45"),
    ]
    assert rule(*arguments)["metadata"]["labels"]["release"] == "prometheus"
    found = alerts(*arguments)
    assert set(alerts()) - set(found) == {"DirectDownloadPoolFull", "DirectDownloadPoolFilling"}
    for name, alert in found.items():
        assert alert["labels"]["team"] == "storage"
        assert alert["labels"]["severity"] in SEVERITIES
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example.org/runbooks/{name}.md"
    assert "< 45 * 86400" in found["DirectDownloadCertificateExpiring"]["expr"]


def test_there_is_no_rule_unless_it_is_asked_for_and_none_without_alerts_that_exist() -> None:
    assert "PrometheusRule" not in kube.rendered("release", "there")
    refused = kube.helm(
        *("template", "release", str(CHART), "--set", "prometheusRule.disabled={DirectDownloadNonsense}"), check=False
    )
    assert "at '/prometheusRule/disabled/0': value must be one of" in refused.stderr


def test_the_schema_knows_every_alert(rendered: dict[str, Object]) -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    assert schema["properties"]["prometheusRule"]["properties"]["disabled"]["items"]["enum"] == list(rendered)
