"""The error of a run that cannot go on; here, so that a command can name it without torch."""

__all__ = ["TrainingFailure"]


class TrainingFailure(RuntimeError):
    """A run that cannot go on; the message names the reason, the remedy and the last checkpoint."""
