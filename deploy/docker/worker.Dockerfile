# The slim image: worker, bridge and every other command, without ComfyUI. Build it from the root of the repository:
#   docker build -f deploy/docker/worker.Dockerfile -t comfybus-worker .
# It writes to CACHE_DIR and /tmp only, so its root file system can be mounted read-only.

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY brokers brokers
COPY workflows workflows
COPY app app
RUN python -m venv /opt/comfybus \
 && /opt/comfybus/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[otel]"

FROM python:${PYTHON_VERSION}-slim
# Git fetches models that are repositories. Its version is the distribution's: a pinned one vanishes with every update.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/comfybus comfybus \
 && install -d -o comfybus -g comfybus /var/lib/comfybus /var/cache/comfybus
COPY --from=build /opt/comfybus /opt/comfybus

ENV PATH=/opt/comfybus/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CACHE_DIR=/var/cache/comfybus \
    LOG_FORMAT=json
WORKDIR /var/lib/comfybus
USER 10001:10001
EXPOSE 3000

# /health is 200 once the worker was warm, so a first start may take as long as ComfyUI does.
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m --retries=4 \
  CMD ["python", "-c", "import os, urllib.request as http; http.urlopen('http://127.0.0.1:' + os.environ.get('PORT', '3000') + '/health', timeout=4)"]

# The program itself is process 1: SIGTERM begins its drain.
STOPSIGNAL SIGTERM
ENTRYPOINT ["comfybus"]
CMD ["worker"]
