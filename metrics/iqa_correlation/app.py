"""The metric's page as a Space: two columns of numbers in, the correlations out."""

from pathlib import Path

import evaluate
import gradio as gr

# Not `evaluate.utils.launch_gradio_widget`: it needs a gradio older than 4.
_HERE = Path(__file__).resolve().parent
_EXAMPLE = [[52.1, 50], [71.0, 80], [38.5, 30], [60.2, 62], [44.9, 47], [66.3, 60]]


def compute(rows: list[list[float]], fit: str) -> dict[str, float | None]:
    """What the metric says of the table's rows; a number that is not defined is None."""
    pairs = [(float(x), float(y)) for x, y in rows if x not in ("", None) and y not in ("", None)]
    metric = evaluate.load(str(_HERE / "iqa_correlation.py"))
    result = metric.compute(
        predictions=[x for x, _ in pairs],
        references=[y for _, y in pairs],
        fit=None if fit == "none" else fit,
    )
    return {name: value if value == value else None for name, value in result.items()}


if __name__ == "__main__":
    text = (_HERE / "README.md").read_text(encoding="utf-8")
    gr.Interface(
        compute,
        [
            gr.Dataframe(_EXAMPLE, headers=["prediction", "opinion"], type="array"),
            gr.Radio(["logistic4", "logistic5", "none"], value="logistic4", label="fit"),
        ],
        gr.JSON(label="agreement"),
        title="IQA correlation",
        article=text.split("---", 2)[-1],
    ).launch()
