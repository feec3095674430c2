"""The deployment record and its policy."""

from __future__ import annotations

from services.core.deployments.deployment import Policy
from services.deployer.policy import policy_of
from services.settings import Settings


def test_the_policys_defaults_are_those_of_the_settings() -> None:
    """Tests and embedded runs, which make a policy without settings, are as patient as an installation."""
    assert policy_of(Settings(), Policy()) == Policy()
