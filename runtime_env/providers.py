"""Does an app's engine have what it is to compute on? Asked in a throw-away process of the bundle's own interpreter, on the node.

Engines fall back to the CPU and only warn; an app that asked for a card would then be slow instead of absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from rayline.engines import NO_CARD, Chosen
from rayline.errors import HealthCheckFailed, ProviderAbsent
from runtime_env.bundle import Bundle
from runtime_env.process_environment import process_environment
from runtime_env.throwaway import run_throwaway

MAX_TOLD_CHARS: Final = 1_000

# An ONNX model of one Identity node: what a provider that is compiled in, but whose libraries are missing, cannot open.
_IDENTITY: Final = (
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801620f0a0179120a0a"
    "08080112040a0208014202100d"
)

_PROGRAM: Final = """
import importlib, json, os, sys
spec = json.loads(sys.argv[1])
sys.path[:] = [spec["root"], *(path for path in sys.path if path)]
os.chdir(spec["root"])
name, wanted = spec["engine"], spec["provider"]
engine = importlib.import_module(name)
if name == "torch":
    offered = ["cpu", *(one for one in ("cuda", "npu", "xpu") if hasattr(engine, one) and getattr(engine, one).is_available())]
elif name == "openvino":
    offered = sorted({device.split(".")[0] for device in engine.Core().available_devices})
elif hasattr(engine, "get_available_providers"):
    offered = list(engine.get_available_providers())
else:
    offered = ["CPU"]
opened = wanted
if name == "onnxruntime" and wanted in offered:
    opened = engine.InferenceSession(bytes.fromhex(spec["model"]), providers=[wanted]).get_providers()[0]
print()
print(json.dumps([getattr(engine, "__version__", ""), offered, opened]))
"""


def choose_provider(bundle: Bundle, cards: Sequence[str]) -> Chosen | None:
    """What `bundle` computes with on a node of these cards; None where it names no engine.

    Raises ProviderAbsent where it names no provider for them.
    """
    if bundle.engine is None:
        return None
    chosen = bundle.engine.choose(cards)
    if chosen is None:
        named = ", ".join(f"{card}: {provider}" for card, provider in bundle.engine.choices)
        here = f"this node has {', '.join(cards)}" if cards else "this node has no card"
        raise ProviderAbsent(
            f"app {bundle.app} {bundle.app_version} has no provider of {bundle.engine.name} here: {here}, it names {named}"
        )
    return chosen


def check_provider(root: Path, bundle: Bundle, chosen: Chosen, variables: Mapping[str, str]) -> None:
    """Ask the engine of an unpacked environment, with the variables of the app's processes on top of `variables`.

    Raises:
        ProviderAbsent: it does not offer the provider, or cannot open it.
        HealthCheckFailed: it cannot be imported, or does not answer.
    """
    where = f"app {bundle.app} {bundle.app_version} on {chosen.card or NO_CARD}"
    wanted = {"root": str(root / "app"), "engine": chosen.engine, "provider": chosen.provider, "model": _IDENTITY}
    environment = process_environment(root, bundle, variables, chosen)
    late = f": engine {chosen.engine} did not answer"
    done = run_throwaway(root, bundle, _PROGRAM, wanted, environment, where=where, late=late, read_output=True)
    told = done.stderr.strip()[-MAX_TOLD_CHARS:]
    if done.returncode != 0:
        raise HealthCheckFailed(f"{where}: engine {chosen.engine} cannot be used (exit code {done.returncode}):\n{told}")
    version, offered, opened = json.loads(done.stdout.splitlines()[-1])
    what = f"{where}: {chosen.engine} {version}".rstrip()
    if chosen.provider not in offered:
        raise ProviderAbsent(f"{what} of the bundle offers {', '.join(offered) or 'nothing'}, and not {chosen.provider}")
    if opened != chosen.provider:
        raise ProviderAbsent(
            f"{what} lists {chosen.provider}, but opens a model with {opened}: a library or driver is missing\n{told}".rstrip()
        )
