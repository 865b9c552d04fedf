"""Publish a checkpoint on the Hub, as `pfd-iqa push` does: `python push_to_hub.py --help`."""

import sys

from pfd_iqa_cli.main import run

if __name__ == "__main__":
    sys.exit(run(["push", *sys.argv[1:]]))
