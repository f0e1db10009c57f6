"""What `pulumi preview --policy-pack policies` starts. PolicyPack serves until it is killed, so it stands nowhere else."""

import sys
from pathlib import Path

# Run as a folder, this file is no part of a package yet; the checkout that holds it is where `policies` is imported from.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pulumi_policy import PolicyPack

from policies.pack import NAME, POLICIES

PolicyPack(NAME, policies=list(POLICIES))
