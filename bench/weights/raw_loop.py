"""The ceiling: ranged reads put into parts, in one loop per connection, with nothing computed of the content but the parts' CRC-32,
which belongs to the signed request. Client, part size, number of connections and signing are the seed job's own.

Runs in the storage initializer's Python with the job's scripts on PYTHONPATH: raw_loop.py REPOSITORY BUCKET PREFIX
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from mistral_on_l4.jobs.weights_files import select
from mistral_on_l4.jobs.weights_hub import Hub
from mistral_on_l4.jobs.weights_limits import Limits, Stop
from mistral_on_l4.jobs.weights_store import Store

repository, bucket, prefix = sys.argv[1:]
limits = Limits()
hub = Hub(os.environ["HF_ENDPOINT"], None, limits, Stop())
store = Store(bucket, limits)
snapshot = hub.snapshot(repository, "main")
files = select(repository, snapshot.files)
buffers = threading.local()


def move(file, number, upload):
    size = limits.part_bytes(file.size)
    length = min(size, file.size - (number - 1) * size)
    data = getattr(buffers, "data", None)
    if data is None or len(data) != length:
        data = buffers.data = bytearray(length)
    hub.read(snapshot, file, (number - 1) * size, memoryview(data))
    return store.put_part(prefix + file.path, upload, number, data) if upload else store.put(prefix + file.path, data)


with ThreadPoolExecutor(limits.connections) as pool, ThreadPoolExecutor(limits.uploads) as completions:
    moving, completing = [], []
    for file in files:
        count = max(-(-file.size // limits.part_bytes(file.size)), 1)
        upload = store.create_upload(prefix + file.path, {}) if count > 1 else None
        moving.append((file, upload, [pool.submit(move, file, number, upload) for number in range(1, count + 1)]))
    for file, upload, parts in moving:
        done = [part.result() for part in parts]
        if upload:
            completing.append(completions.submit(store.complete, prefix + file.path, upload, done))
    for completion in completing:
        completion.result()
