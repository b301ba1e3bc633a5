"""What is decided about a message: when its sender hears yes, in which order it goes, what an answer means."""
