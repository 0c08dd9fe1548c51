"""A small OpenAI-compatible server for one model, over transformers: on one machine what vLLM is on a cluster."""
