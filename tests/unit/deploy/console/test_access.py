"""Who may do what: the token, sessions, guesses, forms."""

from __future__ import annotations

import pytest

from deploy.console.access import MAX_SESSIONS, SESSION_SECONDS, Access
from rayline.errors import ConfigError

TOKEN = "a-token-of-enough-length"


def access(token: str | None = TOKEN) -> Access:
    return Access(token=token, read_needs_login=False)


def test_without_a_token_nobody_logs_in() -> None:
    nobody = access(None)
    assert not nobody.writable
    assert nobody.login("", "eve", 0.0) is None
    assert nobody.login("None", "eve", 0.0) is None


def test_listening_to_others_without_a_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="no token"):
        Access(token=None, read_needs_login=True)


def test_a_short_token_is_refused() -> None:
    with pytest.raises(ConfigError, match="16 or more"):
        access("short")


def test_a_session_ends_by_itself_and_by_logging_out() -> None:
    known = access()
    first, second = known.login(TOKEN, " Mara \n Lind ", 0.0), known.login(TOKEN, "", 0.0)
    assert first is not None
    assert second is not None
    assert (first.name, second.name) == ("Mara Lind", "operator")
    assert known.session(first.key, SESSION_SECONDS - 1) is first
    assert known.session(first.key, SESSION_SECONDS) is None
    known.logout(second.key)
    assert known.session(second.key, 1.0) is None
    assert known.session("made up", 1.0) is None


def test_guesses_are_limited_even_for_the_right_token() -> None:
    known = access()
    assert all(known.login("wrong", "eve", 1.0) is None for _ in range(5))
    assert known.guessed_too_often(2.0)
    assert known.login(TOKEN, "mara", 2.0) is None
    assert known.login(TOKEN, "mara", 40.0) is not None


def test_sessions_are_bounded_and_the_oldest_leaves() -> None:
    known = access()
    sessions = [known.login(TOKEN, str(number), 0.0) for number in range(MAX_SESSIONS + 1)]
    assert sessions[0] is not None
    assert sessions[-1] is not None
    assert known.session(sessions[0].key, 0.0) is None
    assert known.session(sessions[-1].key, 0.0) is sessions[-1]


def test_a_form_counts_only_for_the_session_it_was_made_for() -> None:
    known = access()
    assert known.form_is_ours(known.form_token("one"), "one")
    assert not known.form_is_ours(known.form_token("one"), "two")
    assert not known.form_is_ours("", None)
    assert not access().form_is_ours(known.form_token(None), None)
