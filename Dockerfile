# A static binary in an empty image. Base images by argument: --build-arg RUST_IMAGE=… for a mirror or another version.
ARG RUST_IMAGE=rust:1.95-bookworm

FROM ${RUST_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The C library is linked in; names are resolved from /etc/hosts and DNS without plug-ins.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN cargo build --release --locked --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && install -D "target/$(rustc -vV | sed -n 's/^host: //p')/release/outrigger" /out/outrigger

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/outrigger /outrigger
USER 65532:65532
EXPOSE 8080 9900
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["/outrigger", "healthcheck"]
ENTRYPOINT ["/outrigger"]
CMD ["run", "-c", "/etc/outrigger/outrigger.yaml"]
