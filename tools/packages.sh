# shellcheck shell=dash disable=SC2016
# Packages of any architecture, downloaded and unpacked into a directory: nothing is installed, and apt's state is also
# in there. To be sourced; provides `fail` and `own` to the caller.
fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "this needs Debian's packages, but apt is not installed"
own=$(dpkg --print-architecture)

# The package mirror of this machine.
mirror() {
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
        awk -v release="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$2 == release { print $1; exit }')
    [ -n "$uri" ] || fail "cannot determine the package mirror of this machine"
    echo "$uri"
}

# The same mirror with SUITE, if it is set.
more_sources() {
    cat /etc/apt/sources.list 2>/dev/null || true
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $SUITE main"
}

set_up_apt() { # ARCH FOLDER
    apt_folder=$2
    mkdir -p "$2/lists/partial" "$2/cache/archives/partial"
    # With an empty list of installed packages, all dependencies are downloaded.
    : >"$2/status"
    cat >"$2/conf" <<CONF
APT::Architecture "$1";
APT::Architectures { "$1"; "$own"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State::status "$2/status";
Dir::State::lists "$2/lists";
Dir::Cache "$2/cache";
CONF
    if [ -n "${SUITE:-}" ]; then
        more_sources >"$2/sources.list"
        echo "Dir::Etc::sourcelist \"$2/sources.list\";" >>"$2/conf"
    fi
}

with_apt() { # PROGRAM ARGUMENT..
    APT_CONFIG=$apt_folder/conf "$@"
}

update_apt() {
    with_apt apt-get -qq update || echo "${0##*/}: not all lists of packages could be had" >&2
}

# Downloads packages and those of their dependencies whose name matches a pattern.
fetch() { # FOLDER PATTERN PACKAGE..
    local folder=$1 pattern=$2 deb
    shift 2
    with_apt apt-get -qq --yes --download-only install "$@"
    for deb in "$apt_folder"/cache/archives/*.deb; do
        if basename "$deb" | grep -q "$pattern"; then
            extract "$folder" "$deb"
        fi
        rm "$deb"
    done
}

extract() { # FOLDER DEB..
    local folder=$1 deb
    shift
    mkdir -p "$folder"
    for deb; do
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$folder"
    done
}
