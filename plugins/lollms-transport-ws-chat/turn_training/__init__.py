"""Builds the network of the embedded turn detector from text that it generates."""
