"""The demo as a Space: `pfd-iqa demo` on the address that the Space's environment names."""

import os
import sys

from pfd_iqa_cli.main import run

arguments = [
    "demo",
    "--host",
    os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1"),
    "--port",
    os.environ.get("GRADIO_SERVER_PORT", "7860"),
]
if model := os.environ.get("MODEL"):
    arguments += ["--model", model]

if __name__ == "__main__":
    sys.exit(run(arguments))
