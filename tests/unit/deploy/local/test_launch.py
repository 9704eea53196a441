"""What a pod of this machine is told beside what all processes are."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from deploy.local.launch import pod_environment
from deploy.local.state import StateFolder


def test_pods_share_by_peers_as_machines_of_their_own_where_there_is_a_token(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    told = [pod_environment(folder, pod, {"RAYLINE_PEERS_TOKEN": "t" * 16}) for pod in ("c1-pod-1", "c1-pod-2")]
    assert told[0]["RAYLINE_PEERS_TOKEN"] == "t" * 16
    hosts = {one["RAYLINE_PEERS_HOST"] for one in told}
    assert len(hosts) == 2
    assert all(ip_address(host).is_loopback for host in hosts)
    assert told[0]["RAYLINE_NODE_DIR"] == str(folder.node / "c1-pod-1")
    assert told[0]["RAYLINE_NODE_DIR"] != told[1]["RAYLINE_NODE_DIR"], "or they would have nothing to give each other"
    named = pod_environment(
        folder, "p", {"RAYLINE_PEERS_TOKEN": "t" * 16, "RAYLINE_NODE_DIR": "/disk", "RAYLINE_PEERS_ENCRYPT": "1"}
    )
    assert (named["RAYLINE_NODE_DIR"], named["RAYLINE_PEERS_ENCRYPT"]) == ("/disk/p", "1")


def test_without_a_token_pods_share_one_folder_and_nothing_is_added(tmp_path: Path) -> None:
    assert pod_environment(StateFolder(tmp_path), "c1-pod-1", {}) == {}
