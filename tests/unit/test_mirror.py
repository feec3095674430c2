"""tests/unit mirrors the tree: each module of events and services has a test file, or a suite that covers it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

#: Suite → modules that it covers and that have no unit test file of their own: their behaviour is that of the whole
#: which the suite tests (a conformance suite, a role, the command line, the HTTP API).
COVERED_BY = {
    "tests/unit/services/cli/test_api.py": ("services/cli/remote.py",),
    "tests/unit/services/cli/images/test_images.py": ("services/cli/images/sources.py",),
    "tests/unit/services/api/test_deployments.py": ("services/commands/priority.py",),
    "tests/unit/services/api/test_pushing.py": (
        "services/commands/many_pushes.py",
        "services/core/images/push_batches.py",
        "services/queries/push_preview.py",
    ),
    "tests/unit/services/tar_server/test_image_reader.py": ("services/tar_server/stored_image.py",),
    "tests/unit/services/commands/test_range_claims.py": ("services/core/ranges/range_claims.py",),
    "tests/unit/services/core/hosts/test_hosts.py": ("services/core/hosts/looks.py",),
    "tests/unit/services/doctor/test_layer_checks.py": ("services/queries/mounted_layers.py",),
    "tests/unit/services/api/test_hosts.py": (
        "services/commands/forget_host.py",
        "services/queries/host_holdings.py",
        "services/queries/known_hosts.py",
    ),
    "tests/unit/services/deployer/test_many_hosts.py": (
        "services/deployer/archive_origins.py",
        "services/deployer/policy.py",
        "services/registry_pusher/host_look.py",
        "services/registry_pusher/host_routing.py",
    ),
    "tests/unit/services/api/test_ingests.py": (
        "services/api/lists/ingests.py",
        "services/api/uploads.py",
        "services/commands/ingest.py",
        "services/core/images/blueprints.py",
        "services/core/images/ingests.py",
        "services/ingest/blueprint.py",
        "services/ingest/files.py",
        "services/ingest/jobs.py",
        "services/ingest/work.py",
        "services/queries/read_model/ingests.py",
    ),
    "tests/unit/services/api/test_session.py": ("services/api/page_sessions.py",),
    "tests/unit/bench/simulation/test_workload.py": ("services/adapters/memory_layer_placer.py",),
    "tests/contract/test_layer_mounts.py": (
        "services/adapters/kernel_mounts.py",
        "services/adapters/layer_seeds.py",
        "services/adapters/memory_layer_mounts.py",
    ),
    "tests/integration/services/adapters/test_layer_folder.py": (
        "services/adapters/erofs_index.py",
        "services/adapters/erofs_mounts.py",
        "services/adapters/layer_folder.py",
        "services/adapters/layer_images.py",
        "services/adapters/layer_views.py",
        "services/adapters/tar_split_batches.py",
        "services/adapters/tar_splitter.py",
    ),
    "tests/unit/services/adapters/test_unpacked_layers.py": (
        "services/adapters/layer_unpacker.py",
        "services/adapters/layer_unpacking.py",
        "services/adapters/limited_programs.py",
        "services/adapters/unprivileged.py",
    ),
    "tests/e2e/test_mounted_layers.py": (
        "services/adapters/classic_layers.py",
        "services/adapters/containerd.py",
        "services/adapters/containerd_layers.py",
        "services/adapters/containerd_messages.py",
        "services/adapters/engine_layers.py",
        "services/adapters/shown_layers_files.py",
        "services/agent/layer_release.py",
    ),
    "tests/unit/services/core/mounts/test_seed_images.py": ("services/core/mounts/seeds.py",),
    "tests/unit/services/core/mounts/test_erofs.py": (
        "services/core/mounts/erofs_blob.py",
        "services/core/mounts/erofs_files.py",
        "services/core/mounts/erofs_root.py",
    ),
    "tests/unit/services/layer_mounter/test_role.py": (
        "services/core/mounts/pins.py",
        "services/layer_mounter/answers.py",
    ),
    "tests/contract/bus/test_leases.py": (
        "events/bus.py",
        "events/dead_letters.py",
        "events/envelope.py",
        "events/lease.py",
        "events/memory/bus.py",
        "events/memory/bus_client.py",
        "events/redis/bus.py",
        "events/redis/bus_client.py",
        "events/redis/group_status.py",
        "events/redis/script_arguments.py",
        "events/streams.py",
        "events/tailing.py",
    ),
    "tests/unit/events/test_codec.py": ("events/messages.py",),
    "tests/fuzz/test_register.py": ("events/malformed.py",),
    "tests/integration/collector/test_sweep.py": (
        "services/collector/background.py",
        "services/collector/layout.py",
        "services/collector/storage.py",
        "services/collector/storage_files.py",
        "services/collector/sweep.py",
        "services/collector/unreferenced_since.py",
    ),
    "tests/integration/collector/test_scrub.py": ("services/collector/scrub.py",),
    "tests/integration/collector/test_role.py": (
        "services/collector/cache_probe.py",
        "services/collector/deletions.py",
        "services/collector/measure.py",
        "services/collector/pins.py",
        "services/collector/progress.py",
        "services/collector/repairs.py",
        "services/collector/role.py",
        "services/commands/request_reply.py",
        "services/commands/store.py",
        "services/queries/image_users.py",
    ),
    "tests/integration/collector/test_restoring.py": (
        "services/collector/restoring.py",
        "services/core/store/quarantine.py",
    ),
    "tests/unit/services/registry_pusher/test_host_images.py": (
        "services/registry_pusher/adoption.py",
        "services/registry_pusher/host_reclaim.py",
    ),
    "tests/unit/services/cli/images/test_push.py": ("services/cli/images/prompts.py",),
    "tests/unit/services/api/test_host_images.py": (
        "services/api/request_reply.py",
        "services/commands/host_images.py",
    ),
    "tests/integration/collector/test_without_storage.py": (
        "services/collector/registry_survey.py",
        "services/collector/without_storage.py",
    ),
    "tests/integration/collector/test_pressure.py": ("services/collector/pressure.py",),
    "tests/unit/services/registry_pusher/test_host_presence.py": ("services/runtime/disk_watch.py",),
    "tests/integration/collector/test_retention.py": ("services/collector/retention.py",),
    "tests/unit/services/cli/test_registry.py": (
        "services/cli/deletion.py",
        "services/cli/quarantine.py",
        "services/cli/store_rules.py",
    ),
    "tests/integration/test_bundles.py": ("services/content/bundle.py",),
    "tests/unit/services/cli/test_bundle.py": ("services/commands/bundle.py",),
    "tests/unit/services/registry_pusher/test_intents.py": ("services/core/store/intents.py",),
    "tests/contract/test_agent_bus.py": (
        "events/gateway/bus.py",
        "events/gateway/frames.py",
        "events/gateway/link.py",
        "events/gateway/protocol.py",
        "services/range_gateway/operations.py",
        "services/range_gateway/range_messages.py",
    ),
    "tests/unit/events/worker/test_worker.py": (
        "events/worker/backoff.py",
        "events/worker/in_flight.py",
        "events/worker/observer.py",
    ),
    "tests/contract/test_layer_sources.py": (
        "services/adapters/content_store.py",
        "services/adapters/layer_sources.py",
        "services/adapters/memory_layers.py",
        "services/adapters/save_stream.py",
        "services/core/images/image.py",
        "services/ports.py",
    ),
    "tests/integration/test_builds.py": (
        "services/adapters/build_session.py",
        "services/adapters/engine_build.py",
        "services/core/builds/options.py",
    ),
    "tests/contract/test_engine.py": (
        "services/adapters/engine.py",
        "services/adapters/engine_errors.py",
        "services/adapters/engine_images.py",
        "services/adapters/memory_archives.py",
        "services/adapters/memory_build.py",
        "services/adapters/memory_engine.py",
        "services/adapters/memory_store.py",
        "services/adapters/memory_transfers.py",
    ),
    "tests/contract/test_registry.py": (
        "services/adapters/memory_registry.py",
        "services/adapters/registry.py",
        "services/adapters/registry_http.py",
    ),
    "tests/integration/services/adapters/test_registry_uploads.py": ("services/adapters/registry_uploads.py",),
    "tests/integration/services/adapters/test_loop_devices.py": ("services/adapters/loop_devices.py",),
    "tests/integration/services/adapters/test_registry_folder.py": ("services/adapters/registry_folder.py",),
    "tests/integration/services/test_importer.py": ("services/adapters/files.py",),
    "tests/integration/test_serving.py": ("services/cli/serve.py",),
    "tests/unit/services/agent/test_loads_in_turn.py": ("services/agent/archive_download.py",),
    "tests/unit/services/agent/test_stall_watch.py": (
        "services/agent/cancellation.py",
        "services/agent/inspection.py",
    ),
    "tests/unit/services/agent/test_pull.py": (
        "services/agent/progress.py",
        "services/agent/role.py",
    ),
    "tests/unit/services/agent/test_load.py": ("services/agent/transfers.py",),
    "tests/unit/services/api/lists/test_images.py": (
        "services/api/lists/deployments.py",
        "services/api/lists/pushes.py",
        "services/api/lists/ranges.py",
        "services/api/lists/read.py",
        "services/api/reads.py",
        "services/core/images/registry_statistics.py",
        "services/queries/read_model/deployments.py",
        "services/queries/read_model/host_images.py",
        "services/queries/read_model/mirror.py",
        "services/queries/read_model/plans.py",
        "services/queries/read_model/pushes.py",
        "services/queries/read_model/ranges.py",
        "services/queries/read_model/record_follower.py",
        "services/queries/read_model/rows.py",
        "services/queries/read_model/transfers.py",
    ),
    "tests/unit/services/api/test_operations.py": (
        "services/api/lists/operations.py",
        "services/queries/dead_letter_pages.py",
        "services/queries/logged_events.py",
    ),
    "tests/unit/services/queries/test_statistics.py": ("services/queries/disk_use.py",),
    "tests/unit/services/api/test_prompts.py": ("services/commands/prompts.py",),
    "tests/unit/services/api/events/test_endpoint.py": (
        "services/api/event_stream.py",
        "services/api/events/broadcast.py",
        "services/api/events/feed.py",
        "services/api/events/frames.py",
    ),
    "tests/unit/services/tracker/test_push_records.py": (
        "services/core/images/pushes.py",
        "services/tracker/transfer_records.py",
    ),
    "tests/unit/services/tracker/test_registry_scan.py": (
        "services/core/images/registry_scan.py",
        "services/tracker/host_scan.py",
    ),
    "tests/unit/services/api/test_server.py": (
        "services/api/route.py",
        "services/runtime/problem_middleware.py",
        "services/runtime/problem_response.py",
    ),
    "tests/unit/services/api/test_http_page.py": ("services/api/routes.py",),
    "tests/unit/services/api/test_authentication.py": ("services/api/login.py",),
    "tests/unit/services/cli/test_tokens.py": ("services/commands/tokens.py",),
    "tests/unit/services/cli/test_main.py": (
        "services/cli/command_group.py",
        "services/cli/doctor.py",
        "services/cli/settings.py",
        "services/queries/known_ranges.py",
        "services/queries/settings.py",
    ),
    "tests/unit/services/cli/events/test_events.py": (
        "services/cli/events/dead.py",
        "services/cli/events/tail.py",
        "services/queries/dead_letters.py",
        "services/queries/events.py",
    ),
    "tests/unit/services/cli/test_ranges.py": ("services/cli/images/unreferenced.py",),
    "tests/integration/test_deployment_ids.py": (
        "services/commands/requests.py",
        "services/core/deployments/index.py",
    ),
    "tests/unit/services/registry_pusher/test_image_push.py": (
        "services/content/registry_config.py",
        "services/registry_pusher/outcome.py",
        "services/registry_pusher/recorded_push.py",
    ),
    "tests/unit/services/core/deployments/test_evaluation.py": (
        "services/core/deployments/facts.py",
        "services/core/deployments/signature_rule.py",
    ),
    "tests/unit/services/core/deployments/test_transitions.py": (
        "services/core/deployments/agent_messages.py",
        "services/core/deployments/transition_builder.py",
    ),
    "tests/unit/services/tracker/test_role.py": ("services/core/images/read_model.py",),
    "tests/unit/services/deployer/test_requests.py": ("services/core/images/reference_lists.py",),
    "tests/unit/services/deployer/test_restorer.py": (
        "services/core/ranges/ranges.py",
        "services/deployer/range_records.py",
    ),
    "tests/unit/services/deployer/test_role.py": (
        "services/deployer/context.py",
        "services/deployer/end_log.py",
        "services/deployer/reconciler.py",
        "services/deployer/push_wakeups.py",
        "services/deployer/slots.py",
    ),
    "tests/unit/services/doctor/test_checks.py": (
        "services/doctor/findings.py",
        "services/doctor/http.py",
        "services/doctor/role_checks.py",
    ),
    "tests/unit/services/range_gateway/test_role.py": (
        "services/queries/limited_ranges.py",
        "services/range_gateway/admission.py",
        "services/range_gateway/reports.py",
        "services/range_gateway/session.py",
    ),
    "tests/unit/services/cli/test_looking.py": ("services/queries/page.py",),
    "tests/unit/services/cli/test_plans.py": ("services/queries/plans.py",),
    "tests/unit/services/registry_pusher/test_layer_push.py": ("services/registry_pusher/compression.py",),
    "tests/unit/services/registry_pusher/test_layer_encodings.py": ("services/registry_pusher/range_codecs.py",),
    "tests/unit/services/test_bootstrap.py": (
        "services/resources.py",
        "services/runtime/shutdown.py",
    ),
    "tests/unit/services/runtime/test_environment.py": ("services/core/setting_types.py", "services/settings.py"),
}


def _modules() -> set[str]:
    """Every module with code of its own; packages and `python -m` entrances only import."""
    found = (path.relative_to(ROOT) for package in ("events", "services") for path in (ROOT / package).rglob("*.py"))
    return {str(path) for path in found if path.name not in {"__init__.py", "__main__.py"}}


def _unit_test(module: str) -> Path:
    path = Path(module)
    return ROOT / "tests/unit" / path.parent / f"test_{path.name}"


def test_every_module_has_a_unit_test_or_names_its_suite() -> None:
    """A new module brings its test file, or a line in `COVERED_BY`."""
    covered = {module for modules in COVERED_BY.values() for module in modules}
    assert {module for module in _modules() if not _unit_test(module).exists()} - covered == set()


def test_the_list_of_suites_is_true() -> None:
    """Suites and modules are there, no module is listed twice, and none that has a test file of its own."""
    listed = [module for modules in COVERED_BY.values() for module in modules]
    assert len(listed) == len(set(listed))
    assert {suite for suite in COVERED_BY if not (ROOT / suite).is_file()} == set()
    assert set(listed) - _modules() == set()
    assert {module for module in listed if _unit_test(module).exists()} == set()


def test_unit_tests_lie_where_their_modules_do() -> None:
    """Each folder of tests/unit is one of the tree."""
    folders = {path.parent.relative_to(ROOT / "tests/unit") for path in (ROOT / "tests/unit").rglob("test_*.py")}
    assert {str(folder) for folder in folders if not (ROOT / folder).is_dir()} == set()
