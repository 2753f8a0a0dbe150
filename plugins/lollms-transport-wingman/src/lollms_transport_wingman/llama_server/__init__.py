"""`lollms llama-server`: a drop-in for llama.cpp's binary."""
