"""The register of errors: every code with its title, HTTP status, exit status, and whether another try can help.

The answers over HTTP (`application/problem+json`), the exit statuses of the command line, failures on the bus, and
docs/errors.md all come from this one table. A code is stable: programs compare it, so it is never renamed or reused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class ErrorEntry(NamedTuple):
    """One error code with its title, statuses and advice.

    `http_status` None: it is never the answer of an HTTP server.
    """

    code: str
    title: str
    http_status: int | None
    exit_status: int
    retryable: bool
    advice: str
    """What a person can do, in one sentence."""


def _entries(
    http_status: int | None, exit_status: int, retryable: bool, rows: Iterable[tuple[str, str, str]]
) -> Iterable[ErrorEntry]:
    for code, title, advice in rows:
        yield ErrorEntry(code, title, http_status, exit_status, retryable, advice)


def _all() -> Iterable[ErrorEntry]:
    yield from _of_requests()
    yield from _of_builds()
    yield from _of_conflicts()
    yield from _of_transfers()
    yield from _unforeseen()
    yield from _http()
    yield from _of_deployments()


def _of_builds() -> Iterable[ErrorEntry]:
    """Errors of a build."""
    yield from _entries(
        400,
        2,
        False,
        [
            ("build_failed", "The build failed", "The message ends with what the engine said: correct that step."),
            ("needs_buildkit", "The build needs BuildKit", "Turn it on at the engine, or ask for it with --builder."),
            ("base_not_fetched", "A base image could not be brought back", "Run the command of the message first."),
            ("no_dockerfile", "No Dockerfile", "Add one to the context, or name another file."),
        ],
    )


def _of_requests() -> Iterable[ErrorEntry]:
    """Errors of a request that cannot be carried out as it is."""
    yield from _entries(
        400,
        2,
        False,
        [
            ("bad_input", "Bad input", "Correct what the message names."),
            ("bad_reference", "Bad image reference", "Write REPOSITORY:TAG or REPOSITORY@DIGEST, in lower case."),
            ("not_an_image", "Not an image", "Push an image under that name, for the platform that the range runs."),
            ("bad_archive", "Not an image archive", "Make the archive again with `docker save`."),
            ("no_name", "The archive's image has no name", "Give it one when it is imported."),
            ("many_names", "The archive has several images", "Import it without a name of your own."),
            ("bad_setting", "Bad setting", "Correct the variable that the message names."),
            ("wrong_event_loop", "Used in another event loop", "Open the service in the loop that uses it."),
            ("registry_path", "A registry under a path", "Give the registry a host name or a port of its own."),
            ("two_credentials", "Two credentials for the registry", "Keep one of those that the message names."),
            ("bad_redis", "Redis is not fit for the bus", "Correct Redis's configuration as the message says."),
            ("no_such_role", "No such role", "Choose one of the roles in the message."),
        ],
    )
    yield from _entries(
        404,
        2,
        False,
        [("not_found", "Not found", "Check the name: the lists show what there is.")],
    )


def _of_conflicts() -> Iterable[ErrorEntry]:
    """Errors of a request that contradicts what is there."""
    yield from _entries(
        409,
        2,
        False,
        [
            ("rebuilt", "The name has other content now", "Ask again for what the name stands for now."),
            ("duplicate_deployment", "The deployment's id is taken", "Choose another id, or inspect what has it."),
            ("duplicate_plan", "The plan's id is taken", "Choose another id, or inspect what has it."),
            (
                "prompt_answered",
                "The prompt was answered",
                "The message says who decided; look at the list again.",
            ),
            ("not_confirmed", "Not confirmed", "Say with `confirm` how many the message counts."),
            ("range_alive", "The range's agent is alive", "End the range first, or force it."),
            ("range_elsewhere", "The range is on another host", "Choose another id, or release the range first."),
            ("host_alive", "The host is there", "Stop the host's services first, or force it."),
            ("in_use", "The image is needed", "The message names who needs it: end that first, or force it."),
            ("registry_has_cache", "The registry has a blob cache", "Take the cache out of its configuration."),
            ("no_storage_folder", "No storage folder to collect in", "Run the registry's own garbage-collect."),
        ],
    )


def _of_transfers() -> Iterable[ErrorEntry]:
    """Errors of dependencies and transfers."""
    yield from _entries(
        503,
        4,
        True,
        [
            ("unavailable", "A dependency is unavailable", "Bring back what the message names, then try again."),
            ("engine_unavailable", "The engine is unavailable", "See whether the engine at that address runs."),
            ("engine_too_old", "The engine is too old", "Use an engine of version 20.10 or newer."),
            ("engine_too_new", "The engine is too new", "Use a release of these services that knows its API."),
            ("registry_unavailable", "The registry is unavailable", "See whether the registry at that address runs."),
            ("registry_denied", "The registry denies access", "Correct the registry's user and password or token."),
            ("registry_bad_answer", "This is no registry", "See what answers at CYROID_REGISTRY_URL."),
            ("registry_elsewhere", "The registry leads elsewhere", "Configure the registry's own address, or ours."),
            ("redis_unavailable", "Redis is unavailable", "The message says what is wrong with it."),
            ("exports_busy", "Too many exports at a time", "Wait: the place in the queue is kept."),
        ],
    )
    yield from _entries(
        502,
        5,
        True,
        [
            ("transfer_failed", "The transfer failed", "Try again; the message says where it broke."),
            ("stalled", "The transfer stalled", "Try again; see what is slow between the two ends."),
            ("manifest_lost", "The registry lost a manifest", "See what stands before the registry, then push again."),
            ("blob_damaged", "A blob in the registry is damaged", "Serve the role collector: it sets the blob aside."),
            ("wrong_content", "Other content than asked for", "Try again; if it stays so, push the image again."),
            ("layers_not_mounted", "Layers cannot be mounted", "They are pulled; see the layer-mounter's log for why."),
            (
                "layers_unmountable",
                "Layers of a kind that is not mounted",
                "They are pulled; the message says what they are.",
            ),
            ("mount_stalled", "Layers were not mounted in time", "They are pulled; see that the layer-mounter runs."),
            ("no_layers", "The layers are not known", "They are pulled; see that the registry answers."),
            ("layer_unreadable", "A layer cannot be read", "Try again; another source may have it."),
            ("offer_refused", "The archive is refused", "The deployer makes a new offer by itself."),
            ("tar_server_unavailable", "The tar server is unavailable", "See whether the tar server runs."),
            ("unexpected", "An unforeseen error", "The service's log has the details."),
        ],
    )


def _unforeseen() -> Iterable[ErrorEntry]:
    """Errors that another try does not help against, and unforeseen ones."""
    yield ErrorEntry(
        "layer_damaged",
        "The engine's layer is damaged",
        422,
        5,
        False,
        "Build or pull the image again on the engine that has it.",
    )
    yield ErrorEntry("no_space", "No disk space", 507, 6, True, "Free disk space where the message says.")
    yield ErrorEntry("role_failed", "A role failed", 500, 7, False, "The log has its error; start the process again.")
    yield from _entries(
        500,
        1,
        False,
        [
            ("error", "Error", "The message says what is wrong."),
            ("cancelled", "Cancelled", "Somebody cancelled the work: retry the deployment to do it."),
            ("internal_error", "Internal error", "The service's log has the details."),
        ],
    )
    yield ErrorEntry("overtaken", "The deployment is not known yet", 500, 1, True, "It is handled again by itself.")


def _http() -> Iterable[ErrorEntry]:
    """Errors of HTTP requests that no command line makes."""
    for code, title, status, advice in (
        ("no_token", "No token", 401, "Send `Authorization: Bearer TOKEN`."),
        ("bad_token", "The token is not valid", 401, "Ask the operator for a token, or log in again."),
        ("forbidden", "Not allowed", 403, "Ask for a token with the role that the message names."),
        ("foreign_origin", "Request of a foreign page", 403, "Send it from a page of this host, or with no Origin."),
        ("offer_wrong_token", "Wrong token for the offer", 403, "Use the token of this transfer's offer."),
        ("no_offer", "No such offer", 404, "Ask for an archive again."),
        ("method_not_allowed", "Method not allowed", 405, "Use a method that the `Allow` header names."),
        ("timeout", "The request came too slowly", 408, "Send it again, without pauses."),
        ("offer_used", "The offer is used", 409, "Ask for an archive again to get a new offer."),
        ("offer_expired", "The offer has expired", 410, "Ask for an archive again to get a new offer."),
        ("changed_meanwhile", "Changed meanwhile", 412, "Read it again, and repeat the change."),
        ("too_large", "Too large", 413, "Send a smaller request."),
        (
            "unsupported_media_type",
            "Unsupported media type",
            415,
            "Send `Content-Type: application/json`, or an archive's to a route that takes one.",
        ),
        ("unknown_host", "Unknown host name", 421, "Use a host name of the setting CYROID_API_HOSTS."),
        ("bad_request", "Malformed HTTP request", 400, "Send a request that follows the HTTP standard."),
    ):
        yield ErrorEntry(code, title, status, 2, False, advice)
    yield ErrorEntry("too_many_logins", "Too many wrong tokens", 429, 4, True, "Wait, then show a token that is known.")
    yield ErrorEntry("ingests_busy", "Too many builds and imports", 503, 4, True, "Wait until one of them ends.")
    yield ErrorEntry("interrupted", "The API ended meanwhile", 503, 4, True, "Request it again.")
    yield ErrorEntry("too_many", "Too many connections", 503, 4, True, "Close connections that are not used.")


def _of_deployments() -> Iterable[ErrorEntry]:
    """Reasons why an image of a deployment failed, in events and in the deployment's record."""
    for code, title, retryable, advice in (
        ("not_signed", "The image has no right signature", False, "Sign its manifest with cosign, then retry."),
        ("platform_mismatch", "The image is for another platform", False, "Deploy an image of the range's platform."),
        ("image_not_found", "The image is nowhere", False, "Build, import or push it first."),
        ("no_agent", "The range has no agent", True, "Start the range's agent, then retry the deployment."),
        (
            "range_contested",
            "Two agents speak for the range",
            True,
            "End one of the agents, then retry the deployment.",
        ),
        ("agent_unstable", "The agent restarts again and again", True, "See why the range's agent ends."),
        ("range_unstable", "The range is recreated again and again", False, "See that one agent speaks for the range."),
        ("push_stalled", "The push stalled", True, "See that a registry-pusher runs, then retry the deployment."),
        ("same_layers", "An archive of the config alone is needed", True, "It is made by itself."),
        ("other_blobs", "A pull would pass over layers that are here in another form", True, "It goes by an archive."),
        ("no_source", "The registry cannot be pulled from", True, "It goes by an archive; bring the registry back."),
    ):
        yield ErrorEntry(code, title, None, 5, retryable, advice)


#: By code, in the order of the document.
REGISTER: Mapping[str, ErrorEntry] = {entry.code: entry for entry in _all()}
