"""`python -m embedded.plugins.aws ENGINE`: serves the provider and prints its port, as the engine expects."""

import sys

from embedded.plugins.aws.server import main

main(sys.argv[1:])
