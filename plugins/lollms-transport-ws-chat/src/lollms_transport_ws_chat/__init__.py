"""Voice chat over WebSocket with turn detection for the LoLLMs server."""
