"""The HTTP server and the OpenAI wire format."""
