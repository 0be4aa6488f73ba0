# Wess in three small images, none of which runs as root:
#
#   docker build --target worker  -t wess-worker  .
#   docker build --target gateway -t wess-gateway .
#   docker build --target cli     -t wess         .
#
# Needs BuildKit (Docker 23 or newer, Podman, Buildah). The first build compiles RocksDB and Wasmtime.

FROM rust:1.95-bookworm AS build
# No versions: Debian keeps only the newest of each package, so one named here would soon be gone.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends clang libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# What was compiled stays in caches beside the image, so that a changed line does not cost RocksDB and Wasmtime again.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package wess --package wess-worker --package wess-gateway \
    && install -D -t /out target/release/wess target/release/wess-worker target/release/wess-gateway

FROM debian:bookworm-slim AS base
# RocksDB is C++; TLS to NATS trusts the system's certificates. bash, for the health check, is there already.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --home-dir / --shell /usr/sbin/nologin wess
COPY --chmod=0755 deploy/healthy /usr/local/bin/healthy
# In a container of its own every port can be the usual one, and nobody reaches loopback.
ENV WESS_ADMIN=0.0.0.0:9090
EXPOSE 9090
# Readiness: a container without NATS is unhealthy, and healthy again once NATS is back.
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["healthy"]

FROM base AS worker
COPY --from=build /out/wess-worker /usr/local/bin/
# A volume for each container: two workers cannot share a data folder. It holds copies, and may go with the container.
RUN install -d -o 10001 -g 10001 -m 0700 /data
ENV WESS_DATA=/data
VOLUME /data
USER 10001:10001
ENTRYPOINT ["wess-worker"]

FROM base AS gateway
COPY --from=build /out/wess-gateway /usr/local/bin/
# Beyond loopback a gateway does not start without WESS_TOKENS, a file of the tokens to accept.
ENV WESS_LISTEN=0.0.0.0:8080
# 9091 is for KEDA, where WESS_SCALER says so.
EXPOSE 8080 9091
USER 10001:10001
ENTRYPOINT ["wess-gateway"]

FROM base AS cli
COPY --from=build /out/wess /usr/local/bin/
HEALTHCHECK NONE
USER 10001:10001
ENTRYPOINT ["wess"]
