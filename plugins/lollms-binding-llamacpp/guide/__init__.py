"""Builds lollms-guide, the tiny demonstration model that ships with the llama.cpp binding."""
