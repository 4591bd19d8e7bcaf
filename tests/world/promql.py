"""Which metrics and labels a PromQL expression of ours names, and whether there are such.

No parser: ours are simple enough for patterns, and promtool parses them as well.
"""

import re

from directdownload.observe import metrics_reference

#: What Prometheus adds to each target, by service discovery and the chart's relabeling.
TARGET_LABELS = frozenset({"namespace", "pod", "node", "instance", "job", "container", "endpoint", "service"})
#: Of every process: prometheus-client's own collectors.
_PROCESS = {
    "process_resident_memory_bytes": set[str](),
    "process_cpu_seconds_total": set[str](),
    "process_open_fds": set[str](),
    "process_start_time_seconds": set[str](),
}
_SUFFIXES = {"_bucket": {"le"}, "_sum": set[str](), "_count": set[str]()}


def known() -> dict[str, set[str]]:
    """Each series that a scrape can have, with its labels."""
    series = dict(_PROCESS)
    for each in metrics_reference.descriptions().values():
        if each.type == "histogram":
            series |= {f"{each.name}{suffix}": {*each.labels, *more} for suffix, more in _SUFFIXES.items()}
        else:
            series[each.name] = set(each.labels)
    return series


def metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:directdownload|process)_\w+", expression))


def grouping(expression: str) -> set[str]:
    """The labels of all `by`, `on` and `group_left`."""
    groups = re.findall(r"\b(?:by|on|group_left) ?\(([^)]*)\)", expression)
    return {label.strip() for group in groups for label in group.split(",") if label.strip()}


def unknown(expression: str) -> list[str]:
    """What the expression names and no scrape has; labels in matchers are looked for at their own metric."""
    series = known()
    found = [name for name in metrics(expression) if name not in series]
    for name, matchers in re.findall(r"\b((?:directdownload|process)_\w+)\{([^}]*)\}", expression):
        labels = re.findall(r"(\w+) ?(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', "", matchers))
        found += [f"{name}{{{label}}}" for label in labels if label not in series.get(name, set()) | TARGET_LABELS]
    everywhere = TARGET_LABELS.union(*(series.get(name, set()) for name in metrics(expression)))
    return found + [label for label in grouping(expression) if label not in everywhere]
