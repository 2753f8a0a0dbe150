"""Wingman's control API and WebSocket: catalogue, downloads, and which model the inference port serves."""
