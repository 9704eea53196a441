"""The ways in which a pod learns that it will be taken away. One small interface, one implementation for each way."""

from workers.notices.base import Notice, NoticeSource
from workers.notices.interruption_endpoint import InterruptionEndpoint
from workers.notices.interruption_file import InterruptionFile
from workers.notices.order import OperatorOrder
from workers.notices.prestop import PreStopServer
from workers.notices.signals import SignalSource

__all__ = [
    "InterruptionEndpoint",
    "InterruptionFile",
    "Notice",
    "NoticeSource",
    "OperatorOrder",
    "PreStopServer",
    "SignalSource",
]
