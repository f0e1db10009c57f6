"""Commands of `demo` that bring the local stack up and down, and those that run an AWS stack on stand-ins."""
