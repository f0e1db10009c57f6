"""The provider `kubernetes`: a stand-in for pulumi-kubernetes 4.34 that talks to the real API server of a local cluster."""
