"""What libtorrent is told: nothing but the platform names peers, and limits hold for neighbours, too."""

from __future__ import annotations

import libtorrent
import pytest

from runtime_env.peers.session import apply_limits, filter_of, open_session


@pytest.fixture(scope="module")
def settings() -> dict[str, object]:
    """As the session has them, which is more than that they were asked for."""
    return dict(open_session(host="127.0.0.1", port=0, encrypted=False).get_settings())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[(name, False) for name in ("enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp")],
        ("webtorrent_stun_server", ""),
        *[(name, False) for name in ("enable_incoming_utp", "enable_outgoing_utp")],
        ("ignore_limits_on_local_network", False),
        ("auto_sequential", False),
    ],
)
def test_membership_limits_and_order_are_the_platforms(settings: dict[str, object], name: str, value: object) -> None:
    assert settings[name] == value


def test_who_is_no_member_is_neither_called_nor_let_in() -> None:
    member, blocked = filter_of(["10.0.0.7"]), 1
    assert member.access("10.0.0.7") == 0
    assert (member.access("10.0.0.8"), member.access("::1"), filter_of(()).access("10.0.0.7")) == (blocked, blocked, blocked)


def test_encryption_is_of_all_or_of_none() -> None:
    told = open_session(host="127.0.0.1", port=0, encrypted=True).get_settings()
    forced = int(libtorrent.enc_policy.forced)
    assert (told["in_enc_policy"], told["out_enc_policy"]) == (forced, forced)
    assert told["allowed_enc_level"] == int(libtorrent.enc_level.rc4), "headers alone would leave the contents in the clear"


def test_limits_change_while_it_runs() -> None:
    session = open_session(host="127.0.0.1", port=0, encrypted=False)
    apply_limits(session, 1000, None)
    told = session.get_settings()
    assert (told["download_rate_limit"], told["upload_rate_limit"]) == (1000, 0)
