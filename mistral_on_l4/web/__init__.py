"""The page for the projector: a server on loopback, and a page without build step that needs nothing from anywhere else."""
