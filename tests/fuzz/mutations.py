"""Mutations: near misses of valid documents, and bytes that are none, the same for the same seed.

`FUZZ_TIMES` in the environment multiplies how many are tried (`FUZZ_TIMES=50 pytest tests/fuzz` takes minutes).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

TIMES = max(int(os.environ.get("FUZZ_TIMES", "1")), 1)

#: Pieces that some decoder takes amiss.
PIECES = (
    b"",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",  # a lone surrogate, as UTF-8 must not have it
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"1e-999",
    b"9" * 25,
    b"9" * 5000,
    b"18446744073709551616",
    b"[" * 3000,
    b'{"a":' * 3000,
    b'"\\ud800x"',
    b"{}",
    b"[]",
    b'""',
    b",",
    b'"',
    b"\\",
    b"\r\n",
    b"\n\n",
    b"..",
    b"/",
    b"[",
    b"]",
    b"%00",
    b"\xc2\xb2",  # a digit that is none: SUPERSCRIPT TWO
    b"\xd9\xa3",  # ARABIC-INDIC DIGIT THREE
    b"\xf0\x9f\x92\xa3" * 100,
    b"\x1f\x8b",
    b"\x28\xb5\x2f\xfd",
    b"\x80" * 12,
    b"\x7f\xff\xff\xff",
    b"A" * 2000,
)
#: In the place of any part of a JSON document.
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63),
    10**30,
    0.5,
    1e308,
    "",
    "\0",
    "\ud800",
    "x" * 3000,
    "..",
    "sha256:" + "0" * 64,
    "sha256:" + "g" * 64,
    "²",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    {"": None},
    [1, "a", None, [[]]],
)


def payloads(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Any bytes, the seeds, and what comes near to one of them."""
    numbers = st.integers(0, 2**32)
    near = st.builds(mutated, st.sampled_from(list(seeds)), numbers)
    return st.one_of(near, near, near, st.binary(max_size=300), st.sampled_from(PIECES))


def mutated(seed: bytes, number: int) -> bytes:
    """One of the many near misses of `seed`."""
    dice = Random(number)
    if number % 2 and (changed := _odd_json(seed, dice)) is not None:
        return changed
    out = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 4))):
        place, other = dice.randrange(len(out) + 1), dice.randrange(len(out) + 1)
        low, high = min(place, other), max(place, other)
        match dice.randrange(6):
            case 0:
                out[place:place] = dice.choice(PIECES)
            case 1:
                del out[low:high]
            case 2:
                out[low:high] = dice.choice(PIECES)
            case 3:
                out[place:place] = out[low : min(high, low + 600)]
            case 4 if out:
                out[place % len(out)] ^= 1 << dice.randrange(8)
            case _:
                out[low : low + 4] = dice.randbytes(4)
    return bytes(out)


def _odd_json(seed: bytes, dice: Random) -> bytes | None:
    """The document with one part, or two, replaced by something odd; None for what is no JSON."""
    try:
        document = json.loads(seed)
    except ValueError:
        return None
    for _ in range(dice.choice((1, 1, 2))):
        document = _replaced(document, dice)
    return json.dumps(document).encode()


def _replaced(value: Any, dice: Random) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.85:
        name = dice.choice(list(value))
        if dice.random() < 0.1:
            return {other: member for other, member in value.items() if other != name}
        return {**value, name: _replaced(value[name], dice)}
    if isinstance(value, list) and value and dice.random() < 0.85:
        place = dice.randrange(len(value))
        return [*value[:place], _replaced(value[place], dice), *value[place + 1 :]]
    return dice.choice(ODD)
