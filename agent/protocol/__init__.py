"""What bytes mean, and nothing else.

Secret: the shapes of MLLP, HL7 v2 and the server's frames.
Promise: pure functions and values; no clock, no socket, no file, no log.
"""
