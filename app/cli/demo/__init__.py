"""``comfybus demo``: everything on one machine, from an empty folder to a picture."""
