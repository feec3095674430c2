"""References: a table of cases from the field, and the properties of the mapping into one registry."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.core.images.references import Reference
from services.errors import BadReference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "normal", "familiar", "repository", "tag"),
    [
        ("nginx", "docker.io/library/nginx:latest", "nginx:latest", "library/nginx", "latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27", "library/nginx", "1.27"),
        ("library/nginx:1.27", "docker.io/library/nginx:1.27", "nginx:1.27", "library/nginx", "1.27"),
        ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest", "library/nginx", "latest"),
        ("index.docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest", "library/nginx", "latest"),
        ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c", "a/b", "c"),
        ("cyroid/kali", "docker.io/cyroid/kali:latest", "cyroid/kali:latest", "cyroid/kali", "latest"),
        ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest", "library/a/b", "latest"),
        ("host:5000/name", "host:5000/name:latest", "host:5000/name:latest", "host_5000/name", "latest"),
        ("host:5000/name:1", "host:5000/name:1", "host:5000/name:1", "host_5000/name", "1"),
        ("host:5000/a/b/c:x", "host:5000/a/b/c:x", "host:5000/a/b/c:x", "host_5000/a/b/c", "x"),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest", "localhost/x", "latest"),
        ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest", "localhost_5000/x", "latest"),
        ("ghcr.io/org/app:v1", "ghcr.io/org/app:v1", "ghcr.io/org/app:v1", "ghcr.io/org/app", "v1"),
        ("172.30.0.16:5000/a:b", "172.30.0.16:5000/a:b", "172.30.0.16:5000/a:b", "172.30.0.16_5000/a", "b"),
        ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest", "x--1x_5000__v6/x", "latest"),
        ("[fd00::]/x:1", "[fd00::]/x:1", "[fd00::]/x:1", "xfd00--x__v6/x", "1"),
        ("Host.Example/x", "Host.Example/x:latest", "Host.Example/x:latest", "host.example__21/x", "latest"),
        ("a/b__c.d-e--f_g", "docker.io/a/b__c.d-e--f_g:latest", "a/b__c.d-e--f_g:latest", "a/b__c.d-e--f_g", "latest"),
        ("docker.io/localhost/x:1", "docker.io/localhost/x:1", "docker.io/localhost/x:1", "docker.io/localhost/x", "1"),
        ("docker.io/host_5000/x:1", "docker.io/host_5000/x:1", "host_5000/x:1", "docker.io/host_5000/x", "1"),
        ("docker.io/a.b/x:1", "docker.io/a.b/x:1", "docker.io/a.b/x:1", "docker.io/a.b/x", "1"),
        (f"nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}", f"nginx@{DIGEST}", "library/nginx", f"sha256-{HEX}"),
        (
            f"h:1/n:t@{DIGEST}",
            f"h:1/n:t@{DIGEST}",
            f"h:1/n:t@{DIGEST}",
            "h_1/n",
            f"sha256-{HEX}",
        ),
        (f"{HEX}:t", f"docker.io/library/{HEX}:t", f"{HEX}:t", f"library/{HEX}", "t"),
        ("a:" + "t" * 128, "docker.io/library/a:" + "t" * 128, "a:" + "t" * 128, "library/a", "t" * 128),
        ("a:Tag_1.0-X", "docker.io/library/a:Tag_1.0-X", "a:Tag_1.0-X", "library/a", "Tag_1.0-X"),
    ],
)
def test_a_reference_is_read_as_the_field_reads_it(
    text: str, normal: str, familiar: str, repository: str, tag: str
) -> None:
    """Each form is normalised, shortened and placed in the registry as the table says."""
    reference = Reference.parse(text)
    assert (str(reference), reference.familiar) == (normal, familiar)
    assert (reference.repository, reference.registry_tag) == (repository, tag)
    assert Reference.parse(normal) == Reference.parse(familiar) == reference


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "repository name ''"),
        (":tag", "repository name ''"),
        ("Nginx", "'Nginx' must be lower case"),
        ("MyOrg/app", "'MyOrg/app' must be lower case"),
        ("host:5000/Name", "'Name' must be lower case"),
        ("nginx:", "the tag ''"),
        ("nginx:-x", "the tag '-x'"),
        ("nginx:a b", "the tag 'a b'"),
        ("nginx:" + "t" * 129, "129 characters"),
        ("a" * 240, "longer than 255"),
        ("h.x/" + "a" * 252, "longer than 255"),
        ("nginx@sha256:abc", "digest 'sha256:abc'"),
        ("nginx@", "digest ''"),
        (f"nginx@sha512:{HEX}{HEX}", "not 'sha256:'"),
        (f"nginx@sha256:{HEX.upper()}", "lower-case hex"),
        (HEX, "image id"),
        ("a//b", "repository name 'a//b'"),
        ("/a", "repository name '/a'"),
        ("a/", "repository name 'a/'"),
        ("host.x/", "repository name ''"),
        ("a___b", "repository name 'a___b'"),
        ("a..b", "repository name 'a..b'"),
        ("-a", "repository name '-a'"),
        ("a_", "repository name 'a_'"),
        ("ho_st:5000/x", "'ho_st:5000' is no host name"),
        ("-h.x/a", "'-h.x' is no host name"),
        ("host:port/x", "'host:port' is no host name"),
        ("[::1/x", "'[::1' is no host name"),
        ("nginx\n", "repository name 'nginx\\n'"),
        ("http://host/x", "'http:' is no host name"),
        ("näme", "repository name 'näme'"),
    ],
)
def test_a_bad_reference_is_refused_with_the_part_that_is_wrong(text: str, why: str) -> None:
    """Every refusal names the text and the part that is wrong."""
    with pytest.raises(BadReference) as caught:
        Reference.parse(text)
    assert why in str(caught.value)
    assert repr(text) in str(caught.value)


def test_a_repository_that_grows_past_the_limit_is_refused() -> None:
    """A name that fits but whose mapped form does not is refused when it is mapped, not by the registry."""
    reference = Reference.parse("A" * 120 + ".x/" + "b" * 130)
    with pytest.raises(BadReference, match="longer than 255"):
        _ = reference.repository


@pytest.mark.parametrize(
    "repository", ["nginx", "docker.io/library/nginx", "a.b__0/x", "a.b__v6/x", "x--1x_5000__v6", "__/x"]
)
def test_a_repository_of_somebody_else_maps_to_no_reference(repository: str) -> None:
    """What no reference maps to is told apart, so that listing a shared registry invents no names."""
    assert Reference.from_registry(repository, "latest") is None


COMPONENTS = st.from_regex(r"[a-z0-9]{1,3}((\.|__?|-{1,2})[a-z0-9]{1,3}){0,2}", fullmatch=True)
PATHS = st.lists(COMPONENTS | st.just("localhost"), min_size=1, max_size=3).map("/".join)
HOSTS = (
    st.from_regex(r"[a-zA-Z0-9]{1,3}(-{1,2}[a-zA-Z0-9])?(\.[a-zA-Z0-9]{1,3}){0,2}", fullmatch=True)
    | st.from_regex(r"\[[a-fA-F0-9:]{2,8}\]", fullmatch=True)
    | st.sampled_from(["docker.io", "index.docker.io", "localhost", "x--1x"])
)
DOMAINS = st.tuples(HOSTS, st.sampled_from(["", ":1", ":5000", ":05000"])).map("".join)
NAMES = st.one_of(PATHS, st.tuples(DOMAINS, PATHS).map("/".join))
SUFFIXES = st.one_of(
    st.just(""),
    st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,4}", fullmatch=True),
    st.from_regex(r"@sha256:[0-9a-f]{64}", fullmatch=True),
)


def parsed(text: str) -> Reference | None:
    try:
        return Reference.parse(text)
    except BadReference:
        return None


REFERENCES = st.tuples(NAMES, SUFFIXES).map("".join).map(parsed).filter(lambda reference: reference is not None)


@given(REFERENCES, REFERENCES)
def test_two_names_never_share_a_repository(first: Reference, second: Reference) -> None:
    """Equal repository means equal name, for any two references."""
    assert (first.repository == second.repository) == (first.name == second.name)


@given(REFERENCES)
def test_a_reference_comes_back_from_its_place_in_the_registry(reference: Reference) -> None:
    """Repository and tag give the reference back, and every printed form parses to the same."""
    assert Reference.from_registry(reference.repository, reference.registry_tag) == reference
    assert Reference.parse(str(reference)) == Reference.parse(reference.familiar) == reference
    assert Reference.parse(f"registry:5000/{reference.repository}:{reference.registry_tag}").domain == "registry:5000"


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in another way than BadReference."""
    reference = parsed(text)
    assert reference is None or Reference.parse(str(reference)) == reference
