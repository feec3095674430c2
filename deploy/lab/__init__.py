"""Real engines, a real registry and a real Redis as child processes in a folder, on loopback.

    with Lab(folder) as lab:
        redis = lab.redis()                 # redis.url
        registry = lab.registry()           # registry.address
        host = lab.engine("host")           # host.url
        range_one = lab.engine("range-1")

Every server is started and known to answer when its method returns. All of them end with the `with` block, and with
the process that opened the laboratory, however that one ends. Start servers from the main thread: a child is tied to
the thread that started it.
"""

from deploy.lab.engine_server import EngineServer
from deploy.lab.laboratory import Lab
from deploy.lab.redis_server import RedisServer
from deploy.lab.registry_server import RegistryServer
from deploy.lab.server import Server
from deploy.lab.valve import Valve
from deploy.machine.commands import MachineError

__all__ = ["EngineServer", "Lab", "MachineError", "RedisServer", "RegistryServer", "Server", "Valve"]
