"""The chart's dashboard, as Helm renders it: every query asks for what a scrape has."""

import json
import pathlib
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.world import kube, promql
from tests.world.kube import Object

# Building helm, where it is missing, takes minutes.
pytestmark = pytest.mark.timeout(600)

#: What each is replaced by before an expression is parsed.
VARIABLES = {"$__rate_interval": "5m", "$zone": ".*", "$host": ".*"}


def config_map(*arguments: str) -> Object:
    rendered = kube.rendered("release", "there", "--set", "dashboard.enabled=true", *arguments)
    (found,) = (
        each
        for each in yaml.safe_load_all(rendered)
        if each and each["kind"] == "ConfigMap" and each["metadata"]["name"].endswith("-dashboard")
    )
    return dict(found)


@pytest.fixture(scope="module")
def dashboard() -> Any:
    ((name, text),) = config_map()["data"].items()
    assert name == "release-direct-download-operator.json"
    return json.loads(text)


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    """Where each stands, and the expression."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in dashboard["templating"]["list"]:
        match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
        if match is not None:
            yield variable["name"], f"sum by ({match[2]}) ({match[1]})"


def test_the_sidecar_finds_it() -> None:
    metadata = config_map()["metadata"]
    assert metadata["labels"]["grafana_dashboard"] == "1"
    assert "annotations" not in metadata
    metadata = config_map("--set", "dashboard.folder=Storage,dashboard.labels.also=x")["metadata"]
    assert metadata["annotations"] == {"grafana_folder": "Storage"}
    assert metadata["labels"]["also"] == "x"
    assert "-dashboard" not in kube.rendered("release", "there")


def test_panels_are_told_apart_and_do_not_overlap(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        where = panel["gridPos"]
        assert where["x"] + where["w"] <= 24
        cells = {
            (x, y)
            for x in range(where["x"], where["x"] + where["w"])
            for y in range(where["y"], where["y"] + where["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_query_goes_to_the_data_source_that_is_chosen(dashboard: Any) -> None:
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
            assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    assert names == ["datasource", "zone", "host"]


def test_queries_use_metrics_and_labels_that_exist(dashboard: Any) -> None:
    for title, expression in queries(dashboard):
        assert promql.metrics(expression), title
        assert promql.unknown(expression) == [], title
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = promql.grouping(target["expr"]) or promql.TARGET_LABELS
            assert shown <= kept, panel["title"]


def test_every_metric_of_the_product_but_some_is_shown(dashboard: Any) -> None:
    series = {name for _, expression in queries(dashboard) for name in promql.metrics(expression)}
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in series}
    described = {re.sub(r"_(bucket|count|sum)$", "", name) for name in promql.known()}
    assert {name for name in described - shown if name.startswith("directdownload_")} == {
        "directdownload_events_dropped_total",
        # An alert compares it with the placements.
        "directdownload_placements_limit",
        "directdownload_verifications_total",
        # An alert tells of it, and who looks needs the object's name.
        "directdownload_unreadable_objects",
    }


def test_every_query_parses(dashboard: Any, tmp_path: pathlib.Path) -> None:
    """As recording rules, by Prometheus' own parser."""
    rules = []
    for number, (_, expression) in enumerate(queries(dashboard)):
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        assert "$" not in expression
        rules.append({"record": f"query_{number}", "expr": expression})
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
