"""Brokers behind one set of protocols: ``base``, ``client``, ``webhooks``. Nothing here knows ComfyUI."""
