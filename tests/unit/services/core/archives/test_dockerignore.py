"""What `.dockerignore` leaves out: the cases of the Dockerfile reference and of moby's pattern matcher."""

import pytest

from services.core.archives.dockerignore import Dockerignore


@pytest.mark.parametrize(
    ("lines", "out", "kept"),
    [
        ("# comment\n\n", [], ["# comment", "a"]),
        ("*/temp*", ["somedir/temporary.txt", "somedir/temp"], ["temp", "somedir/subdir/temporary.txt"]),
        ("*/*/temp*", ["somedir/subdir/temporary.txt"], ["somedir/temp"]),
        ("temp?", ["tempa", "tempb"], ["temp", "tempab", "x/tempa"]),
        ("**/*.go", ["a.go", "x/y/z.go"], ["a.goo"]),
        ("*.md\n!README.md", ["a.md"], ["README.md", "x/a.md"]),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md", "README-x.md"]),
        ("*.md\nREADME-secret.md\n!README*.md", ["a.md"], ["README-secret.md"]),
        ("node_modules", ["node_modules", "node_modules/a/b.js"], ["x/node_modules"]),
        ("**/node_modules", ["node_modules", "x/node_modules/a"], ["node_modulesx"]),
        ("/foo/bar", ["foo/bar", "foo/bar/x"], ["x/foo/bar"]),
        ("./foo//bar/", ["foo/bar/x"], ["foo"]),
        ("docs\n!docs/keep", ["docs", "docs/a"], ["docs/keep", "docs/keep/b"]),
        ("*\n!src", ["a", "x/y"], ["src", "src/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/c"], ["ab", "a/xb"]),
        ("**", ["a", "a/b"], []),
        ("[a-c]x", ["ax", "cx"], ["dx"]),
        ("[^a]x", ["bx"], ["ax"]),
        (r"\#hash", ["#hash"], ["hash"]),
        (".", [], ["a"]),
        ("a.b+c", ["a.b+c"], ["aXb+c", "a.bbc"]),
        ("  spaced  ", ["spaced"], []),
    ],
)
def test_patterns(lines: str, out: list[str], kept: list[str]) -> None:
    """Each pattern leaves out what it should and nothing else."""
    ignore = Dockerignore.parse(lines)
    assert [path for path in out if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


@pytest.mark.parametrize("line", ["[a", "!", "[z-a]"])
def test_what_is_no_pattern_is_refused(line: str) -> None:
    """The error quotes the line."""
    with pytest.raises(ValueError, match=r"."):
        Dockerignore.parse(line)


def test_taking_back_is_known() -> None:
    """Whoever walks a folder must know whether something inside may be wanted after all."""
    assert Dockerignore.parse("*\n!a").takes_back
    assert not Dockerignore.parse("*").takes_back
