"""The node agent: a small kubelet, service proxy and volume provisioner for the simulated nodes of the embedded cluster."""
