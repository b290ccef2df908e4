# The image of `lora-router serve`, for linux/amd64 and linux/arm64:
#
#   docker build -t lora-router .
#   docker run -v "$PWD/pods.yaml:/pods.yaml:ro" -p 50052:50052 \
#     lora-router serve --endpoints /pods.yaml
#
# Nothing here names a package index: pip uses its own default, or what a pip.conf of yours says
# (`--secret id=pip.conf,src=pip.conf`; a secret stays out of the image and of its history).
# tests/image runs every RUN below, and then the image's command, without a container engine.

# Both stages, because the environment that one makes points to the interpreter of the other.
# A mirror of yours: --build-arg BASE=registry.example/python:3.13.16-slim-trixie
ARG BASE=python:3.13.16-slim-trixie


FROM ${BASE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# What runs. It changes less often than the source, so it comes first. The environment has no pip:
# the base image's own installs into it. Only wheels, so nothing is compiled, on either platform.
COPY requirements/runtime.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/lora-router \
 && python -m pip --python /opt/lora-router/bin/python install -q --no-compile \
      --require-hashes --no-deps --only-binary :all: -r requirements/runtime.txt

# What builds: hatchling and all it needs, in an environment of its own, which stays in this stage.
COPY requirements/build.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python -m venv --without-pip /opt/build-tools \
 && python -m pip --python /opt/build-tools/bin/python install -q \
      --require-hashes --no-deps --only-binary :all: -r requirements/build.txt

# The project, as a wheel. From here on pip fetches nothing, and `check` proves the list complete.
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN python -m pip --python /opt/build-tools/bin/python wheel -q \
      --no-index --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/lora-router/bin/python install -q --no-compile \
      --no-index --no-deps dist/*.whl \
 && python -m pip --python /opt/lora-router/bin/python check

# The root filesystem may be read-only, so bytecode is made now. Its source is never looked at
# again: nothing changes it, and its time may differ after it went through an archive. -f, because
# bytecode that an import has just written would stay as it is.
RUN python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/lora-router/lib


FROM ${BASE}
# No pip, nor the copy of it in ensurepip: nothing is installed into a running container, and what
# is not there needs no security updates. The base image has no bytecode of the standard library;
# without it every start and every health check would compile it anew, which doubles their time.
RUN rm -r /usr/local/bin/pip* /usr/local/lib/python3.*/site-packages/pip* \
      /usr/local/lib/python3.*/ensurepip \
 && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /usr/local/lib

# Owned by root: the user below can read it and not write.
COPY --from=builder /opt/lora-router /opt/lora-router

# HOME, because a number has none in /etc/passwd, and the Kubernetes client does not even import
# where there is none; most runtimes would set it to this, but nothing says that they must.
ENV PATH=/opt/lora-router/bin:$PATH HOME=/ PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1

# A number, so that Kubernetes can see for itself that it is not root (runAsNonRoot).
USER 65532:65532

# Envoy's calls; /healthz, /readyz and /metrics. The latter answer on 127.0.0.1 only until
# admin_host is set. No LORA_ROUTER_ADMIN_HOST here: the environment is stronger than a settings
# file, and whoever writes `admin_host: "::"` there, as an IPv6 cluster needs it, must get it. The
# Helm chart's file says 0.0.0.0; with `docker run -p` say `-e LORA_ROUTER_ADMIN_HOST=0.0.0.0`.
EXPOSE 50052 8080

# It drains on SIGTERM, for up to drain_timeout_seconds (30); `docker stop` waits 10 unless told to
# wait longer.
STOPSIGNAL SIGTERM

# For engines that do nothing else with health; Kubernetes has probes of its own and ignores this.
# A router that has no pods yet is not ready, but must not be restarted: liveness. The command asks
# for up to 3 s, at LORA_ROUTER_GRPC_PORT; a port that only a file or a flag says it does not know.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s --retries=3 \
    CMD ["lora-router", "probe", "--service", "liveness"]

ENTRYPOINT ["lora-router"]
CMD ["serve"]

# What only the build knows comes last: changing it keeps every layer.
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
