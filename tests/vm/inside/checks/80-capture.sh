# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Captures the host; replay compares the output outside with that inside.
send() { # NAME FILE: on the console, in lines that begin with its name
    base64 "$2" | sed "s/^/@$1 /"
}

for shape in D E; do
    load $shape
    probe udev install >/dev/null
    hold "open /dev/egm5" "share $((MIB * 1024)) $((8 * MIB))"
    check "shape $shape: capture" probe capture --with-claims /tmp/host.tar.gz
    probe list --json >/tmp/list.json
    probe show --json >/tmp/show.json
    check "shape $shape: there is something to show" jq -e '.regions[1].claims[0].command == "holder"' /tmp/list.json
    send host-$shape /tmp/host.tar.gz
    send list-$shape /tmp/list.json
    send show-$shape /tmp/show.json
    let_go
    probe udev uninstall >/dev/null
    unload "shape $shape: capture" "0 1"
done
