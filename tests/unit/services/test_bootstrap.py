"""Which roles there are, and which settings they are made of."""

import inspect
import sys

import click
import msgspec
import pytest

from services import bootstrap, resources, serving
from services.adapters import openers
from services.api import login
from services.bootstrap import IN_A_RANGE, ON_DEMAND, ROLES, chosen_roles
from services.cli import main
from services.deployer import policy
from services.doctor import checks
from services.errors import BadInput
from services.settings import Settings


def test_all_means_the_hosts_side() -> None:
    """Without the agent, which is a range's, and the gateway, which needs secrets; an unknown name is told."""
    assert set(chosen_roles(["all"])) == set(ROLES) - IN_A_RANGE - ON_DEMAND
    assert chosen_roles(["api", "api"]) == ["api"]
    with pytest.raises(BadInput, match="there is no role 'nope'; there are: api"):
        chosen_roles(["nope"])


def test_every_role_is_in_the_help() -> None:
    """`serve --help` says what each role does."""
    text = main.commands["serve"].help
    assert isinstance(main.commands["serve"], click.Command)
    assert text is not None
    told = {line.split()[0] for line in text.splitlines() if line.strip()}
    assert set(ROLES) - told == set()


def test_every_setting_is_used() -> None:
    """A setting that nothing reads would be a promise without anybody to keep it."""
    source = "".join(inspect.getsource(module) for module in (bootstrap, openers, policy, resources, serving, checks))
    source += inspect.getsource(sys.modules["services.cli.serve"]) + inspect.getsource(login)
    source += inspect.getsource(Settings.registry_place).replace("self.", "settings.")
    unused = [name for name in msgspec.structs.fields(Settings) if f"settings.{name.name}" not in source]
    assert unused == []
