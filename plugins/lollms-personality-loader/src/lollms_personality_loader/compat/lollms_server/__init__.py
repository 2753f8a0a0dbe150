"""The names that scripts of lollms_server import, for script processes only."""

__version__ = "0.3.2"
