"""Kubernetes objects as plain dicts, in the API's own camelCase. Pure: no Pulumi, no cluster.

A value may also be a Pulumi Output: the builders only place values, they never look into those that can be one (they are typed
`Any`). Names, namespaces and everything that decides the shape of an object are plain.
"""
