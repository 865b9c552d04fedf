"""Train a PFD-IQA model: `python train.py --help`, `accelerate launch train.py …`."""

from pfd_iqa_hf.training.cli import main

if __name__ == "__main__":
    main()
