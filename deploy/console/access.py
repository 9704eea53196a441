"""Who may do what: a token, sessions in memory, and a limit on guesses. Pure but for randomness; time comes as an argument."""

from __future__ import annotations

import hmac
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from rayline.errors import ConfigError

SESSION_COOKIE: Final = "rayline_session"
SESSION_SECONDS: Final = 12 * 3600
MAX_SESSIONS: Final = 100
MAX_NAME_CHARS: Final = 80
MIN_TOKEN_CHARS: Final = 16
_GUESSES: Final = 5
_GUESS_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Session:
    """One person who showed the token. `name` is what they say of themselves; `ends` is on the clock of `Access`."""

    key: str
    name: str
    ends: float


class Access:
    """Owns the sessions. Does not own the token's source, cookies, or any request.

    Without a token nobody can log in, and nothing can be changed. `read_needs_login`: without a session nothing is shown either.
    """

    def __init__(self, *, token: str | None, read_needs_login: bool) -> None:
        if token is not None and len(token) < MIN_TOKEN_CHARS:
            raise ConfigError(f"the console's token has {len(token)} characters; right would be {MIN_TOKEN_CHARS} or more")
        if token is None and read_needs_login:
            raise ConfigError(
                "the console is to listen to more than this machine, and has no token: give one with --token-file or "
                "RAYLINE_CONSOLE_TOKEN"
            )
        self._token = token
        self.read_needs_login = read_needs_login
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        self._failures: deque[float] = deque(maxlen=_GUESSES)
        self._form_secret = secrets.token_bytes(32)

    @property
    def writable(self) -> bool:
        """Whether anybody could log in at all."""
        return self._token is not None

    def login(self, token: str, name: str, now: float) -> Session | None:
        """A session for whoever knows the token; None otherwise."""
        if self._token is None or self.guessed_too_often(now):
            return None
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            self._failures.append(now)
            return None
        shown = " ".join(name.split())[:MAX_NAME_CHARS] or "operator"
        session = Session(secrets.token_urlsafe(32), shown, now + SESSION_SECONDS)
        self._sessions[session.key] = session
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def guessed_too_often(self, now: float) -> bool:
        """Whether so many wrong tokens came lately that none is looked at."""
        return len(self._failures) == _GUESSES and now - self._failures[0] < _GUESS_SECONDS

    def session(self, key: str | None, now: float) -> Session | None:
        """The session of a cookie while it lasts."""
        found = self._sessions.get(key) if key else None
        if found is None:
            return None
        if now >= found.ends:
            del self._sessions[found.key]
            return None
        return found

    def logout(self, key: str | None) -> None:
        if key:
            self._sessions.pop(key, None)

    def form_token(self, session_key: str | None) -> str:
        """What a form of ours carries so that nobody else's can be sent in its place."""
        return hmac.new(self._form_secret, (session_key or "nobody").encode(), "sha256").hexdigest()

    def form_is_ours(self, given: str, session_key: str | None) -> bool:
        return hmac.compare_digest(given.encode(), self.form_token(session_key).encode())
