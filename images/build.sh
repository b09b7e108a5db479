#!/bin/sh
# Builds the images with docker, podman or buildah, whichever is there. Called by `make images`; see images/README.md.
#
#   REGISTRY  put before the names, as in REGISTRY=registry.example.com/team (default: none)
#   BASE      the base image (default: the Dockerfiles' own)
#   IMAGES    which to build (default: "embed kernels")
#   BUILDER   docker, podman or buildah (default: the first of them that works)
#   BUILD_FLAGS  more options for the builder, split at blanks
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

# docker's client without its daemon is common, so ask for the daemon.
find_builder() {
    if docker info >/dev/null 2>&1; then
        echo docker
    elif command -v podman >/dev/null 2>&1; then
        echo podman
    elif command -v buildah >/dev/null 2>&1; then
        echo buildah
    fi
}

version=$(sed -n 's/^version = "\([^"]*\)"$/\1/p' pyproject.toml)
[ -n "$version" ] || fail "pyproject.toml has no line version = \"…\""

builder=${BUILDER:-$(find_builder)}
case $builder in
    docker | podman) build="$builder build" ;;
    buildah) build="buildah build" ;;
    "") fail "found neither a running docker, nor podman, nor buildah; install one, or set BUILDER" ;;
    *) fail "BUILDER is '$builder'; expected docker, podman or buildah" ;;
esac

for name in ${IMAGES:-embed kernels}; do
    [ -f "images/$name/Dockerfile" ] || fail "IMAGES names '$name', which has no images/$name/Dockerfile"
done

for name in ${IMAGES:-embed kernels}; do
    tag="${REGISTRY:+${REGISTRY%/}/}driftline/$name:$version"
    # shellcheck disable=SC2086 # $build and $BUILD_FLAGS are lists of words
    $build --platform linux/amd64 --file "images/$name/Dockerfile" --tag "$tag" \
        --build-arg "VERSION=$version" ${BASE:+--build-arg "BASE=$BASE"} ${BUILD_FLAGS:-} .
    echo "built $tag"
done
