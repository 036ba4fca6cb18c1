# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Holders of a region and their memory, with mappings of a real kernel.
AT=$((300 * 1024 * MIB))
LENGTH=$((8 * MIB))
HELD='[.state, .held, .free, (.claims | map([.command, .ranges]))]'
NOBODY="[\"free\",0,$EGM4_SIZE,[]]"

for shape in D E; do
    exclusive=$([ $shape = E ] && echo 1 || echo 0)
    # The driver of shape D ignores offsets.
    at=$AT
    [ $shape = E ] || at=0
    MINE="[\"in-use\",$LENGTH,0,[[\"holder\",[{\"offset\":$at,\"length\":$LENGTH}]]]]"
    load $shape exclusive="$exclusive"
    same "shape $shape: nobody holds it" "$NOBODY" "$(region egm4 "$HELD")"

    check "shape $shape: a process maps 8 MiB at 300 GiB" hold "open /dev/egm4" "share $AT $LENGTH"
    same "shape $shape: its mapping is found" "$MINE" "$(region egm4 "$HELD")"
    same "shape $shape: it is that process" "$holder" "$(region egm4 '.claims[0].pid')"
    same "shape $shape: what it left is stranded" $((EGM4_SIZE - LENGTH)) "$(region egm4 .stranded)"
    same "shape $shape: nobody holds the other one" '["free",[]]' "$(region egm5 '[.state, .claims]')"
    same "shape $shape: what is seen is all there is" '"complete"' "$(probe list --json | jq -c .occupancy)"
    one="{\"offset\":$at,\"length\":$LENGTH}"
    same "shape $shape: a second range of it" \
        "[$([ $at = 0 ] || echo "{\"offset\":$MIB,\"length\":$MIB},")$one]" \
        "$(hold "share $MIB $MIB" && region egm4 '.claims[0].ranges')"
    for command in list show "list -O" "udev status" doctor topology metrics "stanza --all --size 1GiB --force"; do
        probe $command >/dev/null 2>&1
    done
    same "shape $shape: beside a holder nothing is opened" "1 0" "$(opens)"
    let_go
    same "shape $shape: when it has ended, nobody holds it" "$NOBODY" "$(region egm4 "$HELD")"

    hold "open /dev/egm4" "share $AT $LENGTH" "close"
    same "shape $shape: a mapping is found after close" "$MINE" "$(region egm4 "$HELD")"
    rm /dev/egm4
    same "shape $shape: and when the node is deleted" "$MINE" "$(region egm4 "$HELD")"
    let_go
    numbers=$(tr : ' ' </sys/class/egm/egm4/dev)
    mknod -m 0600 /dev/egm4 c $numbers

    # A separate device node, as in a container, with the name of another region.
    mknod /tmp/egm5 c $numbers
    hold "open /tmp/egm5" "share $AT $LENGTH"
    same "shape $shape: a mapping is found by a second node" "$MINE" "$(region egm4 "$HELD")"
    same "shape $shape: names of nodes are not believed" '["free",[]]' "$(region egm5 '[.state, .claims]')"
    rm /tmp/egm5
    hold "close"
    same "shape $shape: and after close, and when that node is deleted" "$MINE" "$(region egm4 "$HELD")"
    let_go

    hold "open /dev/egm5"
    same "shape $shape: a device that is only open is held" '["in-use",[["holder",[]]]]' \
        "$(region egm5 '[.state, (.claims | map([.command, .ranges]))]')"
    let_go
    hold "path /dev/egm5"
    same "shape $shape: a place in the tree is not" '["free",[]]' "$(region egm5 '[.state, .claims]')"
    let_go
    unload "shape $shape: holders" "3 1"
done
