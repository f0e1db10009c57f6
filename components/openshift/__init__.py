"""Parts of an OpenShift cluster: operators, GPU nodes, OpenShift AI's components."""
