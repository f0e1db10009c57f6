"""Stand-in for MinIO's client `mc`: what the setup Job of the object store calls, against versitygw."""
