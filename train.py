"""Train the default checkpoint: `python train.py --help`."""

from pfd_iqa_hf.training.train_default import main

if __name__ == "__main__":
    main()
