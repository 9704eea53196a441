"""What runs in an app's own Python can be imported by every Python that an app may choose, though the platform's is newer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runtime_env.build.interpreters import SUPPORTED, find_interpreters
from workers.bundle_process import guest_command

_FOUND = {one.minor: one.executable for one in reversed(find_interpreters())}
# In the place of compiled packages that a bundle brings: importing them is not the question here.
_STUBS = """
import sys
from types import ModuleType
from unittest.mock import MagicMock
class Stub(ModuleType):
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock() if name[0].islower() else type(name, (), {})
for name in ("pyarrow", "msgpack"):
    sys.modules[name] = Stub(name)
"""


@pytest.mark.parametrize("minor", SUPPORTED)
def test_an_actors_part_is_imported_and_leaves_the_apps_names_alone(minor: str, tmp_path: Path) -> None:
    if minor not in _FOUND:
        pytest.skip(f"no Python {minor} here: uv python install {minor}")
    (tmp_path / "workers.py").write_text("OWNER = 'the app'\n")
    (tmp_path / "deploy.py").write_text("OWNER = 'the app'\n")
    python, dash_c, program, folders, *arguments = guest_command(_FOUND[minor], "check")
    seen = (
        f"\nsys.path.insert(0, {str(tmp_path)!r})\nimport json, workers, deploy, rayline\n"
        "print(json.dumps([workers.OWNER, deploy.OWNER, '%d.%d' % sys.version_info[:2], rayline.__file__]))"
    )
    done = subprocess.run(
        [python, "-I", dash_c, _STUBS + program + seen, folders, *arguments],
        cwd="/",
        env={"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    owner, other, version, rayline = json.loads(done.stdout)
    assert (owner, other, version) == ("the app", "the app", minor)
    assert rayline.startswith(json.loads(folders)["rayline"])
