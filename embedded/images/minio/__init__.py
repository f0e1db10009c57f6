"""Stand-in for the MinIO server: reads MinIO's command line and becomes versitygw, an S3 server that has a Go module."""
