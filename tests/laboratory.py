"""Where tests get the laboratory from: real engines, registries and Redis as child processes (`deploy.lab`)."""

from __future__ import annotations

from deploy.lab import EngineServer, Lab, RedisServer, RegistryServer, Valve
from deploy.lab.cache_server import CacheServer
from deploy.lab.engine_server import engine_answers
from deploy.lab.erofs_tools import mkfs_erofs
from deploy.lab.kubernetes_tools import VERSIONS as KUBERNETES_VERSIONS
from deploy.lab.kubernetes_tools import KubernetesTools, kubernetes_tools
from deploy.lab.laboratory import marked_processes
from deploy.lab.logbook import LogBook, Mark
from deploy.lab.object_storage import ObjectStorage
from deploy.lab.redis_server import RedisTls
from deploy.lab.registry_server import Request
from deploy.lab.role_server import ROOT, RoleServer, variables
from deploy.lab.sentinel_server import SERVICE, SentinelServer, redis_cli
from deploy.lab.server import Server, free_port, plain_environment
from deploy.lab.swarm_node import SwarmNode, swarm_node
from deploy.lab.system import System

__all__ = [
    "KUBERNETES_VERSIONS",
    "ROOT",
    "SERVICE",
    "CacheServer",
    "EngineServer",
    "KubernetesTools",
    "Lab",
    "LogBook",
    "Mark",
    "ObjectStorage",
    "RedisServer",
    "RedisTls",
    "RegistryServer",
    "Request",
    "RoleServer",
    "SentinelServer",
    "Server",
    "SwarmNode",
    "System",
    "Valve",
    "engine_answers",
    "free_port",
    "kubernetes_tools",
    "marked_processes",
    "mkfs_erofs",
    "plain_environment",
    "redis_cli",
    "swarm_node",
    "variables",
]
