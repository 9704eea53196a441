"""Which source of a broker to use here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from deploy.broker.base import Broker
from deploy.broker.container import DEFAULT_IMAGE, ContainerKafka, engine_answers
from deploy.broker.external import ExternalKafka
from deploy.broker.java import find_jars, find_java
from deploy.broker.local import LocalKafka
from rayline.bus import KafkaSettings
from rayline.errors import LaunchError


def choose_broker(
    *,
    data_dir: Path,
    external: KafkaSettings | None = None,
    container_image: str = DEFAULT_IMAGE,
    env: Mapping[str, str] | None = None,
) -> Broker:
    """An existing cluster where one is named; else a local process; else, without Java or jars, a container.

    Raises:
        LaunchError: none of the three is possible here; says how each would be.
    """
    if external is not None:
        return ExternalKafka(external)
    variables = os.environ if env is None else env
    try:
        find_java(variables)
        jars = find_jars(variables)
    except LaunchError as error:
        if engine_answers():
            return ContainerKafka(image=container_image)
        raise LaunchError(f"{error} (nor does a Docker engine answer)") from error
    return LocalKafka(data_dir=data_dir, jars=jars, env=variables)
