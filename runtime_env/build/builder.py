"""The build: interpreter, one layer for each package, the app's own layers, and the bundle that names them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rayline.app_spec import AppSpec, Requirement
from rayline.engines import Engine
from rayline.errors import InterpreterMissing
from runtime_env.build.cache import BuildCache
from runtime_env.build.conda_layer import conda_python, copy_conda
from runtime_env.build.index_settings import uv_environment
from runtime_env.build.interpreter_layer import copy_interpreter, identity
from runtime_env.build.interpreters import Interpreter, choose_interpreter
from runtime_env.build.lock import LOCK_FILE, Lock, Pin, find_links, inputs_digest, read_lock, resolve, write_lock
from runtime_env.build.model_layer import model_layer
from runtime_env.build.own_layers import copy_app, copy_native, copy_platform, native_identity, platform_identity
from runtime_env.build.uv_tool import Uv
from runtime_env.build.wheel_layer import install_wheel
from runtime_env.bundle import Bundle, Host, Layer, LayerKind

# Wider than the platform's own needs, because the newest of these are not there for every Python that an app may choose.
_PLATFORM_PACKAGES: Final = ("pyarrow>=18", "msgpack>=1.2.1", "opentelemetry-sdk>=1.30")
_PLATFORM_WHERE: Final = "Rayline's own needs"
_THREADS: Final = 4


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """`upgrade`: resolve anew instead of keeping env.lock. `bare`: leave out what Rayline's actors need (pyarrow, msgpack)."""

    upgrade: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a build is done: `done` of `total`, and its name."""

    done: int
    total: int
    what: str


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle, its blobs in the cache by digest, and which layers had to be made."""

    bundle: Bundle
    blob_paths: Mapping[str, Path]
    made: tuple[str, ...]
    resolved: bool


@dataclass(slots=True)
class _Layers:
    """Collects layers in order, tells progress."""

    total: int
    progress: Callable[[Progress], None]
    layers: list[Layer] = field(default_factory=list)
    made: list[str] = field(default_factory=list)

    def add(self, layer: Layer, made: bool) -> Layer:
        self.layers.append(layer)
        self.made += [layer.name] if made else []
        self.progress(Progress(len(self.layers), self.total, layer.name))
        return layer


def platform_requirements() -> tuple[Requirement, ...]:
    """What the code of Rayline's actors needs beside the app. Ray is not among it: an app runs in a process beside Ray's own."""
    return tuple(Requirement(text, _PLATFORM_WHERE) for text in _PLATFORM_PACKAGES)


class Builder:
    """Builds bundles of apps.

    Owns nothing but the way; layers and blobs are the cache's. Does not publish or sign: see `runtime_env.store.publish`.
    Life: `Builder(...).build(spec)`, any number of times.
    """

    def __init__(
        self,
        *,
        cache: BuildCache,
        environment: Mapping[str, str] = os.environ,
        uv_cache: Path | None = None,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> None:
        self._cache = cache
        self._environment = environment
        self._uv_cache = uv_cache
        self._progress = progress

    def build(self, spec: AppSpec, options: BuildOptions | None = None) -> Built:
        """Build `spec`'s bundle; writes `env.lock` beside its app.yaml where versions had to be found, once all else is done.

        Raises:
            BuildError: PinsConflict, PackageMissing, IndexUnreachable, InterpreterMissing, CondaMissing, NotRelocatable.
            DiskFull: nothing half made is left.
        """
        options = options or BuildOptions()
        self._cache.sweep()
        if spec.environment.conda:
            return self._build_conda(spec)
        platform = () if options.bare else platform_requirements()
        uv = Uv(environment=uv_environment(self._environment, spec.environment.indexes), cache_folder=self._uv_cache)
        interpreter, lock, resolved = self._lock(spec, uv, platform, upgrade=options.upgrade)
        layers = _Layers(4 + len(lock.pins) + len(spec.models), self._progress)
        layers.add(
            *self._cache.layer(
                LayerKind.INTERPRETER,
                f"python-{interpreter.version}",
                identity(interpreter),
                lambda tree: copy_interpreter(interpreter, tree),
            )
        )
        links = find_links(spec.environment, Path(spec.root))
        asked = [*spec.environment.requirements, *platform]

        def package(pin: Pin) -> tuple[Layer, bool]:
            return self._cache.layer(
                LayerKind.PACKAGE,
                f"{pin.name}-{pin.version}",
                [pin.hashes, interpreter.version, str(Host.here())],
                lambda tree: install_wheel(uv, interpreter, pin, tree, options=links, asked=asked),
            )

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="build") as pool:
            try:
                for layer, made in pool.map(package, lock.pins):
                    layers.add(layer, made)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        if not options.bare:
            layers.add(
                *self._cache.layer(
                    LayerKind.PLATFORM,
                    "rayline",
                    [interpreter.version, platform_identity()],
                    lambda tree: copy_platform(interpreter, tree),
                )
            )
        packages = tuple(f"{pin.name}=={pin.version}" for pin in lock.pins)
        built = self._finish(spec, layers, interpreter, interpreter.version, packages, resolved=resolved)
        if resolved:
            write_lock(Path(spec.root, LOCK_FILE), lock)
        return built

    def _build_conda(self, spec: AppSpec) -> Built:
        layers = _Layers(3 + len(spec.models), self._progress)
        file = Path(spec.root, spec.environment.conda)
        found: list[str] = []

        def make(tree: Path) -> None:
            copy_conda(file, tree, self._environment)
            found.append(conda_python(tree))

        layers.add(*self._packed(LayerKind.CONDA, "conda", make))
        return self._finish(spec, layers, None, found[0], (), resolved=True)

    def _finish(
        self,
        spec: AppSpec,
        layers: _Layers,
        interpreter: Interpreter | None,
        python: str,
        packages: tuple[str, ...],
        *,
        resolved: bool,
    ) -> Built:
        if spec.environment.libraries or spec.environment.binaries:
            layers.add(
                *self._cache.layer(LayerKind.NATIVE, "native", native_identity(spec), lambda tree: copy_native(spec, tree))
            )
        models = []
        for source in spec.models:
            model, layer, made = model_layer(self._cache, Path(spec.root), source)
            layers.add(layer, made)
            models.append(model)
        layers.add(*self._packed(LayerKind.APP, "app", lambda tree: copy_app(spec, interpreter, tree)))
        bundle = Bundle(
            app=spec.name,
            app_version=spec.version,
            entrypoint=spec.entrypoint,
            python=python,
            host=Host.here(),
            layers=tuple(layers.layers),
            constructor=spec.constructor,
            variables=spec.env,
            models=tuple(models),
            packages=packages,
            startup_seconds=spec.limits.startup_seconds,
            engine=Engine(spec.environment.engine, spec.environment.providers) if spec.environment.engine else None,
        )
        paths = {layer.digest: self._cache.blob(layer.digest) for layer in layers.layers}
        return Built(bundle, paths, tuple(layers.made), resolved)

    def _packed(self, kind: LayerKind, name: str, make: Callable[[Path], None]) -> tuple[Layer, bool]:
        """A layer that is made each time: it is small, and its inputs are whatever the user just edited."""
        with self._cache.scratch() as scratch:
            tree = scratch / "tree"
            tree.mkdir()
            make(tree)
            return self._cache.pack(kind, name, tree), True

    def _lock(self, spec: AppSpec, uv: Uv, platform: tuple[Requirement, ...], *, upgrade: bool) -> tuple[Interpreter, Lock, bool]:
        """The interpreter and the versions: by env.lock where it was made from the same inputs, otherwise found anew."""
        path = Path(spec.root, LOCK_FILE)
        lock = None if upgrade else read_lock(path)
        if lock is not None and lock.inputs == inputs_digest(spec.environment, platform):
            try:
                return choose_interpreter(lock.python, self._environment), lock, False
            except InterpreterMissing as error:
                raise InterpreterMissing(f"{path} was made for Python {lock.python}; {error}; or build with --upgrade") from error
        interpreter = choose_interpreter(spec.environment.python, self._environment)
        self._progress(Progress(0, 1, "resolving requirements"))
        with self._cache.scratch() as scratch:
            resolved = resolve(
                uv, interpreter, spec.environment, platform, app_root=Path(spec.root), scratch=scratch, before=lock
            )
        return interpreter, resolved, True
