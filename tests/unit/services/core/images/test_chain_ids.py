"""Chain IDs."""

from __future__ import annotations

import hashlib

from services.core.images.chain_ids import chain_ids


def test_the_first_layers_chain_is_its_diff_id() -> None:
    """A stack of one is named by its layer; a stack of none has no name."""
    assert chain_ids([]) == ()
    assert chain_ids(["sha256:aa"]) == ("sha256:aa",)


def test_each_further_layer_hashes_the_chain_below_it() -> None:
    """The rule of the specification, spelt out for three layers, two of them equal."""
    second = "sha256:" + hashlib.sha256(b"sha256:aa sha256:bb").hexdigest()
    third = "sha256:" + hashlib.sha256(f"{second} sha256:bb".encode()).hexdigest()
    assert chain_ids(["sha256:aa", "sha256:bb", "sha256:bb"]) == ("sha256:aa", second, third)
