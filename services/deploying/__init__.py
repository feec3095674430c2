"""What the deployer's hands do: find out facts, hear signs of life, hand out slots, write outcomes, reconcile.

The decisions are in `services.core.deployment_*`; `services.deployer` is the role that joins both.
"""
