"""Which versions of an app stand beside each other, and what each is to get, as `rayline status` tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deploy.cli.output import table
from rayline.app_spec import AppSpec
from rayline.config import Presence
from rayline.reports import NodeReport
from rayline.versions import VersionWeights

_SETTING = "traffic.version_weights"


def weights_in_force(presences: Iterable[Presence]) -> dict[str, VersionWeights]:
    """By app, what a lane of it says that it has in force."""
    found = {}
    for presence in presences:
        app, (value, _) = presence.identity.app, presence.values.get(_SETTING, (None, ""))
        if app is not None and isinstance(value, dict):
            found[app] = VersionWeights(value)
    return found


def version_rows(
    app: AppSpec, nodes: Sequence[NodeReport], weights: VersionWeights, *, wanted: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The versions of an app: the newest, others that are wanted, those that nodes have actors of, and names with a weight that
    mean none of these (`nodes` is None there)."""
    actors = [(report.key, actor.version) for report in nodes for actor in report.actors or () if actor.app == app.name]
    deployed = [app.version, *wanted]
    versions = [*deployed, *sorted({version for _, version in actors}.difference(deployed))]
    rows: list[dict[str, Any]] = [
        {
            "version": version,
            "weight": weights.of(version),
            "nodes": len({node for node, of in actors if of == version}),
            "actors": sum(of == version for _, of in actors),
        }
        for version in versions
    ]
    unmatched = weights.unmatched(versions)
    return rows + [{"version": name, "weight": weights.named[name], "nodes": None, "actors": 0} for name in unmatched]


def versions_text(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """A table of the apps that have more than one version, or whose only one is weighed; nothing where there are none."""
    cells = [
        (app, row["version"], f"{row['weight']:g}", "no such version" if row["nodes"] is None else row["nodes"], row["actors"])
        for app, versions in rows.items()
        if len(versions) > 1 or any(row["weight"] != 1 for row in versions)
        for row in versions
    ]
    return [table(("APP", "VERSION", "WEIGHT", "NODES", "ACTORS"), cells)] if cells else []
