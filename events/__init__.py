"""Messages, streams, codec, and the bus that carries them.

This package imports nothing of the project. Read `messages` first: it defines every message. Then read `bus`, which
publishes them, and `worker`, which consumes them.
"""

#: The name `Events` exists on PyPI. A start-up check and a test read this to make sure that ours was imported.
PROJECT = "cyroid-images"
