"""What of a Dockerfile the classic builder cannot do."""

import pytest

from services.core.builds.dockerfile import needs_buildkit


@pytest.mark.parametrize(
    ("content", "needs"),
    [
        ("FROM base\nRUN <<END\ntouch /x\nEND\n", ["line 2: RUN <<END"]),
        (
            "FROM base\nrun cat <<-'E_1' > /x && \\\n cat <<Q\n\ta\n\tE_1\nb\nQ\n",
            ["line 2: RUN <<E_1", "line 2: RUN <<Q"],
        ),
        ("FROM base\nCOPY <<a.txt /a\nRUN --mount=x\na.txt\n", ["line 2: COPY <<a.txt"]),
        ("FROM base\nRUN --mount=type=cache,target=/c make\n", ["line 2: RUN --mount"]),
        (
            'FROM base\nRUN --mount=type=secret,id="a b" --network=none x\n',
            ["line 2: RUN --mount", "line 2: RUN --network"],
        ),
        (
            "FROM base\n\nCOPY --chmod=700 --chown=1 a b\nADD --link a b\n",
            ["line 3: COPY --chmod", "line 4: ADD --link"],
        ),
        ("FROM base\nCOPY --link a b\n", ["line 2: COPY --link"]),
        ("# syntax = docker/dockerfile:1\nFROM base\n", ["line 1: # syntax=docker/dockerfile:1"]),
        ("# escape=`\n# syntax=x/y:1\nFROM base\nRUN a `\n --b\n", ["line 2: # syntax=x/y:1"]),
        ("FROM base\nONBUILD RUN --mount=type=cache,target=/c x\n", ["line 2: RUN --mount"]),
        ("FROM base\nARG TARGETARCH\nARG OTHER\n", ["line 2: ARG TARGETARCH"]),
    ],
)
def test_what_needs_buildkit_is_named_with_its_line(content: str, needs: list[str]) -> None:
    """Flags, here-documents, the syntax line, and arguments that only BuildKit sets."""
    assert needs_buildkit(content, {}) == needs


@pytest.mark.parametrize(
    "content",
    [
        "FROM --platform=linux/amd64 base AS a\nCOPY --from=a --chown=1:1 x y\nHEALTHCHECK --interval=5s CMD x\n",
        "FROM base\nRUN echo $((1 << 2)) && cat <<< here\nRUN echo '<<' END\n",
        "FROM base\n# RUN --mount=type=cache x\nRUN a \\\n# --mount\n\n  b --mount=c\n",
        "FROM base\n# syntax=not/at:top\nRUN x\n",
        "FROM base\nENV A <<END\nCMD cat --mount\n",
        "# just a comment\n# syntax=x\nFROM base\n",
        "FROM base\nARG TARGETOS=linux\n",
        "",
    ],
)
def test_what_the_classic_builder_can_do_is_let_through(content: str) -> None:
    """Its own flags, shifts and here-strings, comments, and what only looks like a directive."""
    assert needs_buildkit(content, {}) == []


def test_a_platform_argument_that_is_given_needs_nothing() -> None:
    """Its value is the caller's then."""
    assert needs_buildkit("FROM base\nARG TARGETARCH\n", {"TARGETARCH": "arm64"}) == []
