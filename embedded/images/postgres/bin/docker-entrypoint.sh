#!/bin/sh
# The image's ENTRYPOINT. MISTRAL_ON_L4_PACKAGES is where the project's package lies, in a container or in a test.
exec "${MISTRAL_ON_L4_PYTHON:?names the interpreter}" -I -S -c 'import sys
sys.path.insert(0, sys.argv.pop(1))
from embedded.images.postgres.__main__ import main
sys.exit(main())' "${MISTRAL_ON_L4_PACKAGES:-/opt/mistral-on-l4/lib}" "$@"
