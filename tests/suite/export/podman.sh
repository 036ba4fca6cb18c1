# Starts a container with the CDI device that egm-probe wrote, in a mount namespace, and prints its devices.
# usage: podman.sh SPECIFICATION DEVICE..; nodes with the numbers of /dev/zero take the place of the devices.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export work specification="$1"
shift
for device; do
    set -- "$@" --device "$device"
    shift
done
unshare -m -C sh -eu -c '
mount --make-rprivate /
mount -t tmpfs tmpfs "$work"
mkdir "$work/dev" "$work/root" "$work/root/bin" "$work/home" "$work/run"
mount -t tmpfs tmpfs "$work/dev"
for node in null:3 zero:5 full:7 random:8 urandom:9 egm4:5 egm5:5 iommu:5; do
    mknod -m 0666 "$work/dev/${node%:*}" c 1 "${node#*:}"
done
mkdir "$work/dev/vfio" "$work/dev/vfio/devices" "$work/dev/pts" "$work/dev/shm" "$work/dev/mqueue"
for node in vfio 79 80 81 82 devices/vfio2 devices/vfio3; do mknod -m 0666 "$work/dev/vfio/$node" c 1 5; done
mknod -m 0666 "$work/dev/tty" c 5 0
ln -s /proc/self/fd "$work/dev/fd"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$work/dev/pts"
ln -s pts/ptmx "$work/dev/ptmx"
mount -t tmpfs tmpfs /run
mkdir /run/cdi
cp "$specification" /run/cdi/egm.json
mount --move "$work/dev" /dev
mount -t tmpfs cgroup /sys/fs/cgroup
cp "$(command -v busybox)" "$work/root/bin/busybox"
export HOME="$work/home" XDG_RUNTIME_DIR="$work/run"
podman --root "$work/home/storage" --runroot "$work/run/storage" --tmpdir "$work/run/tmp" --storage-driver=vfs \
    --cgroup-manager=cgroupfs --events-backend=none run --rm --cgroups=disabled --network=none \
    --security-opt seccomp=unconfined --ulimit nofile=1024:1024 --ulimit nproc=4096:4096 \
    "$@" --rootfs "$work/root" /bin/busybox find /dev -name "egm*" -o -name iommu -o -path "/dev/vfio/*"
' sh "$@"
