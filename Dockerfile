# The image of `lora-router serve`, for linux/amd64 and linux/arm64:
#
#   docker build -t lora-router .
#   docker run -v "$PWD/pods.yaml:/pods.yaml:ro" -p 50052:50052 \
#     lora-router serve --endpoints /pods.yaml
#
# No package index is named here. pip uses its default index, or the one in your pip.conf
# (`--secret id=pip.conf,src=pip.conf`; a secret stays out of the image and of its history).
# tests/image runs every RUN below, and then the image's command, without a container engine.

# Both stages use the same base, because the environment that the first stage makes refers to the
# interpreter of the second. To use a mirror:
# --build-arg BASE=registry.example/python:3.13.16-slim-trixie
ARG BASE=python:3.13.16-slim-trixie


FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# The runtime dependencies. They change less often than the source, so they come first. The
# environment contains no pip; the base image's pip installs into it. Only wheels are installed, so
# nothing is compiled on either platform.
COPY requirements/runtime.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/lora-router \
 && python -m pip --python /opt/lora-router/bin/python install -q --no-compile \
      --require-hashes --no-deps --only-binary :all: -r requirements/runtime.txt

# The build back end and its dependencies, in a separate environment that stays in this stage.
COPY requirements/build.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/build-tools \
 && python -m pip --python /opt/build-tools/bin/python install -q \
      --require-hashes --no-deps --only-binary :all: -r requirements/build.txt

# The project, as a wheel. pip fetches nothing here. `pip check` verifies that the lock is complete.
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN python -m pip --python /opt/build-tools/bin/python wheel -q \
      --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/lora-router/bin/python install -q --no-compile \
      --no-index --no-deps dist/*.whl \
 && python -m pip --python /opt/lora-router/bin/python check

# The root filesystem can be read-only, so bytecode is compiled now. Python does not compare it with
# its source (`unchecked-hash`): the source does not change, and an archive can alter its timestamp.
# -f recompiles bytecode that an import has just written.
RUN python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/lora-router/lib


FROM ${BASE}
# Remove pip and the copy of it in ensurepip. Nothing is installed into a running container, and
# removed software needs no security updates. The base image lacks bytecode of the standard library.
# Without it, every start and every health check compiles the library and takes twice as long.
RUN rm -r /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* \
      /usr/local/lib/python3.*/ensurepip \
 && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/local/lib

# Owned by root: the user below can read it and cannot write it.
COPY --from=builder /opt/lora-router /opt/lora-router

# A numeric user has no home folder in /etc/passwd, and the Kubernetes client cannot be imported
# without one. Most container runtimes set HOME to this value, but none has to.
ENV PATH=/opt/lora-router/bin:$PATH HOME=/ PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# A number, so that Kubernetes can verify that the user is not root (runAsNonRoot).
USER 65532:65532

# 50052: Envoy's calls. 8080: /healthz, /readyz and /metrics, on 127.0.0.1 unless admin_host is set.
# LORA_ROUTER_ADMIN_HOST is not set here. The environment takes precedence over a settings file, so
# it would override the Helm chart's settings file, which sets `admin_host: "::"`, because a cluster
# may have IPv6 alone. With `docker run -p`, add `-e LORA_ROUTER_ADMIN_HOST=0.0.0.0`.
EXPOSE 50052 8080

# On SIGTERM the router drains for up to drain_timeout_seconds (30). `docker stop` waits 10 s by
# default; use `docker stop --timeout 40`.
STOPSIGNAL SIGTERM

# For engines without probes of their own; Kubernetes ignores HEALTHCHECK. The check asks for
# liveness, because a router without pods is not ready and must not be restarted. It retries for up
# to 3 s. It asks /healthz, on the port in LORA_ROUTER_ADMIN_PORT (8080), and reads no settings file.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 \
    CMD ["lora-router", "probe", "--service", "liveness"]

ENTRYPOINT ["lora-router"]
CMD ["serve"]

# Build arguments come last, so that a change of one keeps every layer.
ARG SOURCE=""
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="lora-router" \
      org.opencontainers.image.description="Sends every OpenAI-style request to the vLLM pod that has its LoRA adapter" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
