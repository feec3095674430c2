"""Services of image distribution: a folder for each role, and what the roles are made of.

    core/         pure decisions: references, manifests, state machines; no I/O, no clock
    ports         what roles need of the outside, as Protocols; adapters/ implements them, with a fake beside each
    bootstrap     composes the roles; `runtime` runs what was composed; `cli` is the command line

Roles never import one another: they exchange messages on streams (`events`). ARCHITECTURE.md lists every folder.
"""
