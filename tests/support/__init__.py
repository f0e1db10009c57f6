"""What the program is told where there is no engine, no cluster and no account: for its tests, and for the mutation run."""
