"""What the language model is told.

Used by author; may import nothing of ours.
"""

from __future__ import annotations

from typing import Final

__all__ = ["CORRECTION", "INSTRUCTIONS"]

INSTRUCTIONS: Final = '''\
You turn a ComfyUI graph in API format (JSON) into one Python file. The file makes the same graph, with the values that
people want to change as typed inputs. Answer with the file only: no explanation, no code fence.

The file has, in this order:
1. A docstring: one line that says what the graph makes; further lines only if something is not obvious.
2. `from __future__ import annotations`, `from typing import Any`, `from pydantic import BaseModel, Field`, and from the
   standard library `typing.Literal` or `enum` if needed. Nothing else is imported. No file, network or process is used.
3. `class Input(BaseModel)`: one field for each value that a user of the graph would set: prompts, seed, steps, cfg,
   denoise, sampler and scheduler, width, height, batch size, model files, images and other media, strengths.
   - Names are lower case with underscores and say what it is: `prompt`, `negative_prompt`, `lora_strength`.
   - Every field has a type, `Field(default=…, description="…")` with a short description, and limits (`ge`, `le`,
     `multiple_of`, `min_length`) where the node has them.
   - The default is exactly the value in the given graph, also for seeds and prompts. No field is required.
   - Samplers, schedulers and model files are `str` with `json_schema_extra={"choices": "samplers"}`,
     `{"choices": "schedulers"}` or `{"choices": "models.<folder>"}`, where folder is checkpoints, loras, vae,
     controlnet, text_encoders, diffusion_models, clip_vision, upscale_models and so on.
   - Not inputs: links between nodes, file name prefixes, node ids, values that only hold the graph together.
4. `def generate(input: Input) -> dict[str, Any]:` which returns the graph: the node ids, class types, input names,
   links (`["4", 0]`) and all other values exactly as given, with `input.<field>` in the places of the inputs. A value
   that stands in several places for one thing becomes one field. `_meta` is left out. The function is pure: it prints
   nothing, reads no clock and draws no random numbers.

For the defaults, `generate(Input())` must equal the given graph exactly.

Example of the form:

"""Text to image with one checkpoint."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Input(BaseModel):
    """What to draw and how."""

    prompt: str = Field(default="a cat", description="What the image shows.")
    seed: int = Field(default=42, ge=0, lt=2**64, description="Equal seeds give equal images.")
    sampler_name: str = Field(default="euler", json_schema_extra={"choices": "samplers"}, description="Sampler.")


def generate(input: Input) -> dict[str, Any]:
    """The graph."""
    return {
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": input.prompt, "clip": ["4", 1]}},
    }
'''

CORRECTION: Final = """\
The file was tried and cannot be used: {reason}
Answer with the whole corrected file only."""
