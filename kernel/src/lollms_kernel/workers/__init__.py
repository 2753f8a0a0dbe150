"""Bindings in processes of their own: engines crash, hang and hold gigabytes, and the server must not.

    proxy       the binding that the kernel holds; every call goes to a worker
    supervisor  keeps one worker running: starts it, restarts it after a crash, stops it
    process     one worker process from its start to its end
    watchdog    finds out that a worker hangs
    link        the calls and streams under way to one worker, seen from the server
    child       the program that runs in the worker and calls the real binding
    channel     frames over a stream socket, both sides
    frames      what goes over the wire
    methods     which methods can be called, and the types of what they take and give
    faults      exceptions as values that travel

Nothing is imported here, so that a worker loads only what it needs.
"""
