"""Going back with models: to what all nodes ran before, with one model or all, past canaries and refused records."""

from __future__ import annotations

import json
from typing import Any

from deploy.config_history import Entry
from deploy.model_choices import InForce, NodeServes, choice_before, choices_before, choices_text, models_key, nodes_of
from rayline.config import SETTINGS
from rayline.config.record import read_change
from rayline.config.setting import Scope
from rayline.models import ModelChoice, choices_value
from rayline.reports import ActorEndpoint, ModelLoad, NodeLoad, NodeReport, NodeState


def choice(number: int) -> ModelChoice:
    return ModelChoice(number, f"sha256:{number:064x}")


def entry(version: int, value: dict[str, int] | None, *, key: str = "app/ocr/models", **more: Any) -> Entry:
    """A change; `value` names publications by model, None deletes."""
    if value is None:
        return Entry(key, version, 0, None)
    said = choices_value({name: choice(number) for name, number in value.items()})
    refusal = more.pop("refusal", None)
    return Entry(key, version, 0, json.dumps({"v": 1, "value": said, **more}), refusal=refusal)


LOG = [
    entry(1, {"m": 1}),
    entry(2, {"m": 2, "t": 1}),
    entry(3, {"m": 9}, key="app/other/models"),
    entry(4, {"m": 3, "t": 1}),
    entry(5, {"m": 7, "t": 1}, only="agent/a/p1", otherwise=choices_value({"m": choice(3), "t": choice(1)})),
    entry(6, {"m": 8, "t": 1}, refusal="somebody else changed it"),
]
NOW = {"m": choice(3), "t": choice(1)}


def test_all_models_go_back_to_what_was_in_force_before_for_all_nodes() -> None:
    assert choices_before(LOG, "ocr", NOW) == {"m": choice(2), "t": choice(1)}
    back = [*LOG, entry(7, {"m": 2, "t": 1})]
    assert choices_before(back, "ocr", {"m": choice(2), "t": choice(1)}) == NOW


def test_one_model_goes_back_alone() -> None:
    assert choice_before(LOG, "ocr", "m", NOW) == {"m": choice(2), "t": choice(1)}
    assert choice_before(LOG, "ocr", "t", NOW) == {"m": choice(3)}
    assert choice_before(LOG, "ocr", "unknown", NOW) is None


def test_before_the_first_choice_everything_was_the_bundles_own() -> None:
    assert choices_before(LOG[:1], "ocr", {"m": choice(1)}) == {}
    assert choice_before(LOG[:1], "ocr", "m", {"m": choice(1)}) == {}
    assert choices_before([*LOG[:1], entry(7, None)], "ocr", {}) == {"m": choice(1)}
    assert choices_before([], "ocr", {}) is None


def test_a_change_counts_only_where_nobody_else_changed_it_meanwhile() -> None:
    change = InForce(4, NOW, 6).with_choices("ocr", {"m": choice(1)})
    assert change.if_previous == 6
    assert change.key == models_key("ocr")
    assert change.key.scope is Scope.APP
    assert read_change(change.key, SETTINGS["models"], change.encode()) == change


def test_nodes_where_the_app_runs_tell_what_they_serve_and_why_not() -> None:
    def report(node: str, app: str, *models: ModelLoad, reason: str | None = None) -> NodeReport:
        actors = (ActorEndpoint(app, "1", "a", "h", 1, 2, "i"),)
        load = NodeLoad(models=models)
        return NodeReport("c", node, 1, 1, NodeState.READY, actors=actors, load=load, reason=reason)

    found = nodes_of(
        [
            report("p2", "ocr", ModelLoad("ocr", 9, 4, "the store is away"), ModelLoad("text", 3, 3)),
            report("p1", "ocr", ModelLoad("ocr", 9, 9)),
            report("p3", "text", ModelLoad("ocr", 9, 0)),
            report("p4", "ocr", reason="models 9:m@1 do not load"),
        ],
        "ocr",
    )
    assert found == [
        NodeServes("c/p1", 9, 9, None),
        NodeServes("c/p2", 9, 4, "the store is away"),
        NodeServes("c/p4", 0, 0, "models 9:m@1 do not load"),
    ]
    assert [node.serves(9) for node in found] == [True, False, False]


def test_choices_read_like_what_one_would_type() -> None:
    assert choices_text(NOW) == "m@3, t@1"
    assert choices_text({}) == "the bundle's own"
