"""Publish a checkpoint on the Hub: `python push_to_hub.py --help`."""

from pfd_iqa_hf.hub.push import main

if __name__ == "__main__":
    main()
