"""What is said on a pipe between a client and the writer: messages and frames. Pure."""
