"""From blobs to a folder that runs: layers are unpacked once and shared, environments are trees of hard links into them.

    layers/<digest>/tree       one layer, unpacked; read-only, shared by all bundles that have it
    layers/<digest>/entries    what lies in it, and the boot in which it was written
    envs/<digest>/             one environment: bin, lib, app, native, models, and bundle.json
    tmp/                       what is being made; a process that was killed leaves only here

A hard-linked tree activates without copying, has a real `site-packages` (so that wheels find each other's libraries by
`$ORIGIN`), and going from A to B and back touches nothing that the other one sees. Nothing is synced to disk: a layer of an
earlier boot of this machine is not believed, but unpacked again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rayline.errors import ArchiveBomb, BlobCorrupt, BlobTruncated, DiskFull, HealthCheckFailed, NotInStore, PathEscape
from rayline.file_locks import exclusively
from runtime_env.bundle import Bundle, Layer, LayerKind, canonical, hex_of
from runtime_env.durable import disk_full_told
from runtime_env.layer_reader import Entries, Limits, extract

BUNDLE_FILE: Final = "bundle.json"
_BOOT_FILE: Final = ".boot"
# Closed, as models that are published by themselves are: nothing is added, replaced or removed there by accident.
_MODELS: Final = "models/"
_THREADS: Final = 4
_FREE_MARGIN_BYTES: Final = 16 * 2**20


def unpack(bundle: Bundle, blob_paths: Mapping[str, Path], target_root: Path, *, limits: Limits | None = None) -> Path:
    """The folder of `bundle`'s environment below `target_root`; made from local blobs (by digest) where it is not there yet.

    The bundle must have been admitted before (`runtime_env.admission`). Each blob's size and digest are checked before a byte of
    it is unpacked. On any error nothing but complete layers is left, and other environments are as they were.

    Raises:
        BundleRefused: BlobTruncated, BlobCorrupt, or an ArchiveUnsafe for what the gate does not let in.
        NotInStore: a blob is not among `blob_paths`.
        DiskFull: no room.
    """
    limits = limits or Limits()
    _check_declared(bundle, limits)
    root = target_root.absolute()
    environment = root / "envs" / hex_of(bundle.digest)
    with disk_full_told(root), _locked(root):
        if _read_boot(environment / _BOOT_FILE) == boot_id():
            return environment
        _unpack_missing(bundle.layers, blob_paths, root, limits)
        _compose(bundle, root, environment)
    return environment


def is_unpacked(bundle: Bundle, target_root: Path) -> bool:
    """Whether the environment is there, whole, and was made since this machine started."""
    return _read_boot(target_root / "envs" / hex_of(bundle.digest) / _BOOT_FILE) == boot_id()


def unpack_layers(
    layers: Iterable[Layer], blob_paths: Mapping[str, Path], target_root: Path, *, limits: Limits | None = None
) -> None:
    """Unpack layers alone, without an environment around them, to `layers/<digest>/tree`; raises as `unpack`."""
    root = target_root.absolute()
    with disk_full_told(root), _locked(root):
        _unpack_missing(layers, blob_paths, root, limits or Limits())


def discard(bundle: Bundle, target_root: Path, *, layers: Collection[str] = ()) -> None:
    """Remove an environment that nothing runs from, and the unpacked layers `layers` (digests) that no other one needs.

    Files that other environments share stay with them: a layer's folder is one of several names of its files.
    """
    root = target_root.absolute()
    discard_folders(root, root / "envs" / hex_of(bundle.digest), *(root / "layers" / hex_of(digest) for digest in layers))


def discard_folders(root: Path, *folders: Path) -> None:
    """Remove environments and layers below `root` by their folders: out of the way at once, then gone."""
    with _locked(root), _scratch(root) as scratch:
        for number, path in enumerate(folders):
            if path.exists():
                path.rename(scratch / str(number))


def boot_id() -> str:
    """Which start of this machine's kernel this is."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def check_blob(layer: Layer, path: Path) -> None:
    """Raise BlobTruncated or BlobCorrupt unless the file is the layer's blob, byte for byte."""
    size = path.stat().st_size
    if size != layer.size_bytes:
        raise BlobTruncated(f"{layer.name}: {path} has {size} bytes, the manifest says {layer.size_bytes}: fetch it again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != hex_of(layer.digest):
        raise BlobCorrupt(f"{layer.name}: {path} is not what the manifest says (sha256 {found}): fetch it again, from elsewhere")


def _unpack_missing(layers: Iterable[Layer], blob_paths: Mapping[str, Path], root: Path, limits: Limits) -> None:
    missing = [layer for layer in _once(layers) if _layer_entries(root, layer.digest) is None]
    _require_room(root, sum(layer.content_bytes for layer in missing))
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="unpack") as pool:
        # The largest first: it decides when all are done.
        jobs = [
            pool.submit(_unpack_layer, layer, blob_paths, root, limits)
            for layer in sorted(missing, key=lambda layer: -layer.content_bytes)
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _once(layers: Iterable[Layer]) -> list[Layer]:
    return list({layer.digest: layer for layer in layers}.values())


def _check_declared(bundle: Bundle, limits: Limits) -> None:
    files = sum(layer.files for layer in bundle.layers)
    if bundle.content_bytes > limits.max_bytes or files > limits.max_files:
        raise ArchiveBomb(
            f"{bundle.app}: {bundle.content_bytes} bytes in {files} files are declared; "
            f"{limits.max_bytes} and {limits.max_files} are allowed"
        )


def _require_room(root: Path, needed: int) -> None:
    free = shutil.disk_usage(root).free
    if free < needed + _FREE_MARGIN_BYTES:
        raise DiskFull(
            f"{needed / 2**20:.0f} MiB are to be unpacked to {root}, {free / 2**20:.0f} MiB are free there: "
            "make room or use another disk"
        )


def _unpack_layer(layer: Layer, blob_paths: Mapping[str, Path], root: Path, limits: Limits) -> None:
    path = blob_paths.get(layer.digest)
    if path is None or not path.is_file():
        raise NotInStore(f"the blob of layer {layer.name} ({layer.digest}) is not here: fetch it first")
    check_blob(layer, path)
    with _scratch(root) as scratch:
        tree = scratch / "tree"
        tree.mkdir()
        with path.open("rb") as blob:
            try:
                entries = extract(
                    blob,
                    tree,
                    size_bytes=layer.size_bytes,
                    content_bytes=layer.content_bytes,
                    files=layer.files,
                    limits=limits,
                )
            except FileExistsError as error:
                raise PathEscape(f"{layer.name}: {error.filename} comes twice") from error
        (scratch / "entries").write_bytes(canonical({"boot": boot_id(), **entries.as_dict()}))
        _put_in_place(scratch, root / "layers" / hex_of(layer.digest), root)


def _compose(bundle: Bundle, root: Path, environment: Path) -> None:
    union = Entries()
    source: dict[str, str] = {}
    for layer in bundle.layers:
        entries = _layer_entries(root, layer.digest)
        if entries is None:
            raise NotInStore(f"layer {layer.name} vanished from {root / 'layers'} while it was needed: unpack again")
        tree = f"{root / 'layers' / hex_of(layer.digest)}/tree/"
        union.folders |= entries.folders
        # Where two packages bring one path, the later layer wins, as with pip.
        for path in entries.files:
            union.links.pop(path, None)
            source[path] = tree
        for path, target in entries.links.items():
            source.pop(path, None)
            union.links[path] = target
    union.files = set(source)
    union.check()
    ours = {BUNDLE_FILE, _BOOT_FILE} & (union.files | union.links.keys() | union.folders)
    if ours:
        raise PathEscape(f"a layer brings {', '.join(sorted(ours))}, which is Rayline's own: it would be written through")
    with _scratch(root) as scratch:
        base = f"{scratch}/env/"
        # Strings and os.*, not Path: this runs for 20,000 files, and is most of an activation.
        os.mkdir(base)  # noqa: PTH102
        for folder in sorted(union.folders):
            os.mkdir(base + folder)  # noqa: PTH102
        copied = {path for layer in bundle.layers if layer.kind is LayerKind.CONDA for path in _files_of(root, layer)}
        for path, tree in source.items():
            if path in copied:
                shutil.copyfile(tree + path, base + path)
                Path(base + path).chmod(0o755 if os.access(tree + path, os.X_OK) else 0o644)
            else:
                os.link(tree + path, base + path, follow_symlinks=False)
        for path, target in union.links.items():
            os.symlink(target, base + path)  # noqa: PTH211
        for folder in union.folders:
            if f"{folder}/".startswith(_MODELS):
                Path(base + folder).chmod(0o555)
        made = Path(base)
        (made / BUNDLE_FILE).write_bytes(canonical(bundle.as_dict()))
        if copied:
            _put_in_place(made, environment, root)
            _put_conda_right(environment)
        (environment if copied else made).joinpath(_BOOT_FILE).write_text(boot_id(), encoding="ascii")
        if not copied:
            _put_in_place(made, environment, root)


def _put_conda_right(environment: Path) -> None:
    """conda's files hold absolute prefixes: its own program writes this place into the copies.

    Without `.boot`, which comes after it, the environment counts as unfinished.
    """
    program = environment / "bin" / "conda-unpack"
    done = subprocess.run(
        [program],
        env={"PATH": f"{environment / 'bin'}:/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HealthCheckFailed(f"{program} failed: {done.stderr.strip()[-1000:]}; build the bundle again")


def _files_of(root: Path, layer: Layer) -> set[str]:
    entries = _layer_entries(root, layer.digest)
    return entries.files if entries is not None else set()


def _layer_entries(root: Path, digest: str) -> Entries | None:
    """What lies in an unpacked layer; None where it is not there, or was written before this machine last started."""
    try:
        data = json.loads((root / "layers" / hex_of(digest) / "entries").read_bytes())
        return Entries.from_dict(data) if data["boot"] == boot_id() else None
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _read_boot(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _put_in_place(made: Path, target: Path, root: Path) -> None:
    """One rename; what an earlier boot left at `target` goes away first."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        with _scratch(root) as old:
            target.rename(old / "old")
    made.rename(target)


@contextmanager
def _scratch(root: Path) -> Iterator[Path]:
    """A folder below `tmp`, gone at the end whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="unpack-", dir=root / "tmp"))
    try:
        yield folder
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    """As far as it goes; folders that were closed (models are) are opened for it."""

    def open_up(function: Callable[[str], object], path: str, _: object) -> None:
        with suppress(OSError):
            Path(path).parent.chmod(0o700)
            function(path)

    shutil.rmtree(folder, onerror=open_up)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """One unpacking at a time below `root`; what a killed one left in `tmp` is removed by the next."""
    (root / "tmp").mkdir(parents=True, exist_ok=True)
    with exclusively(root / ".lock"):
        for left in (root / "tmp").iterdir():
            _remove(left)
        yield
