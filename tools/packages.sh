# shellcheck shell=dash disable=SC2016
# Packages of any architecture, fetched and unpacked into a folder: nothing is installed, and apt keeps what it
# knows there, too. Sourced; `fail` and `own` are for whoever does.
fail() {
    echo "${0##*/}: $*" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "packages of Debian's are needed, and there is no apt here"
own=$(dpkg --print-architecture)

# Where this machine takes its packages from.
mirror() {
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' |
        awk -v release="$(. /etc/os-release && echo "$VERSION_CODENAME")" '$2 == release { print $1; exit }')
    [ -n "$uri" ] || fail "where this machine has its packages from is not known"
    echo "$uri"
}

# Another suite of that, where SUITE names one.
more_sources() {
    cat /etc/apt/sources.list 2>/dev/null || true
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(mirror) $SUITE main"
}

set_up_apt() { # ARCH FOLDER
    apt_folder=$2
    mkdir -p "$2/lists/partial" "$2/cache/archives/partial"
    # An empty list of installed packages: whatever is needed is fetched.
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

# What packages need, too, as far as its name is like that.
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
