"""`rayline …` as an operator would type it, of this very installation."""

import asyncio

from bench.load import LoadError
from deploy.local.launch import rayline_command

_TAIL_CHARS = 3_000


async def rayline(*words: str) -> str:
    """Run it to its end; what it wrote to stdout. Raises LoadError, with the end of what it said, when it says no."""
    process = await asyncio.create_subprocess_exec(
        *rayline_command(*words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    if process.returncode:
        said = (err.decode() + out.decode())[-_TAIL_CHARS:]
        raise LoadError(f"`rayline {' '.join(words)}` ended with {process.returncode}:\n{said}")
    return out.decode()
