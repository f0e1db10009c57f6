"""An OpenShift cluster with OpenShift AI, as far as an API server can show one: its objects, its refusals, and a simulation of its
operators. Nothing here runs OpenShift's own code.
"""
