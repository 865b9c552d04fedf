"""Started by torchrun: writes the gradients of one step, summed as the trainer sums them.

torchrun --nproc_per_node N distributed_gradients.py TABLE MODEL OUTPUT ROWS_A_PROCESS
"""

import sys
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from pfd_iqa_hf import PfdIqaForImageQualityAssessment
from pfd_iqa_hf.data.load import load_ratings
from pfd_iqa_hf.training.batches import RecipeBatches, recipe_data
from pfd_iqa_hf.training.objectives import StudentObjective, freeze_unreached
from pfd_iqa_hf.training.teacher import Teacher


def main() -> None:
    """Teacher live, every loss."""
    table, model_folder, output, rows = sys.argv[1:]
    accelerator = Accelerator()
    data = recipe_data(list(load_ratings(table)), [], [], pristine_score=50)
    model = PfdIqaForImageQualityAssessment.from_pretrained(model_folder)
    torch.manual_seed(0)
    teacher = Teacher.from_student(model).eval().requires_grad_(False)
    torch.nn.init.normal_(teacher.encoder, std=0.2)
    processes = accelerator.num_processes
    tokens = (224 // model.pfd_iqa.patch_size[0]) ** 2
    batches = RecipeBatches(
        data,
        2,
        int(rows),
        int(rows) // 2,
        0,
        model.config.distortion_names,
        draws={"tokens": tokens, "width": model.config.denoising_width, "start_timestep": 400},
        process=(accelerator.process_index, processes),
    )
    objective = StudentObjective(
        model,
        int(rows),
        {"correlation": 0.4, "within_group": 0.3, "ranking": 0.1, "map": 0.1},
        gather=partial(accelerator.gather) if processes > 1 else None,
        process=accelerator.process_index,
    )
    batch = {name: value.to(accelerator.device) for name, value in batches[1].items()}
    targets = teacher(batch["pixel_values"])
    freeze_unreached(objective, batch, targets)
    wrapped = accelerator.prepare(objective)
    loss, _ = wrapped(batch, targets)
    accelerator.backward(loss)
    if accelerator.is_main_process:
        gradients = {
            name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None
        }
        save_file(gradients, Path(output))


if __name__ == "__main__":
    main()
