"""The llama-server, OpenAI and Wingman APIs for the LoLLMs server."""
