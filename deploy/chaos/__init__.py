"""`rayline chaos`: parts of the platform are killed, frozen and restarted under load; a foreign reader counts the results."""

from deploy.chaos.command import run

__all__ = ["run"]
