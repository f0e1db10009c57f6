"""Stand-in for vLLM's API server: vLLM's command line and refusals, a front that checks the API key, and behind it
llm-d-inference-sim, which answers with made-up text at the latencies that the plan predicts."""
