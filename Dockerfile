# meap for the CPU: one static program in an otherwise empty image.
#
#     docker build -t meap .
#     docker run --rm -v "$PWD/texts:/data:ro" -v "$PWD/runs:/output" meap pretrain --config /configs/quickstart.yaml \
#         --set 'data.sources=[/data]' --output /output/mine
#
# The runs folder must be writable for user 10001, or add --user "$(id -u):$(id -g)".

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /root-fs/usr/local/bin/meap ./cmd/meap
RUN mkdir -p /root-fs/etc /root-fs/data /root-fs/output /root-fs/tmp /root-fs/home/meap \
    && echo 'meap:x:10001:10001::/home/meap:/sbin/nologin' > /root-fs/etc/passwd \
    && echo 'meap:x:10001:' > /root-fs/etc/group \
    && cp -r configs /root-fs/configs \
    && chown 10001:10001 /root-fs/output /root-fs/home/meap \
    && chmod 1777 /root-fs/tmp

FROM scratch
COPY --from=build /root-fs /
ENV HOME=/home/meap
USER 10001:10001
WORKDIR /output
VOLUME ["/data", "/output"]
HEALTHCHECK --interval=60s --timeout=20s CMD ["/usr/local/bin/meap", "doctor"]
ENTRYPOINT ["/usr/local/bin/meap"]
CMD ["--help"]
