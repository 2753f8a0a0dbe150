"""What a client asks of models: llama-server's and OpenAI's endpoints, for every binding."""
