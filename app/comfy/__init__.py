"""ComfyUI's protocol: HTTP calls, websocket, queue and history, its process. Knows neither brokers nor requests."""
