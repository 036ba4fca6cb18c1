# shellcheck shell=dash disable=SC2016,SC2034,SC2086,SC2154
# The results match the parameters of the driver.
same "without the driver there is nothing" "" "$(probe list 2>/dev/null)"
same "without the driver nothing is an answer" 0 "$(code probe list)"
same "without the driver a region is not there" 3 "$(code probe show egm4)"

insert
same "a driver without regions has none" "" "$(probe list 2>/dev/null)"
same "a driver without regions is no error" 0 "$(code probe list)"
unload "a driver without regions" ""

for shape in D E; do
    case $shape in
    D) name=gpu-list ;;
    E) name=standalone ;;
    esac
    check "shape $shape: the driver loads" load $shape
    same "shape $shape: names, sizes, nodes and GPUs" \
        "[\"egm4\",\"$name\",$EGM4_SIZE,0,\"gpu\",\"$EGM4_GPUS\",[]]
[\"egm5\",\"$name\",$EGM5_SIZE,1,\"gpu\",\"$EGM5_GPUS\",[]]" "$(list)"
    same "shape $shape: the devices, by stat" \
        "$(for n in 4 5; do
            stat -c '0x%t 0x%T "0%a","%U","%G"' /dev/egm$n | { read -r major minor rest
                echo "[$((major)),$((minor)),$rest]"; }
        done)" \
        "$(probe list --json | jq -c '.regions[].device | [.major, .minor, .mode, .user, .group]')"
    same "shape $shape: nothing is open, so both are free" '["free","free"]' \
        "$(probe list --json | jq -c '[.regions[].state]')"
    check "shape $shape: every GPU is there, with its node" test "$(probe show --json |
        jq -c '[.regions[].gpus[] | [.address, .numa_node]]')" = \
        '[["0000:21:00.0",0],["0000:22:00.0",0],["0000:41:00.0",1],["0000:61:00.0",2]]'
    for columns in "-O" "-o DEVICE,SIZE" "--no-occupancy"; do
        check "shape $shape: list $columns" probe list $columns
    done
    for command in "topology" "metrics" "show egm4" "stanza --all --size 1GiB --force"; do
        check "shape $shape: $command" probe $command
    done
    unload "shape $shape" "0 0"
done

# A region with the number of another socket's node, and a GPU on a node without CPUs.
insert number=1,0,2 size=0x1000000000,$MIB gpus=0000:21:00.0,0000:41:00.0,0000:61:00.0
udevadm settle
same "the number in a name is no node" '["egm0",1,"gpu"]
["egm1",0,"gpu"]
["egm2",1,"nearest-cpu-node"]' "$(probe list --json | jq -c '.regions[] | [.name, .numa_node, .numa_node_from]')"
same "sizes of one MiB and of 64 GiB" '[1048576,68719476736,67108864]' "$(probe list --json | jq -c '[.regions[].size]')"
unload "other numbers" "0 0 0"

insert number=255 gpus=0000:22:00.0+0000:41:00.0
udevadm settle
same "GPUs that disagree are told, and no node is made up" '[null,1]' "$(region egm255 '[.numa_node, (.warnings | length)]')"
unload "GPUs that disagree" "0"

# Attributes that appear after the region was announced: later than any command waits, or as with the real driver.
GPUS='[.gpus[].address] | join("+")'
insert number=4 gpus=$EGM4_GPUS attr_delay_us=3000000 gpu_delay_us=3000000 &
until_so test -e /sys/class/egm/egm4
same "a region that is being made has no size, and it is told why" '[null,"",true]' \
    "$(region egm4 "[.size, ($GPUS), (.warnings | tostring | contains(\"incomplete\"))]")"
until_so test -e /sys/class/egm/egm4/gpu_devices
same "a GPU that is late is not there yet" 0000:21:00.0 "$(region egm4 "$GPUS" | jq -r .)"
wait $!
same "when it is made, it is whole" "[67108864,\"$EGM4_GPUS\",[]]" "$(region egm4 "[.size, ($GPUS), .warnings]")"
unload "attributes that come very late" "0"

load E attr_delay_us=15000 &
until_so test -e /sys/class/egm/egm4
list >/tmp/early
wait $!
check "a region is waited for, or told as incomplete" jq -e -s "length > 0 and all(.[];
    .[5] == \"$EGM4_GPUS\" or .[5] == \"$EGM5_GPUS\" or (.[6] | tostring | contains(\"incomplete\")))" /tmp/early
unload "attributes that come late" "0 0"
