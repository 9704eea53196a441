"""Live configuration: tunables declared once, set through the topic `rayline.config`, answered on `rayline.config.applied`."""

from __future__ import annotations

from rayline.config.answer import Answer, Presence, Verdict, decode_applied
from rayline.config.declared import SETTINGS
from rayline.config.process import ProcessIdentity
from rayline.config.record import Change, ConfigKey, RefusedRecord, parse_key
from rayline.config.resolution import AppValues, Effective, NodeValues
from rayline.config.setting import Kind, Role, Scope, Setting
from rayline.config.watch import ConfigStatus, ConfigWatch

__all__ = [
    "SETTINGS",
    "Answer",
    "AppValues",
    "Change",
    "ConfigKey",
    "ConfigStatus",
    "ConfigWatch",
    "Effective",
    "Kind",
    "NodeValues",
    "Presence",
    "ProcessIdentity",
    "RefusedRecord",
    "Role",
    "Scope",
    "Setting",
    "Verdict",
    "decode_applied",
    "parse_key",
]
