"""Fetches a checkpoint's small files, its tokenizer among them, from the bucket: no weights.

Environment: STORAGE_CONFIG (KServe's JSON of an S3 place, with the reader's keys), WEIGHTS_PREFIX, FOLDER, CA_FOLDER (optional:
holds the certificate of the authority that the store's own is from). Exit code 1 with one line where there is no tokenizer.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mistral_on_l4.jobs.last_words import say_why

# A tokenizer has 17 MB at most in the catalogue; a shard of weights has hundreds.
_LARGEST_BYTES = 64 * 2**20
_NOT = (".safetensors", ".bin", ".pt", ".gguf")


class NoTokenizer(Exception):
    """One line."""


def fetch(environment: dict[str, str]) -> list[str]:
    """Names of the files that now lie in FOLDER. Raises NoTokenizer, BotoCoreError, ClientError."""
    place = json.loads(environment["STORAGE_CONFIG"])
    prefix, folder = environment["WEIGHTS_PREFIX"], Path(environment["FOLDER"])
    authorities = sorted(Path(environment["CA_FOLDER"]).glob("*.crt")) if environment.get("CA_FOLDER") else []
    client = boto3.client(
        "s3",
        endpoint_url=place.get("endpoint_url"),
        region_name=place.get("region"),
        aws_access_key_id=place["access_key_id"],
        aws_secret_access_key=place["secret_access_key"],
        verify=str(authorities[0]) if authorities else None,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 5}),
    )
    names = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=place["bucket"], Prefix=prefix):
        for item in page.get("Contents", []):
            name = item["Key"].removeprefix(prefix)
            if "/" not in name and not name.endswith(_NOT) and item["Size"] <= _LARGEST_BYTES:
                client.download_file(place["bucket"], item["Key"], str(folder / name))
                names.append(name)
    if not any("token" in name or name == "tekken.json" for name in names):
        raise NoTokenizer(f"s3://{place['bucket']}/{prefix} holds no tokenizer: {', '.join(names) or 'nothing'}")
    return names


def main() -> int:
    try:
        print(f"fetched {', '.join(fetch(dict(os.environ)))}", flush=True)
        return 0
    except NoTokenizer as error:
        sentence = str(error)
    except (BotoCoreError, ClientError, KeyError, ValueError) as error:
        sentence = f"the tokenizer could not be fetched: {type(error).__name__}: {error}"
    say_why(sentence)
    return 1


if __name__ == "__main__":
    sys.exit(main())
