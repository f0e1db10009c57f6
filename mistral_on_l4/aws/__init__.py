"""An AWS account as people and commands meet it: session, token, doctor, what is left over."""
