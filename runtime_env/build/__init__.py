"""From an app's manifest to a bundle: resolve, install, relocate, compile, pack."""

from __future__ import annotations

from runtime_env.build.builder import Builder, BuildOptions, Built
from runtime_env.build.cache import BuildCache

__all__ = ["BuildCache", "BuildOptions", "Builder", "Built"]
