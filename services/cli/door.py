"""What all commands share: settings from flags and environment, one event loop, and errors as one clear line."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from services.parts import Parts
    from services.settings import Settings

T = TypeVar("T")
CTRL_C_STATUS = 130


class Door(click.Group):
    """The outermost group: turns the project's errors into lines and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(CTRL_C_STATUS)
        except BrokenPipeError:
            sys.stderr.close()  # whoever read our output left (`| head`): nothing to complain about
            ctx.exit(0)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as problem:
            expected = line_and_status(problem)
            if expected is None:
                raise
            line, status = expected
            complain(line)
            ctx.exit(status)


def complain(text: str) -> None:
    """An error, a line each, on stderr."""
    from services.cli.output import plain

    for line in text.splitlines() or [""]:
        click.echo(f"{click.style('error:', fg='red')} {plain(line)}", err=True, color=colour())


def line_and_status(problem: Exception) -> tuple[str, int] | None:
    """What to say and to exit with for an error that is expected; None for one that deserves its traceback."""
    from events.bus import BusError, HandlingError
    from services.errors import CyroidError, RedisUnavailable

    if isinstance(problem, ExceptionGroup):
        leaves = _leaves(problem)
        known = [one for one in leaves if isinstance(one, HandlingError | BusError)]
        return line_and_status(known[0]) if len(known) == len(leaves) else None
    if isinstance(problem, CyroidError):
        return str(problem), problem.exit_status
    if isinstance(problem, BusError):
        return f"{problem}; see whether Redis runs and CYROID_REDIS_URL is right", RedisUnavailable.exit_status
    if isinstance(problem, HandlingError):
        return str(problem), CyroidError.exit_status
    return None


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    leaves: list[Exception] = []
    for one in group.exceptions:
        leaves += _leaves(one) if isinstance(one, ExceptionGroup) else [one]
    return leaves


def read_settings(context: click.Context, **more: Any) -> Settings:
    """Settings from the environment, this call's flags over them. Raises BadInput."""
    from services.environment import read_settings as read

    flags: dict[str, Any] = context.find_root().obj or {}
    return read(os.environ, **{**flags, **more})


def run(context: click.Context, work: Callable[[Parts], Coroutine[Any, Any, T]], **more: Any) -> T:
    """Run a command's coroutine with the opened parts. Logs below warnings stay out of a person's way."""
    from services.parts import open_parts
    from services.telemetry import set_up

    settings = read_settings(context, **more)
    quiet = "warning" if settings.log_level == "info" else settings.log_level
    set_up(level=quiet, log_format=settings.log_format)

    async def whole() -> T:
        async with open_parts(settings) as parts:
            return await work(parts)

    return asyncio.run(whole())


def colour() -> bool | None:
    """None lets click look at the terminal; `NO_COLOR` (no-color.org) turns it off."""
    return False if os.environ.get("NO_COLOR") else None
