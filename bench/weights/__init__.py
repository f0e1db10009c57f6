"""The seed job against the usual tools, against a raw loop, and against kills."""
