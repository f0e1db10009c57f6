"""How a running stack is reached and read, through the Kubernetes API."""
