"""How the built-in demonstration model is drawn, trained and judged; nothing here is installed."""
