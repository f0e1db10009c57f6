"""The local cluster: a real Kubernetes control plane, and stand-ins for what has no package. README.md says which is which."""
