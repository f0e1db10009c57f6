"""The least that looks at a checkpoint in a bucket: one listing, and a HEAD of each object, one after the other.

Runs in the storage initializer's Python: list_and_head.py BUCKET PREFIX; prints the seconds that the requests took.
"""

import sys
import time

import boto3

bucket, prefix = sys.argv[1:]
client = boto3.client("s3")
began = time.perf_counter()
for item in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
    client.head_object(Bucket=bucket, Key=item["Key"])
print(time.perf_counter() - began)
