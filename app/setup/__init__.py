"""What happens before the first prompt, by the manifest, and how ComfyUI is warmed up and recycled."""
