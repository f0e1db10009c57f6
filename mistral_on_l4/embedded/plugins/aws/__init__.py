"""A stand-in for pulumi-aws: no account, no network. It knows the resource types of this project and refuses all others."""
