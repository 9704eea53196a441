"""A node with its variables: its cards choose what an app computes on, and an absent provider never gets traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.node_environments import open_cards, open_environments
from deploy.process_environment import CARDS_VARIABLE, DEVELOPMENT_VARIABLE, NODE_DIR_VARIABLE, STORE_VARIABLE
from rayline.engines import Chosen, Engine
from rayline.errors import ProviderAbsent
from runtime_env.bundle import Bundle
from runtime_env.node.activation import Wanted
from runtime_env.store import FolderStore
from tests.support.bundles import publish_bundle

# It asks for its provider where it is imported: the health check of a build knows one, too.
CODE = "import os\nPROVIDER = os.environ['RAYLINE_PROVIDER']\ndef feature(job):\n    return job\n"
ENGINE = """
def get_available_providers():
    return ["CPUExecutionProvider", "CUDAExecutionProvider"]
class InferenceSession:
    def __init__(self, model, providers):
        self.get_providers = lambda: providers
"""
PROVIDERS = (("nvidia", "CUDAExecutionProvider"), ("zixiao", "ZixiaoExecutionProvider"), ("cpu", "CPUExecutionProvider"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FolderStore:
    return FolderStore(path=tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def bundle(store: FolderStore, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    scratch = tmp_path_factory.mktemp("scratch")
    engine = Engine("onnxruntime", PROVIDERS)
    return publish_bundle(store, scratch, app="app", version="1", code=CODE, packages={"onnxruntime": ENGINE}, engine=engine)


def chosen_on(node: Path, store: FolderStore, bundle: Bundle, cards: str) -> Chosen | None:
    variables = {STORE_VARIABLE: store.url, DEVELOPMENT_VARIABLE: "1", NODE_DIR_VARIABLE: str(node), CARDS_VARIABLE: cards}
    preparer = open_environments(variables, node="c1/a", cores=1).preparer
    prepared = preparer.prepare(Wanted("app", "1", bundle.digest), lambda _: None, lambda *_: None)
    return prepared.chosen


def test_the_kind_of_card_chooses_the_provider_of_the_same_bundle(tmp_path: Path, store: FolderStore, bundle: Bundle) -> None:
    assert chosen_on(tmp_path, store, bundle, "NVIDIA A10, NVIDIA A10") == Chosen(
        "onnxruntime", "CUDAExecutionProvider", "NVIDIA A10"
    )
    assert chosen_on(tmp_path, store, bundle, "") == Chosen("onnxruntime", "CPUExecutionProvider", "")


def test_a_provider_that_the_bundle_lacks_is_refused_and_the_cpu_does_not_stand_in(
    tmp_path: Path, store: FolderStore, bundle: Bundle
) -> None:
    with pytest.raises(ProviderAbsent, match=r"on Zixiao C100: .* and not ZixiaoExecutionProvider"):
        chosen_on(tmp_path, store, bundle, "Zixiao C100")
    with pytest.raises(ProviderAbsent, match="this node has Ascend 910B, it names nvidia"):
        chosen_on(tmp_path, store, bundle, "Ascend 910B")


def test_cards_are_those_that_are_named() -> None:
    assert [card.kind for card in open_cards({CARDS_VARIABLE: " Ascend 910B ,Ascend 910B,"}).read()] == ["Ascend 910B"] * 2
