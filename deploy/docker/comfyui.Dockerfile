# ComfyUI on the PyTorch base with the worker in front of it, in one container with one GPU:
#   docker build -f deploy/docker/comfyui.Dockerfile -t comfybus-comfyui .
# The worker launches ComfyUI (CMD), watches over it and installs what a manifest names. ComfyUI's folder and its Python
# environment stay writable for that. Debian packages of a manifest need root: run with --user 0, or build an image.

ARG PYTORCH_VERSION=2.8.0
ARG CUDA_VERSION=12.6
ARG CUDNN_VERSION=9

FROM pytorch/pytorch:${PYTORCH_VERSION}-cuda${CUDA_VERSION}-cudnn${CUDNN_VERSION}-runtime

ARG COMFYUI_VERSION=0.3.64
ARG COMFYUI_MANAGER_VERSION=4.3
ARG COMFY_CLI_VERSION=1.23.0

# What OpenCV and the video nodes link to, and what custom nodes build with. The versions are the distribution's: pinned
# ones vanish with every update.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      build-essential ca-certificates ffmpeg git libgl1 libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home --home-dir /var/lib/comfybus comfybus \
 && install -d -o comfybus -g comfybus /opt/ComfyUI /opt/comfy-env /opt/comfy-cli /opt/comfybus /var/cache/comfybus \
 && ln -s /opt/comfybus/bin/comfybus /opt/comfy-cli/bin/comfy /usr/local/bin/

# From here on everything belongs to the user that runs it.
USER 10001:10001
WORKDIR /opt
RUN git clone --depth 1 --branch "v${COMFYUI_VERSION}" https://github.com/comfyanonymous/ComfyUI /opt/ComfyUI

# ComfyUI's own environment sees the base's PyTorch; what a manifest installs goes here and changes no other layer.
RUN python -m venv --system-site-packages /opt/comfy-env \
 && /opt/comfy-env/bin/pip install --no-cache-dir --disable-pip-version-check \
      -r /opt/ComfyUI/requirements.txt "comfyui-manager==${COMFYUI_MANAGER_VERSION}"

# The client of the node registry. It brings uv, which is kept off PATH: uv does not see the base's packages and would
# install PyTorch a second time for every node that requires it; pip does.
RUN python -m venv /opt/comfy-cli \
 && /opt/comfy-cli/bin/pip install --no-cache-dir --disable-pip-version-check "comfy-cli==${COMFY_CLI_VERSION}"

# The worker has an environment of its own, which nothing of ComfyUI's can break.
COPY --chown=10001:10001 pyproject.toml constraints.txt README.md LICENSE /tmp/comfybus/
COPY --chown=10001:10001 schemas /tmp/comfybus/schemas
COPY --chown=10001:10001 brokers /tmp/comfybus/brokers
COPY --chown=10001:10001 workflows /tmp/comfybus/workflows
COPY --chown=10001:10001 app /tmp/comfybus/app
WORKDIR /tmp/comfybus
RUN python -m venv /opt/comfybus \
 && /opt/comfybus/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[otel]" \
 && rm -rf /tmp/comfybus/*

ENV PYTHONUNBUFFERED=1 \
    COMFY_HOME=/opt/ComfyUI \
    COMFY_PYTHON=/opt/comfy-env/bin/python \
    CMD="/opt/comfy-env/bin/python main.py --listen 127.0.0.1 --port 8188 --disable-auto-launch" \
    STARTUP_CHECK_MAX_TRIES=180 \
    CACHE_DIR=/var/cache/comfybus \
    LOG_FORMAT=json
WORKDIR /var/lib/comfybus
EXPOSE 3000

# A first start may install a manifest and warm up before it is healthy.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60m --retries=4 \
  CMD ["/opt/comfybus/bin/python", "-c", "import os, urllib.request as http; http.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '3000') + '/health', timeout=4)"]

STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/comfybus/bin/comfybus"]
CMD ["worker"]
