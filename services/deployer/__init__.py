"""Role `deployer`: the durable state machine that brings images to ranges and ends every deployment in one outcome."""

from services.deployer.role import Deployer

__all__ = ["Deployer"]
