"""The names of the desktop program that its scripts use most, for script processes only. Nothing is ever installed."""
