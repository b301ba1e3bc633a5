"""What was promised and where it is kept: the life of a message, and the one file that survives power loss."""
