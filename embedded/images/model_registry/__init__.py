"""Stand-in for the Kubeflow Model Registry server: its REST API, kept in SQLite."""
