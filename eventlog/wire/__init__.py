"""What is said on a pipe between a client and the writer: messages, frames, who may say what. Pure."""
