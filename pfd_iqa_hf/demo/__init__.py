"""The demo: a page for people and, on the same port, an interface for programs; needs gradio."""
