"""The base of all commands: settings from flags and environment, one event loop, and errors as one clear line."""

from __future__ import annotations

import asyncio
import copy
import getpass
import os
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from services.adapters.openers import Adapters
    from services.resources import Resources
    from services.settings import Settings

T = TypeVar("T")
CTRL_C_STATUS = 130


@dataclass(frozen=True, slots=True)
class Invocation:
    """One call of the command line: flags in front of the command, and adapters where the caller gave its own."""

    flags: Mapping[str, Any] = field(default_factory=dict)
    adapters: Adapters | None = None

    @classmethod
    def of(cls, context: click.Context) -> Invocation:
        """The call that a command belongs to."""
        return context.find_root().obj or cls()


class CommandGroup(click.Group):
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


def alias(command: click.Command, name: str) -> click.Command:
    """The same command under its former name, which still works and is not listed."""
    other = copy.copy(command)
    other.name, other.hidden = name, True
    return other


def complain(text: str) -> None:
    """Print an error to stderr, one line each."""
    from services.cli.output import plain

    for line in text.splitlines() or [""]:
        click.echo(f"{click.style('error:', fg='red')} {plain(line)}", err=True, color=colour())


def line_and_status(problem: Exception) -> tuple[str, int] | None:
    """The message and exit status of an expected error; None for one whose traceback is wanted."""
    from events.bus import BusError, HandlingError
    from services.errors import CyroidError, of_bus

    if isinstance(problem, ExceptionGroup):
        leaves = _leaves(problem)
        known = [one for one in leaves if isinstance(one, HandlingError | BusError)]
        return line_and_status(known[0]) if len(known) == len(leaves) else None
    if isinstance(problem, BusError):
        problem = of_bus(problem)
    if isinstance(problem, CyroidError):
        return f"{problem}; see: {problem.hint}" if problem.hint else str(problem), problem.entry.exit_status
    if isinstance(problem, HandlingError):
        return str(problem), CyroidError.entry.exit_status
    return None


def _leaves(group: ExceptionGroup[Exception]) -> list[Exception]:
    leaves: list[Exception] = []
    for one in group.exceptions:
        leaves += _leaves(one) if isinstance(one, ExceptionGroup) else [one]
    return leaves


def read_settings(context: click.Context, **more: Any) -> Settings:
    """Settings from the environment, this call's flags over them. Raises BadInput."""
    from services.runtime.environment import read_settings as read

    return read(os.environ, **{**Invocation.of(context).flags, **more})


def chosen_adapters(context: click.Context) -> Adapters:
    """The adapters of this call: those given as the context's object, otherwise the real ones."""
    from services.adapters.openers import REAL

    return Invocation.of(context).adapters or REAL


def user() -> str:
    """The name of the user who runs the command: the actor of its commands."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def run(context: click.Context, work: Callable[[Resources], Coroutine[Any, Any, T]], **more: Any) -> T:
    """Run a command's coroutine with the opened resources. Logs below warnings are not shown."""
    from services.resources import open_resources
    from services.runtime.telemetry import set_up

    settings = read_settings(context, **more)
    quiet = "warning" if settings.log_level == "info" else settings.log_level
    set_up(level=quiet, log_format=settings.log_format)

    async def whole() -> T:
        async with open_resources(settings, chosen_adapters(context)) as resources:
            return await work(resources)

    return asyncio.run(whole())


def colour() -> bool | None:
    """Whether to use colour. None lets click check the terminal; `NO_COLOR` (no-color.org) turns it off."""
    return False if os.environ.get("NO_COLOR") else None
