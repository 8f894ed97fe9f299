"""From the graph or named workflow of a request to a graph that ComfyUI can run: inputs, models, names of files."""
