# docker build --tag ckptfs .
#
# A mount needs the device and the capability to mount; docs/INSTALL.md has the command lines.

FROM rust:1-bookworm AS build
WORKDIR /ckptfs
COPY . .
RUN cargo build --locked --release --package ckptfs && strip target/release/ckptfs

FROM debian:bookworm-slim
# fusermount3 is for containers that do not run as root.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends fuse3 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /ckptfs/target/release/ckptfs /usr/bin/ckptfs
ENTRYPOINT ["ckptfs"]
