"""Programs that run inside the cluster, in KServe's storage-initializer image, mounted from a ConfigMap as this package.

They are started with `python -m`, are typed and tested like everything else, and use the standard library, boto3,
huggingface_hub, requests and one another, nothing else. manifests/scripts.py collects the files that each of them needs, this one
among them: so nothing is imported here.
"""
