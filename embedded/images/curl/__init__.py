"""curl from this machine; its entrypoint is in bin/."""
