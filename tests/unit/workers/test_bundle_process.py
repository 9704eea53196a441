"""Which variables of the platform an app's process in its own environment gets."""

from __future__ import annotations

import pytest

from deploy import process_environment
from workers.bundle_process import without_secrets

# Where things lie and how a pod behaves: nobody gains by reading them.
HARMLESS = {
    process_environment.CARDS_VARIABLE,
    process_environment.NODE_DIR_VARIABLE,
    process_environment.NODE_QUOTA_VARIABLE,
    process_environment.POD_GRACE_VARIABLE,
    process_environment.PRESTOP_PORT_VARIABLE,
}
NAMED = {value for name, value in vars(process_environment).items() if name.endswith("_VARIABLE")}


@pytest.mark.parametrize(
    "name",
    [
        *sorted(NAMED - HARMLESS),
        *("RAYLINE_KAFKA_SASL_PLAIN_PASSWORD", "RAYLINE_INDEX_COMPANY_PACKAGES", "RAYLINE_ENV_KEY", "RAY_ADDRESS"),
    ],
)
def test_what_opens_broker_channel_store_or_other_nodes_is_kept_from_apps(name: str) -> None:
    assert without_secrets({name: "secret", "HOME": "/root", "OMP_NUM_THREADS": "1"}) == {"HOME": "/root", "OMP_NUM_THREADS": "1"}
