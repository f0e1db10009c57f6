"""The engine's simulation held against vLLM itself, on this machine's CPU and one checkpoint: `make contract`."""
