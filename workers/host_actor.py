"""The Ray actor of an app that has an environment of its own: hosts the process in the bundle's Python that does the work.

Ray asks that all processes of a cluster run the same Python and the same Ray. So the actor that Ray sees runs the platform's,
and the app runs in a child of it, with whatever Python and packages its bundle has. The child hosts the Flight port itself:
batches do not pass through here. Carried to the worker by value, as `FeatureActor` is; no code of the app runs in this process.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, cast

from rayline.app_spec import AppSpec
from rayline.engines import Chosen
from workers.actor import die_with_parent
from workers.bundle_process import guest_command, start_guest, without_secrets
from workers.pod_environments import PodEnvironment, read_environment
from workers.pod_folder import POD_DIR_VARIABLE

LOOK_SECONDS = 0.25
EXIT_CODE = 70
DATA_FOLDER = "data"


class HostActor:
    """Owns the app's process and a lease on its environment. Does not own the environment: the pod's agent prepares it.

    Life cycle: waits until the agent says that the environment is ready, starts the process, passes calls on to it, and ends with
    it, so that Ray starts both again.
    """

    def __init__(self, **arguments: Any) -> None:
        """`arguments` are those of `FeatureActor`."""
        die_with_parent()
        self._arguments = arguments
        self._spec = AppSpec.from_dict(arguments["spec"])
        self._pod_dir = Path(os.environ[POD_DIR_VARIABLE])
        self._environment: PodEnvironment | None = None
        self._trouble: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: BinaryIO | None = None
        self._lock = threading.Lock()
        # The child ends with the thread that started it: this one lives as long as we do.
        threading.Thread(target=self._host, name="rayline-host", daemon=True).start()

    def endpoint(self) -> dict[str, Any]:
        """As `FeatureActor.endpoint`; `waiting` is set while the environment is not ready, `reason` where it failed."""
        if self._process is not None:
            return cast("dict[str, Any]", self._call("endpoint"))
        return {
            "app": self._spec.name,
            "version": self._spec.version,
            "pid": os.getpid(),
            "port": 0,
            "waiting": self._trouble is None,
            "reason": self._trouble or self._failure(),
        }

    def drain(self) -> None:
        if self._process is not None:
            self._call("drain")

    def statistics(self) -> dict[str, Any]:
        return {} if self._process is None else cast("dict[str, Any]", self._call("statistics"))

    def _failure(self) -> str | None:
        environment = self._environment
        if environment is None or environment.reason is None:
            return None
        return (
            f"the environment of {self._spec.name} {self._spec.version} is not ready: {environment.reason} ({environment.remedy})"
        )

    def _host(self) -> None:
        try:
            root = self._await_environment()
            self._start(root)
        except Exception as error:  # noqa: BLE001 - whatever it is, the gateway must be told, and tries again
            self._trouble = f"the process of {self._spec.name} {self._spec.version} cannot be started: {error!r}"
            return
        assert self._process is not None
        code = self._process.wait()
        sys.stderr.write(f"rayline: the process of {self._spec.name} {self._spec.version} ended with {code}\n")
        sys.stderr.flush()
        os._exit(EXIT_CODE)

    def _await_environment(self) -> Path:
        never = threading.Event()
        while True:
            environment = self._environment = read_environment(self._pod_dir, self._spec.bundle)
            if environment is not None and environment.root is not None and environment.lease is not None:
                # Held until this process ends; with the file at hand, nobody collects what it stands for.
                lease = os.open(environment.lease, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(lease, fcntl.LOCK_SH)
                if os.fstat(lease).st_nlink and Path(environment.root).is_dir():
                    return Path(environment.root)
                os.close(lease)
            never.wait(LOOK_SECONDS)

    def _start(self, root: Path) -> None:
        # Imported here, where the platform's own Python runs: this class is carried by value.
        from runtime_env.bundle import Bundle
        from runtime_env.process_environment import make_data_folders, process_environment, python_of
        from runtime_env.unpack import BUNDLE_FILE

        bundle = Bundle.from_dict(json.loads((root / BUNDLE_FILE).read_bytes()))
        engine = {} if self._environment is None else self._environment.engine
        chosen = Chosen(**engine) if engine else None
        # Below the pod's folder, and gone with it: apps of one pod find nothing of each other's at the usual places.
        data = self._pod_dir / DATA_FOLDER / self._spec.name
        make_data_folders(data)
        environment = process_environment(root, bundle, without_secrets(os.environ), chosen, data)
        process, answers = start_guest(guest_command(python_of(root)), environment, root)
        self._answers = os.fdopen(answers, "rb")
        spec = {**self._arguments["spec"], "root": str(root / "app")}
        _write(process, {**self._arguments, "spec": spec, "drop_paths": []})
        self._process = process

    def _call(self, method: str, *arguments: Any) -> Any:
        """One call of the actor in the child; this process ends where it cannot answer any more."""
        assert self._process is not None
        assert self._answers is not None
        with self._lock:
            try:
                _write(self._process, [method, arguments])
                line = self._answers.readline()
            except BrokenPipeError:
                line = b""
        if not line:
            # The thread that waits for the child ends this process.
            threading.Event().wait()
        return json.loads(line)


def _write(process: subprocess.Popen[bytes], message: Any) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    process.stdin.flush()
