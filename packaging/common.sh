# shellcheck shell=dash disable=SC2034
# Common parts of building packages. To be sourced in the source directory.
fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
own=$(dpkg --print-architecture 2>/dev/null || uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
# Timestamps are those of the last commit.
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) || fail "neither a clone nor SOURCE_DATE_EPOCH: what date is it to have?"
fi
export SOURCE_DATE_EPOCH

# Copies the files known to git, in their current state, because package builds leave files behind.
copy_source() { # FOLDER
    rm -rf "$1"
    mkdir -p "$1"
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$1"
}

# Checks that versions agree.
same_version() { # FILE VERSION
    [ "$2" = "$version" ] || fail "$1 is at $2, Cargo.toml at $version"
}
