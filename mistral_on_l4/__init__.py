"""Everything of the Mistral-24B-on-L4 demo stack that is not a Pulumi resource.

Data flows one way: settings -> plan -> components -> outputs. The `demo` command reads the stack's outputs and the cluster.
"""

__version__ = "0.1.0"
