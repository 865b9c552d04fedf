"""The `pfd-iqa` command.

One file a command. Nothing here imports torch, transformers or `pfd_iqa_hf` before a command runs,
so that `pfd-iqa --help` answers at once.
"""
