"""Images with diffusers for the LoLLMs server, with a small built-in demonstration model."""
