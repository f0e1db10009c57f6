"""CrossGuard policies for stacks of this project. `policies.pack.POLICIES` is all of them; importing starts nothing.

    pulumi preview --policy-pack policies [--policy-pack-config FILE]

Modules are named so that none hides one of Python's own: `pulumi.policy` puts this folder first on the import path.
"""
