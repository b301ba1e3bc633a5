"""What is decided about a message: when its sender hears yes, in which order it goes to the server, what an answer means."""
