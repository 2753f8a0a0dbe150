"""The LoLLMs Socket.IO protocol for the LoLLMs server."""
