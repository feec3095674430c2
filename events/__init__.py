"""What is said: messages, streams, codec and the bus that carries them.

This package is a leaf: it imports nothing of the project. Read `messages` first, it is everything that is ever
said; then `bus`, which is how it is said; then `worker`, which is how it is heard.
"""

#: The name `Events` exists on PyPI. A start-up check and a test read this to make sure that ours was imported.
PROJECT = "cyroid-images"
