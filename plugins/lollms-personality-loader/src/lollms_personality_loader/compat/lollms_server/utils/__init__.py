"""See `lollms_server`."""
