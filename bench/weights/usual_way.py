"""What people do now, with those tools' own defaults: download the repository to disk, then upload its files.

Runs in the storage initializer's Python: usual_way.py REPOSITORY FOLDER BUCKET PREFIX
"""

import sys
from pathlib import Path

import boto3
from huggingface_hub import snapshot_download

repository, folder, bucket, prefix = sys.argv[1:]
snapshot_download(repository, local_dir=folder)
client = boto3.client("s3")
for file in sorted(Path(folder).iterdir()):
    if file.is_file():
        client.upload_file(str(file), bucket, prefix + file.name)
