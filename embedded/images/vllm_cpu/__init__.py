"""vLLM itself, on this machine's CPU, in place of upstream's CPU image."""
