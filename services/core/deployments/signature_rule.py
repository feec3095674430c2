"""Rule of signatures: where the policy asks for them, only content with a right one may wait for a slot.

An image is checked when it is about to queue, on every attempt. An archive (tar) comes from the host's engine, so it
goes only for content whose signature in the registry this deployment has seen.
"""

from __future__ import annotations

from services.core.deployments.facts import ImageFacts
from services.core.deployments.state_table import Cause
from services.core.deployments.transition_builder import TransitionBuilder


def may_go_unseen(draft: TransitionBuilder, index: int) -> bool:
    """Whether this content may go by tar while the registry cannot tell its signature: where none is asked for, or
    where it was seen before."""
    provenance = draft.images[index].provenance
    return not draft.policy.signatures or (provenance is not None and provenance.signed)


def is_refused(draft: TransitionBuilder, index: int, facts: ImageFacts, source: str | None) -> bool:
    """Fails an image without a right signature, where one is asked for."""
    image = draft.images[index]
    if source is not None:
        draft.change(index, provenance=facts.provenance)
        why = facts.unsigned if draft.policy.signatures else None
        why = why or (None if may_go_unseen(draft, index) else "it was not checked")
    else:
        why = None if may_go_unseen(draft, index) else "it is not in the registry, where its signature would be"
    if why is None:
        return False
    text = f"{image.reference} is not deployed, because its signature is asked for: {why}; sign it, then retry"
    cause: Cause = "unknown or refused" if image.state == "resolving" else "failed permanently"
    draft.fail(index, cause, "not_signed", text)
    return True
