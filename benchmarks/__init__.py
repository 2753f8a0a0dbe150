"""The figures of `make bench`: what the server costs, next to a bare ASGI application on the same machine."""
