"""The language host `python`: runs Pulumi programs and policy packs with the interpreter of this environment."""
