"""The settings and the app of one run, as its plan wants them."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from deploy.chaos.plan import Plan
from deploy.config_board import ConfigBoard
from deploy.config_change import Author, Changer
from rayline.app_spec import AppSpec, Retries
from rayline.bus import KafkaSettings
from rayline.errors import ConfigError

_ANSWER_SECONDS: Final = 20.0
# A worker that died says of a batch only that one of its jobs did it: each of them stands alone once.
_NO_RETRIES: Final = Retries(errors=0, evictions=0, timeouts=0, kills=1)


def app_of(plan: Plan, app: AppSpec) -> AppSpec:
    """The app as it is deployed for this plan."""
    return app if plan.retry else replace(app, retries=_NO_RETRIES)


async def set_config(settings: KafkaSettings, plan: Plan) -> None:
    """Put the plan's settings in force; raises ConfigError when a process refuses one, or does not answer."""
    author = Author.here(settings)
    async with ConfigBoard(settings) as board, Changer(settings=settings, board=board, author=author) as changer:
        for change in plan.settings():
            why = f"chaos: plan {plan.name}"
            outcome = await changer.wait(change, await changer.write(change, why=why), timeout_seconds=_ANSWER_SECONDS, why=why)
            if not outcome.good:
                raise ConfigError(f"the settings of plan {plan.name} are not in force: {outcome.text()}")
