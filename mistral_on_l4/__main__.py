"""`python -m mistral_on_l4` is the command `demo`."""

from mistral_on_l4.cli import main

main()
