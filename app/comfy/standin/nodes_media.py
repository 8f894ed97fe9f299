"""Nodes for sound and film: EmptyAudio, SaveAudio, CreateVideo, SaveVideo.

Used by catalogue; may import its folder alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.comfy.standin import flac, mp4
from app.comfy.standin.node_types import ImageBatch, Input, JsonObject, Node, Produced, Workbench, file_entry
from app.comfy.standin.nodes_save import SAVE_HIDDEN


@dataclass(frozen=True)
class Silence:
    """Value of an AUDIO slot: so many samples of nothing."""

    samples: int
    sample_rate: int
    channels: int


@dataclass(frozen=True)
class Film:
    """Value of a VIDEO slot: pictures and their speed."""

    images: ImageBatch
    fps: float


class EmptyAudio(Node):
    """Silence."""

    class_type = "EmptyAudio"
    category = "audio"
    display_name = "Empty Audio"
    python_module = "comfy_extras.nodes_audio"
    required = {  # noqa: RUF012
        "duration": Input(
            "FLOAT",
            {
                "default": 60.0,
                "min": 0.0,
                "max": 0xFFFFFFFFFFFFFFFF,
                "step": 0.01,
                "tooltip": "Duration of the empty audio clip in seconds",
            },
        ),
        "sample_rate": Input("INT", {"default": 44100, "tooltip": "Sample rate of the empty audio clip."}),
        "channels": Input(
            "INT",
            {"default": 2, "min": 1, "max": 2, "tooltip": "Number of audio channels (1 for mono, 2 for stereo)."},
        ),
    }
    returns = ("AUDIO",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Make as many samples as the seconds hold."""
        samples = round(given["duration"] * given["sample_rate"])
        if samples * given["channels"] * 4 > bench.memory_limit_bytes:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory. Error code 12 (Cannot allocate memory)")
        return Produced((Silence(samples, given["sample_rate"], given["channels"]),))


class SaveAudio(Node):
    """Sound as a FLAC file in the output folder."""

    class_type = "SaveAudio"
    category = "audio"
    display_name = "Save Audio (FLAC)"
    python_module = "comfy_extras.nodes_audio"
    output_node = True
    required = {  # noqa: RUF012
        "audio": Input("AUDIO"),
        "filename_prefix": Input("STRING", {"default": "audio/ComfyUI"}),
    }
    hidden = SAVE_HIDDEN

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Write the file and list it under ``audio``."""
        sound: Silence = given["audio"]
        place = bench.numbers.place(given["filename_prefix"], bench.folders.output)
        stem = place.stem.replace("%batch_num%", "0")
        path = place.folder / f"{stem}_{place.counter:05}_.flac"
        path.write_bytes(flac.silence(sound.samples, sound.sample_rate, sound.channels))
        bench.numbers.written(place, [path.name])
        return Produced(ui={"audio": [file_entry(path, place.subfolder, "output")]})


class CreateVideo(Node):
    """Pictures as a film; the sound is not kept."""

    class_type = "CreateVideo"
    category = "image/video"
    display_name = "Create Video"
    description = "Create a video from images."
    python_module = "comfy_extras.nodes_video"
    schema_v3 = True
    required = {  # noqa: RUF012
        "images": Input("IMAGE", {"tooltip": "The images to create a video from."}),
        "fps": Input("FLOAT", {"default": 30.0, "min": 1.0, "max": 120.0, "step": 1.0}),
    }
    optional = {"audio": Input("AUDIO", {"tooltip": "The audio to add to the video."})}  # noqa: RUF012
    returns = ("VIDEO",)

    def run(self, bench: Workbench, given: JsonObject) -> Produced:  # noqa: ARG002
        """Put pictures and speed together."""
        return Produced((Film(given["images"], given["fps"]),))


class SaveVideo(Node):
    """A film as an MP4 file in the output folder."""

    class_type = "SaveVideo"
    category = "image/video"
    display_name = "Save Video"
    description = "Saves the input images to your ComfyUI output directory."
    python_module = "comfy_extras.nodes_video"
    output_node = True
    schema_v3 = True
    required = {  # noqa: RUF012
        "video": Input("VIDEO", {"tooltip": "The video to save."}),
        "filename_prefix": Input(
            "STRING",
            {
                "tooltip": "The prefix for the file to save. This may include formatting information such as "
                "%date:yyyy-MM-dd% or %Empty Latent Image.width% to include values from nodes.",
                "default": "video/ComfyUI",
                "multiline": False,
            },
        ),
        "format": Input("COMBO", {"default": "auto", "multiselect": False, "options": ["auto", "mp4"]}),
        "codec": Input("COMBO", {"default": "auto", "multiselect": False, "options": ["auto", "h264"]}),
    }
    hidden = SAVE_HIDDEN

    def run(self, bench: Workbench, given: JsonObject) -> Produced:
        """Write the file; it is listed under ``images``, with ``animated`` beside it."""
        film: Film = given["video"]
        place = bench.numbers.place(given["filename_prefix"], bench.folders.output, *film.images.size)
        path = place.folder / f"{place.stem}_{place.counter:05}_.mp4"
        path.write_bytes(mp4.movie(film.images.frames, film.fps))
        bench.numbers.written(place, [path.name])
        return Produced(ui={"images": [file_entry(path, place.subfolder, "output")], "animated": [True]})
