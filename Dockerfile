# The binary alone on distroless: glibc, CA certificates, no shell, not root.
#
#   docker build -t reprise .

FROM rust:1.95-bookworm AS build
WORKDIR /src
# What the build reads; the sources of the tests stay out.
COPY Cargo.toml Cargo.lock rust-toolchain.toml build.rs README.md ./
COPY proto proto
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --bin reprise && cp target/dist/reprise /reprise

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /reprise /reprise
USER 65532:65532
ENTRYPOINT ["/reprise"]
