"""An OpenShift cluster as it is before and after a stack: what it offers, what would be refused, what is left."""
