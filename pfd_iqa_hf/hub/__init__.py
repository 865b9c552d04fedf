"""Publishing: a repository folder that loads anywhere, and its upload to the Hub."""
