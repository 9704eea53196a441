"""Every call that the gateway makes to Ray: nodes, and actors by name. Import it after the cluster's variables are set."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import ray
from ray import cloudpickle, exceptions
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import workers
from rayline.app_spec import AppSpec
from rayline.errors import ClusterError
from workers.actor import FeatureActor
from workers.agent import INCARNATION_LABEL, POD_LABEL, ZONE_LABEL
from workers.host_actor import HostActor
from workers.pool import ActorDied, ActorKey, ActorUnavailable, PodNode

NAMESPACE: Final = "rayline"

# A worker process imports of ours only `rayline`: a user's project may have a package `workers` of its own.
cloudpickle.register_pickle_by_value(workers)


class RayPool:
    """Owns this process's connection to one Ray cluster. Does not own the actors: they are detached and outlive it.

    Life cycle: `connect`, any calls, `close`.
    """

    def __init__(self, *, cluster: str, address: str, token: str) -> None:
        self._cluster = cluster
        self._address = address
        self._token = token
        self._hosts: dict[str, str] = {}
        self._actor_class = ray.remote(FeatureActor)
        self._host_class = ray.remote(HostActor)

    def connect(self) -> None:
        """Raises ClusterError when the head does not answer."""
        try:
            ray.init(
                address=self._address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
                _node_ip_address=self._address.partition(":")[0],
            )
        except (ConnectionError, RuntimeError, ValueError, exceptions.RayError) as error:
            raise ClusterError(f"Ray cluster {self._cluster} at {self._address} cannot be reached: {error}") from error

    def close(self) -> None:
        ray.shutdown()

    def nodes(self) -> tuple[list[PodNode], list[PodNode]]:
        """Pods that live, and pods that Ray remembers as dead."""
        living: list[PodNode] = []
        dead: list[PodNode] = []
        for item in ray.nodes():
            labels = item.get("Labels", {})
            if POD_LABEL not in labels:
                continue
            node = PodNode(
                node_id=item["NodeID"],
                pod=labels[POD_LABEL],
                incarnation=int(labels.get(INCARNATION_LABEL, "0")),
                cpus=float(item["Resources"].get("CPU", 0.0)),
                gpus=float(item["Resources"].get("GPU", 0.0)),
                zone=labels.get(ZONE_LABEL),
            )
            (living if item["Alive"] else dead).append(node)
            self._hosts[node.node_id] = item["NodeManagerAddress"]
        return living, dead

    def adopt(self) -> dict[ActorKey, Any]:
        """Handles of the actors that exist already."""
        found = {}
        for name in list_named_actors():
            key = ActorKey.parse(name)
            if key is None:
                continue
            try:
                found[key] = ray.get_actor(name)
            except ValueError:
                continue  # it died between the two calls
        return found

    def place(self, key: ActorKey, spec: AppSpec, node_id: str) -> Any:
        """Make an actor on exactly this node; CPUs are counted by the plan, so that two versions may overlap for a moment."""
        options = {
            "name": key.name,
            "lifetime": "detached",
            "get_if_exists": True,
            "num_cpus": 0,
            "num_gpus": spec.resources.num_gpus,
            "max_restarts": -1,
            "max_concurrency": 2,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False),
        }
        actor_class = self._host_class if spec.bundle else self._actor_class
        return actor_class.options(**options).remote(
            spec=spec.as_dict(),
            token=self._token,
            name=key.name,
            host=self._hosts[node_id],
            attempt=secrets.token_hex(8),
            drop_paths=_driver_paths(),
            models=key.models,
        )

    def ask(self, handle: Any, method: str) -> Any:
        """Start a call of the actor and return its reference."""
        return getattr(handle, method).remote()

    def answered(self, references: Sequence[Any]) -> list[Any]:
        """Those references that have an answer (or an error) now."""
        if not references:
            return []
        ready, _ = ray.wait(list(references), num_returns=len(references), timeout=0)
        return list(ready)

    def answer(self, reference: Any) -> Any:
        """The value of an answered reference; raises ActorDied or ActorUnavailable."""
        try:
            return ray.get(reference, timeout=5)
        except exceptions.ActorUnavailableError as error:
            raise ActorUnavailable(str(error)) from error
        except exceptions.RayError as error:
            raise ActorDied(str(error)) from error

    def restart(self, handle: Any) -> None:
        """End the actor's process; Ray starts it again."""
        ray.kill(handle, no_restart=False)

    def remove(self, handle: Any) -> None:
        """End the actor for good."""
        ray.kill(handle, no_restart=True)


def _driver_paths() -> list[str]:
    """What Ray copies from this driver to the workers' import path."""
    return [str(Path.cwd()), str(Path(sys.argv[0]).resolve().parent)]
