# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# Loads and unloads the driver two hundred times during queries. An answer may be incomplete, with a warning, but
# never wrong.
LOADS=200
mkdir /tmp/race
look() { # NAME OPTION..
    local name=/tmp/race/$1
    shift
    while [ ! -e /tmp/race/stop ]; do
        probe list --json "$@" >>"$name.answers" 2>>"$name.errors"
        echo $? >>"$name.codes"
    done
}
look whole &
one=$!
look quick --no-occupancy &
two=$!
n=0
while [ $n -lt $LOADS ]; do
    case $((n % 2)) in
    0) shape=D ;;
    1) shape=E ;;
    esac
    # Attributes appear immediately, as late as with the real driver, or later than any command waits.
    case $((n % 8)) in
    7) late=90000 ;;
    2 | 3 | 6) late=$((n * 613 % 17000)) ;;
    *) late=0 ;;
    esac
    insert shape=$shape number=4,5 size=$EGM4_SIZE,$EGM5_SIZE gpus=$EGM4_GPUS,$EGM5_GPUS \
        attr_delay_us=$late || echo "insert $n"
    usleep $((n * 7919 % 40 * 1000))
    grep -Hv '^0$' $DEBUG/egm*/opens
    take_out || echo "take_out $n"
    n=$((n + 1))
done >/tmp/race/failures 2>&1
touch /tmp/race/stop
wait $one $two
udevadm settle
answers=$(cat /tmp/race/*.codes | wc -l)
jq -r --argjson one $EGM4_SIZE --argjson two $EGM5_SIZE --arg first $EGM4_GPUS --arg second $EGM5_GPUS '
    {egm4: {size: $one, node: 0, gpus: ($first | split("+"))},
     egm5: {size: $two, node: 1, gpus: ($second | split("+"))}} as $told |
    .regions[] | . as $it | $told[.name] as $told | [.gpus[].address] as $gpus |
    if .size == $told.size and .numa_node == $told.node and $gpus == $told.gpus then "right"
    elif .warnings != [] or any(.gpus[]; .warnings // [] != []) then "warned"
    elif .size == $told.size and .numa_node == $told.node and $gpus != [] and $gpus - $told.gpus == [] then "half"
    else "wrong \($it)" end' /tmp/race/*.answers >/tmp/race/regions
tally() { # WHAT
    grep -c "^$1" /tmp/race/regions
}
echo "# $answers answers; regions: $(tally right) right, $(tally warned) with a warning, $(tally half) with one GPU of two"
same "race: $LOADS times the driver came and went, and nothing opened a device" "" "$(cat /tmp/race/failures)"
same "race: every answer was one" "0" "$(sort -u /tmp/race/*.codes)"
same "race: every answer is whole JSON" "$answers" "$(jq -s length /tmp/race/*.answers)"
check "race: regions were seen, and some that were not whole" test "$(tally right)" -gt 50 -a "$(tally warned)" -gt 0
same "race: no answer is wrong without saying so" "" "$(grep '^wrong' /tmp/race/regions)"
# A GPU that joins a moment later cannot be distinguished from one that never does.
check "race: next to none has one GPU of two" test $((20 * $(tally half))) -lt "$(tally right)"
check "race: nothing crashed" sh -c '! grep -i panic /tmp/race/*.errors'
