"""A kubeconfig that asks for a fresh token whenever one is needed: EKS's live 15 minutes, and an `up` with seeding takes longer."""

from __future__ import annotations

import pulumi


def kubeconfig(
    cluster_name: str, region: str, profile: str | None, endpoint: pulumi.Input[str], ca: pulumi.Input[str]
) -> pulumi.Output[str]:
    """JSON text of it, without a credential: `demo eks-token` signs as the profile, or with its caller's AWS credentials."""
    signer = ["--profile", profile] if profile else []
    return pulumi.Output.json_dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": cluster_name,
            "contexts": [{"name": cluster_name, "context": {"cluster": cluster_name, "user": cluster_name}}],
            "clusters": [{"name": cluster_name, "cluster": {"server": endpoint, "certificate-authority-data": ca}}],
            "users": [
                {
                    "name": cluster_name,
                    "user": {
                        "exec": {
                            "apiVersion": "client.authentication.k8s.io/v1",
                            "interactiveMode": "Never",
                            # By its name: the file stands in the stack's state, and other machines have other paths.
                            "command": "demo",
                            "args": ["eks-token", "--cluster", cluster_name, "--region", region, *signer],
                            "installHint": "`demo` is not on PATH: activate the project's environment (. .venv/bin/activate)",
                        }
                    },
                }
            ],
        }
    )
