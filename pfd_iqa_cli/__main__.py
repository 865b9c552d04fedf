"""`python -m pfd_iqa_cli` is `pfd-iqa`."""

from pfd_iqa_cli.main import main

main()
