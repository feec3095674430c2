"""Who acts: the roles of image distribution, and what they stand on.

    core/       pure decisions: references, manifests, chain IDs, state machines; no I/O
    ports.py    what the roles need of the outside, as Protocols
    adapters/   the only importers of aiodocker, redis and the registry's HTTP, with a twin beside each
    bootstrap   the only composer; runner runs what it composed; cli is the door for people

The roles are the other modules, one each; they never import one another.
"""
