"""Text to image with Stable Diffusion XL, finished by its refiner.

The base model does the first steps and hands its noisy result on to the refiner for the rest.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class Input(BaseModel):
    """What to draw and how."""

    prompt: str = Field(description="What the image shows.")
    negative_prompt: str = Field(default="text, watermark", description="What the image does not show.")
    width: int = Field(default=1024, ge=64, le=4096, multiple_of=8, description="Pixels.")
    height: int = Field(default=1024, ge=64, le=4096, multiple_of=8, description="Pixels.")
    batch_size: int = Field(default=1, ge=1, le=64, description="Images.")
    seed: int | None = Field(default=None, ge=0, lt=2**64, description="Left out: another one for each request.")
    base_steps: int = Field(default=20, ge=1, le=150, description="Steps with the base model.")
    refiner_steps: int = Field(default=5, ge=1, le=150, description="Steps with the refiner.")
    cfg_scale: float = Field(default=8.0, ge=0, le=30, description="How closely the prompt is followed.")
    sampler_name: str = Field(default="euler", json_schema_extra={"choices": "samplers"})
    scheduler: str = Field(default="normal", json_schema_extra={"choices": "schedulers"})
    base_checkpoint: str = Field(
        default="sd_xl_base_1.0.safetensors", json_schema_extra={"choices": "models.checkpoints"}
    )
    refiner_checkpoint: str = Field(
        default="sd_xl_refiner_1.0.safetensors", json_schema_extra={"choices": "models.checkpoints"}
    )


def generate(input: Input, context: Any) -> dict[str, Any]:  # noqa: A002 - the name of the request's field
    """The graph."""
    shared = {
        "noise_seed": context.seed if input.seed is None else input.seed,
        "steps": input.base_steps + input.refiner_steps,
        "cfg": input.cfg_scale,
        "sampler_name": input.sampler_name,
        "scheduler": input.scheduler,
    }
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": input.base_checkpoint}},
        "5": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": input.width, "height": input.height, "batch_size": input.batch_size},
        },
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": input.prompt, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": input.negative_prompt, "clip": ["4", 1]}},
        "10": {
            "class_type": "KSamplerAdvanced",
            "inputs": {
                **shared,
                "add_noise": "enable",
                "start_at_step": 0,
                "end_at_step": input.base_steps,
                "return_with_leftover_noise": "enable",
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "11": {
            "class_type": "KSamplerAdvanced",
            "inputs": {
                **shared,
                "add_noise": "disable",
                "start_at_step": input.base_steps,
                "end_at_step": 10000,
                "return_with_leftover_noise": "disable",
                "model": ["12", 0],
                "positive": ["15", 0],
                "negative": ["16", 0],
                "latent_image": ["10", 0],
            },
        },
        "12": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": input.refiner_checkpoint}},
        "15": {"class_type": "CLIPTextEncode", "inputs": {"text": input.prompt, "clip": ["12", 1]}},
        "16": {"class_type": "CLIPTextEncode", "inputs": {"text": input.negative_prompt, "clip": ["12", 1]}},
        "17": {"class_type": "VAEDecode", "inputs": {"samples": ["11", 0], "vae": ["12", 2]}},
        "19": {"class_type": "SaveImage", "inputs": {"filename_prefix": "image", "images": ["17", 0]}},
    }
