"""Several things at once: none is left behind."""

from __future__ import annotations

import asyncio

import pytest

from rayline.waits import together


class Broken(Exception):
    """The first error."""


async def broken() -> None:
    raise Broken


async def test_the_first_error_comes_out_only_when_all_others_have_ended() -> None:
    ended = False

    async def slow() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended = True

    with pytest.raises(Broken):
        await together(slow(), broken())
    assert ended


async def test_all_are_taken_at_once() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    async def one() -> None:
        first.set()
        await second.wait()

    async def two() -> None:
        await first.wait()
        second.set()

    await together(one(), two())
    await together()
