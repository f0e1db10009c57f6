"""A stand-in for pulumi-aws: no account, no network. It knows the resource types of this project and refuses all others."""

# Names the file of the stand-in's account, when it is not in the local home.
LEDGER_VARIABLE = "MISTRAL_ON_L4_ACCOUNT"
