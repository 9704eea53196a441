"""An absent provider is refused on the node, with what is there and what to do; never replaced by the CPU in silence."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import onnxruntime
import pytest

from rayline.engines import Chosen, Engine
from rayline.errors import HealthCheckFailed, ProviderAbsent
from runtime_env.bundle import Bundle
from runtime_env.node.folder import NodeFolder
from runtime_env.node.preparing import failure_of
from runtime_env.node.source import StoreSource
from runtime_env.process_environment import process_environment, python_of
from runtime_env.providers import check_provider, choose_provider
from runtime_env.store import FolderStore
from tests.support.bundles import publish_bundle

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CODE = "def feature(job):\n    return job\n"


def fake_onnxruntime(offered: list[str], opens: list[str] | None = None) -> str:
    """Lists `offered`; a session that is asked for one of them runs on `opens`, where that is given."""
    return f"""
import sys
__version__ = "9.9"
OPENS = {opens!r}
def get_available_providers():
    return {offered!r}
class InferenceSession:
    def __init__(self, model, providers):
        assert isinstance(model, bytes)
        self._providers = OPENS or providers
        if OPENS:
            print("Failed to load library libonnxruntime_providers_cuda.so", file=sys.stderr)
    def get_providers(self):
        return self._providers
"""


class Site:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = NodeFolder(path=path / "node", quota_bytes=2**30)

    def place(self, engine: Engine, **packages: str) -> tuple[Path, Bundle]:
        store = FolderStore(path=self._path / "store")
        scratch = self._path / "scratch"
        bundle = publish_bundle(store, scratch, app="app", version="1", code=CODE, packages=packages, engine=engine)
        blobs = StoreSource(store=store, cache=self._folder.blobs).fetch(bundle.layers, lambda _: None)
        return self._folder.place(bundle, blobs), bundle

    def check(self, engine: Engine, cards: list[str], **packages: str) -> Chosen:
        root, bundle = self.place(engine, **packages)
        chosen = choose_provider(bundle, cards)
        assert chosen is not None
        check_provider(root, bundle, chosen, os.environ)
        return chosen


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_provider_that_the_engine_offers_and_opens_is_in_order(site: Site) -> None:
    chosen = site.check(Engine("onnxruntime"), ["NVIDIA A10"], onnxruntime=fake_onnxruntime([CUDA, CPU]))
    assert chosen == Chosen("onnxruntime", CUDA, "NVIDIA A10")


def test_an_engine_without_the_provider_of_this_card_is_refused_with_what_it_offers(site: Site) -> None:
    with pytest.raises(
        ProviderAbsent, match=rf"on NVIDIA A10: onnxruntime 9\.9 of the bundle offers {CPU}, and not {CUDA}"
    ) as caught:
        site.check(Engine("onnxruntime"), ["NVIDIA A10"], onnxruntime=fake_onnxruntime([CPU]))
    assert "onnxruntime-gpu" in failure_of(caught.value).remedy


def test_a_provider_that_is_listed_and_falls_back_to_the_cpu_is_refused_with_the_engines_words(site: Site) -> None:
    with pytest.raises(
        ProviderAbsent, match=rf"(?s)lists {CUDA}, but opens a model with {CPU}.*libonnxruntime_providers_cuda\.so"
    ):
        site.check(Engine("onnxruntime"), ["NVIDIA A10"], onnxruntime=fake_onnxruntime([CUDA, CPU], opens=[CPU]))


def test_a_card_for_which_the_app_names_nothing_is_refused(site: Site) -> None:
    _, bundle = site.place(Engine("onnxruntime", (("nvidia", CUDA),)), onnxruntime=fake_onnxruntime([CUDA, CPU]))
    with pytest.raises(ProviderAbsent, match=rf"this node has Zixiao C100, it names nvidia: {CUDA}"):
        choose_provider(bundle, ["Zixiao C100"])
    with pytest.raises(ProviderAbsent, match="this node has no card"):
        choose_provider(bundle, [])


def test_the_real_onnxruntime_opens_the_question_on_its_cpu_and_has_no_card_here(site: Site) -> None:
    engine = Engine("onnxruntime")
    assert onnxruntime.get_available_providers(), "the one that is installed for the demo"
    assert site.check(engine, []).provider == CPU
    with pytest.raises(ProviderAbsent, match=rf"{CPU}.*and not {CUDA}"):
        site.check(engine, ["NVIDIA A10"])


TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return {available}
"""


def test_a_torch_whose_card_is_not_available_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ProviderAbsent, match="torch of the bundle offers cpu, and not cuda"):
        site.check(Engine("torch"), ["NVIDIA A10"], torch=TORCH.format(available=False))
    (tmp_path / "other").mkdir()
    assert Site(tmp_path / "other").check(Engine("torch"), ["NVIDIA A10"], torch=TORCH.format(available=True)).provider == "cuda"


def test_an_engine_that_cannot_be_imported_fails_the_health_check(site: Site) -> None:
    with pytest.raises(HealthCheckFailed, match=r"(?s)engine nowhere_engine cannot be used.*No module named 'nowhere_engine'"):
        site.check(Engine("nowhere_engine"), [])


def test_the_apps_processes_are_told_what_was_chosen_whatever_else_is_set(site: Site) -> None:
    root, bundle = site.place(Engine("onnxruntime"), onnxruntime=fake_onnxruntime([CPU]))
    base = {**os.environ, "RAYLINE_PROVIDER": "of a neighbour"}
    assert "RAYLINE_PROVIDER" not in process_environment(root, bundle, base)
    environment = process_environment(root, bundle, base, Chosen("onnxruntime", CPU, ""))
    code = "import json, os; print(json.dumps({name: os.environ[name] for name in os.environ if name.startswith('RAYLINE_')}))"
    told = json.loads(subprocess.run([python_of(root), "-c", code], env=environment, capture_output=True, check=True).stdout)
    assert told["RAYLINE_ENGINE"] == "onnxruntime"
    assert told["RAYLINE_PROVIDER"] == CPU
    assert told["RAYLINE_CARD"] == ""


def test_a_bundle_that_names_no_engine_has_the_form_and_digest_of_before(site: Site) -> None:
    _, bundle = site.place(Engine("onnxruntime", (("nvidia", CUDA),)))
    assert Bundle.from_dict(json.loads(json.dumps(bundle.as_dict()))) == bundle
    data = bundle.as_dict()
    del data["engine"]
    without = Bundle.from_dict(data)
    assert without.engine is None
    assert "engine" not in without.as_dict()
