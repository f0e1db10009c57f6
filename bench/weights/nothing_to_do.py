"""The seed job's own look at a bucket that is right, without the start of Python; prints the seconds that it took.

Runs in the storage initializer's Python with the job's scripts on PYTHONPATH and the job's environment.
"""

import os
import time

from mistral_on_l4.jobs.seed_weights import Order, finished_manifest
from mistral_on_l4.jobs.weights_limits import Limits
from mistral_on_l4.jobs.weights_store import Store

order = Order.from_environment(os.environ)
store = Store(order.bucket, Limits())
began = time.perf_counter()
assert finished_manifest(store, order) is not None
print(time.perf_counter() - began)
