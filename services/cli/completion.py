"""`cyroid-images completion SHELL`: the shell's completion script."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, /, *, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      eval "$(cyroid-images completion bash)"
      cyroid-images completion fish > ~/.config/fish/completions/cyroid-images.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # each of _SHELLS has one
    # Not CYROID_…: an unknown variable of that name would stop the start.
    script = kind(context.find_root().command, {}, "cyroid-images", "_CYROID_IMAGES_COMPLETE")
    # The whole class checks the version of bash with a subprocess; its template is what is wanted.
    click.echo(script.source_template % script.source_vars())
