"""Image to image with Stable Diffusion XL.

The result has the size of the image given.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Input(BaseModel):
    """What to draw over which image, and how."""

    image: str = Field(min_length=1, description="URL, data URL, base64, or a file of ComfyUI's input folder.")
    prompt: str = Field(description="What the image shows.")
    negative_prompt: str = Field(default="text, watermark", description="What the image does not show.")
    seed: int | None = Field(default=None, ge=0, lt=2**64, description="Left out: another one for each request.")
    steps: int = Field(default=20, ge=1, le=150, description="Steps of the sampler.")
    cfg_scale: float = Field(default=8.0, ge=0, le=30, description="How closely the prompt is followed.")
    sampler_name: str = Field(default="dpmpp_2m", json_schema_extra={"choices": "samplers"})
    scheduler: str = Field(default="normal", json_schema_extra={"choices": "schedulers"})
    denoise: float = Field(default=0.8, ge=0, le=1, description="How much of the image is drawn anew; 0 nothing.")
    checkpoint: str | None = Field(
        default=None,
        json_schema_extra={"choices": "models.checkpoints"},
        description="Left out: that of the warm-up prompt, else sd_xl_base_1.0.safetensors.",
    )


def generate(input: Input, context: Any) -> dict[str, Any]:  # noqa: A002 - the name of the request's field
    """The graph."""
    checkpoint = input.checkpoint or context.warmup_checkpoint or "sd_xl_base_1.0.safetensors"
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": context.seed if input.seed is None else input.seed,
                "steps": input.steps,
                "cfg": input.cfg_scale,
                "sampler_name": input.sampler_name,
                "scheduler": input.scheduler,
                "denoise": input.denoise,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["12", 0],
            },
        },
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": input.prompt, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": input.negative_prompt, "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "image", "images": ["8", 0]}},
        "10": {"class_type": "LoadImage", "inputs": {"image": input.image}},
        "12": {"class_type": "VAEEncode", "inputs": {"pixels": ["10", 0], "vae": ["4", 2]}},
    }
