"""Sockets, and nothing decided: every part is handed callables and calls them.

Secret: transports, TLS, proxies, timeouts. Promise: expected trouble comes out as a LinkError or a ConfigError.
"""
