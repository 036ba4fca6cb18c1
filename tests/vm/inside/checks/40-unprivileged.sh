# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Without root, results are incomplete, with a warning, and unknown regions are never reported as free.
STATES='[.occupancy, [.regions[].state]]'

load E
same "not root, nothing open: the driver's module says so" "[\"complete\",[\"free\",\"free\"]]" \
    "$(as_nobody list --json | jq -c "$STATES")"
same "not root: everything but that is the same" "$(list)" \
    "$(as_nobody list --json | jq -c '.regions[] | [.name, .shape, .size, .numa_node, .numa_node_from,
        ([.gpus[].address] | join("+")), .warnings]')"

hold "open /dev/egm4" "share 0 $MIB"
same "not root, root holds one: nothing is free" '["partial",["unknown","unknown"]]' "$(as_nobody list --json | jq -c "$STATES")"
same "not root: neither is it in the table" "unknown unknown" \
    "$(as_nobody list -n -o STATE 2>/dev/null | xargs)"
as_nobody list >/dev/null 2>/tmp/warnings
check "not root: that it is a part is said" grep -E "could not be examined|open file" /tmp/warnings
cat /tmp/warnings
hold "close"
same "not root, root only maps one: nothing is free" '["partial",["unknown","unknown"]]' \
    "$(as_nobody list --json | jq -c "$STATES")"
let_go

chown nobody /dev/egm5
AS=$AS_NOBODY hold "open /dev/egm5" "share $MIB $MIB"
same "not root, and a holder of the same user: its own is seen" \
    "[[\"free\",[]],[\"in-use\",[{\"offset\":$MIB,\"length\":$MIB}]]]" \
    "$(as_nobody list --json | jq -c '[.regions[] | [.state, [.claims[].ranges[]]]]')"
let_go
unload "not root" "1 1"
