"""Which input of which node is a file or a model: one table, and the only place that names node classes.

Used by most of its folder; may import nothing of ours.

Rows of ComfyUI itself hold for 0.3.64 and every newer version that has the class; the others follow the packs named
beside them. What the table does not know is asked from ComfyUI (see ``catalogue``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

__all__ = ["NODES", "Kind", "Media", "Model", "Row"]


class Kind(Enum):
    """What a node reads through an input; decides which content is refused as something else."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    FILE = "file"
    """Any content, such as a latent or a 3D model."""
    IMAGES = "images"
    """A directory of images: a list of media, or one archive of images."""


@dataclass(frozen=True)
class Media:
    """An input that names a file of ComfyUI's input folder.

    Attributes:
        kind: What the node reads.
        by_path: The node opens a path, not a name below the input folder.
    """

    kind: Kind
    by_path: bool = False


@dataclass(frozen=True)
class Model:
    """An input that chooses a model.

    Attributes:
        folder: ComfyUI's name of the model folder.
        gguf_folder: The folder for ``.gguf`` files, where the node takes both kinds.
        repository: The model is a directory: a Git or Hugging Face repository, not a file.
    """

    folder: str
    gguf_folder: str | None = None
    repository: bool = False


Row = Mapping[str, Media | Model]

_IMAGE: Final = Media(Kind.IMAGE)
_VIDEO: Final = Media(Kind.VIDEO)
_AUDIO: Final = Media(Kind.AUDIO)
_FILE: Final = Media(Kind.FILE)
_CHECKPOINT: Final = Model("checkpoints")
_LORA: Final = Model("loras")
_TEXT: Final = Model("text_encoders")
_TEXT_GGUF: Final = Model("text_encoders", gguf_folder="clip_gguf")
_DIFFUSION: Final = Model("diffusion_models")
_CONTROL: Final = Model("controlnet")


def _numbered(name: str, count: int, model: Model) -> Row:
    return {f"{name}{number}": model for number in range(1, count + 1)}


NODES: Final[Mapping[str, Row]] = {
    # --- media, ComfyUI itself
    "LoadImage": {"image": _IMAGE},
    "LoadImageMask": {"image": _IMAGE},
    "LoadImageOutput": {"image": _IMAGE},
    "LoadVideo": {"file": _VIDEO, "video": _VIDEO},
    "LoadAudio": {"audio": _AUDIO},
    "LoadLatent": {"latent": _FILE},
    "Load3D": {"model_file": _FILE},
    "Load3DAdvanced": {"model_file": _FILE},
    "Load3DAnimation": {"model_file": _FILE},
    "Painter": {"mask": _IMAGE},
    # --- media, ComfyUI-VideoHelperSuite
    "VHS_LoadImages": {"directory": Media(Kind.IMAGES)},
    "VHS_LoadImagesPath": {"directory": Media(Kind.IMAGES, by_path=True)},
    "VHS_LoadImagePath": {"image": Media(Kind.IMAGE, by_path=True)},
    "VHS_LoadVideo": {"video": _VIDEO, "file": _VIDEO},
    "VHS_LoadVideoPath": {"video": Media(Kind.VIDEO, by_path=True), "file": Media(Kind.VIDEO, by_path=True)},
    "VHS_LoadVideoFFmpeg": {"video": _VIDEO, "file": _VIDEO},
    "VHS_LoadVideoFFmpegPath": {"video": Media(Kind.VIDEO, by_path=True), "file": Media(Kind.VIDEO, by_path=True)},
    "VHS_LoadAudio": {"audio_file": Media(Kind.AUDIO, by_path=True)},
    "VHS_LoadAudioUpload": {"audio": _AUDIO},
    # --- models, ComfyUI itself
    "CheckpointLoader": {"config_name": Model("configs"), "ckpt_name": _CHECKPOINT},
    "CheckpointLoaderSimple": {"ckpt_name": _CHECKPOINT},
    "unCLIPCheckpointLoader": {"ckpt_name": _CHECKPOINT},
    "ImageOnlyCheckpointLoader": {"ckpt_name": _CHECKPOINT},
    "DiffusersLoader": {"model_path": Model("diffusers", repository=True)},
    "LoraLoader": {"lora_name": _LORA},
    "LoraLoaderModelOnly": {"lora_name": _LORA},
    "LoraLoaderBypass": {"lora_name": _LORA},
    "LoraLoaderBypassModelOnly": {"lora_name": _LORA},
    "CreateHookLora": {"lora_name": _LORA},
    "CreateHookLoraModelOnly": {"lora_name": _LORA},
    "CreateHookModelAsLora": {"ckpt_name": _CHECKPOINT},
    "CreateHookModelAsLoraModelOnly": {"ckpt_name": _CHECKPOINT},
    "VAELoader": {"vae_name": Model("vae")},
    "ControlNetLoader": {"control_net_name": _CONTROL},
    "DiffControlNetLoader": {"control_net_name": _CONTROL},
    "UNETLoader": {"unet_name": _DIFFUSION},
    "CLIPLoader": {"clip_name": _TEXT},
    "DualCLIPLoader": _numbered("clip_name", 2, _TEXT),
    "TripleCLIPLoader": _numbered("clip_name", 3, _TEXT),
    "QuadrupleCLIPLoader": _numbered("clip_name", 4, _TEXT),
    "CLIPVisionLoader": {"clip_name": Model("clip_vision")},
    "StyleModelLoader": {"style_model_name": Model("style_models")},
    "GLIGENLoader": {"gligen_name": Model("gligen")},
    "UpscaleModelLoader": {"model_name": Model("upscale_models")},
    "LatentUpscaleModelLoader": {"model_name": Model("latent_upscale_models")},
    "HypernetworkLoader": {"hypernetwork_name": Model("hypernetworks")},
    "PhotoMakerLoader": {"photomaker_model_name": Model("photomaker")},
    "ModelPatchLoader": {"name": Model("model_patches")},
    "AudioEncoderLoader": {"audio_encoder_name": Model("audio_encoders")},
    "LTXVAudioVAELoader": {"ckpt_name": _CHECKPOINT},
    "LTXAVTextEncoderLoader": {"text_encoder": _TEXT, "ckpt_name": _CHECKPOINT},
    "LoadBackgroundRemovalModel": {"bg_removal_name": Model("background_removal")},
    "FrameInterpolationModelLoader": {"model_name": Model("frame_interpolation")},
    "OpticalFlowLoader": {"model_name": Model("optical_flow")},
    "LoadMoGeModel": {"model_name": Model("geometry_estimation")},
    "LoadDA3Model": {"model_name": Model("geometry_estimation")},
    "LoadMediaPipeFaceLandmarker": {"model_name": Model("detection")},
    # --- models, ComfyUI-GGUF
    "UnetLoaderGGUF": {"unet_name": Model("unet_gguf")},
    "UnetLoaderGGUFAdvanced": {"unet_name": Model("unet_gguf")},
    "CLIPLoaderGGUF": {"clip_name": _TEXT_GGUF},
    "DualCLIPLoaderGGUF": _numbered("clip_name", 2, _TEXT_GGUF),
    "TripleCLIPLoaderGGUF": _numbered("clip_name", 3, _TEXT_GGUF),
    "QuadrupleCLIPLoaderGGUF": _numbered("clip_name", 4, _TEXT_GGUF),
    # --- models, further packs: IPAdapter plus, InstantID, PuLID, Advanced-ControlNet, AnimateDiff-Evolved, WanVideo
    "IPAdapterModelLoader": {"ipadapter_file": Model("ipadapter")},
    "InstantIDModelLoader": {"instantid_file": Model("instantid")},
    "PulidModelLoader": {"pulid_file": Model("pulid")},
    "PulidFluxModelLoader": {"pulid_file": Model("pulid")},
    "ControlNetLoaderAdvanced": {"control_net_name": _CONTROL},
    "ACN_ControlNetLoaderAdvanced": {"control_net_name": _CONTROL},
    "ADE_LoadAnimateDiffModel": {"model_name": Model("animatediff_models")},
    "WanVideoModelLoader": {"model": Model("diffusion_models", gguf_folder="unet_gguf")},
    "WanVideoVAELoader": {"model_name": Model("vae")},
    "WanVideoLoraSelect": {"lora": _LORA},
    "LoadWanVideoT5TextEncoder": {"model_name": _TEXT},
}
"""Node class to input to what the input is. A text value of such an input is prepared; links are left alone."""
