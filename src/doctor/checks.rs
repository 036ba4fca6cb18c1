//! The table of checks, the only place that defines them. A remedy that does not depend on a
//! check's findings follows its explanation.

use super::{
    Check, Consumer, access, confinement, devices, domains, kata, kubernetes, load, software,
};

/// Consumers that a check concerns.
const ALL: &[Consumer] = Consumer::ALL;
const LIBVIRT: &[Consumer] = &[Consumer::Libvirt];
const KUBERNETES: &[Consumer] = &[Consumer::Kubernetes];
const KATA: &[Consumer] = &[Consumer::Kata];
/// All but that which has a check of its own for the layout (D29).
const NOT_KUBERNETES: &[Consumer] = &[Consumer::Libvirt, Consumer::Kata, Consumer::Qemu];
/// QEMU is on the host.
const ON_HOST: &[Consumer] = &[Consumer::Libvirt, Consumer::Qemu];
/// QEMU is not run by root.
const UNPRIVILEGED: &[Consumer] = &[Consumer::Libvirt, Consumer::Kubernetes, Consumer::Qemu];

macro_rules! checks {
    ($(
        $code:literal $parent:expr, $consumers:expr, $run:path, $title:literal $explanation:literal
        $(=> $remedy:literal [$($command:literal)?])*;
    )*) => {
        /// All checks, in order of execution.
        pub const CHECKS: &[Check] = &[$(Check {
            code: $code,
            title: $title,
            parent: $parent,
            consumers: $consumers,
            explanation: $explanation,
            run: $run,
            remedies: &[$(($remedy, &[$($command)?])),*],
        }),*];
    };
}

checks! {
    "D01" None, ALL, devices::driver, "for the EGM driver"
        "If the driver is loaded, /sys/class/egm exists. Depending on its generation, the driver is the module nvgrace_egm or part of nvgrace_gpu_vfio_pci.";
    "D02" Some("D01"), ALL, devices::regions, "for EGM regions"
        "The firmware reserves memory for EGM if EGM is enabled in its setup, which takes effect at the next boot. Drivers that list GPUs create a region only after one of its GPUs is bound to them.";
    "D03" Some("D02"), NOT_KUBERNETES, devices::shape, "the generation of the driver"
        "The driver's interface was never merged into Linux, and has changed. With the oldest driver, a second process maps the same memory instead of being refused.";
    "D04" Some("D02"), ALL, load::kernel, "the kernel"
        "EGM is a feature of NVIDIA Grace, which is aarch64. On other machines, regions exist only in tests.";
    "D05" Some("D02"), ALL, load::page_size, "the page size"
        "NVIDIA's kernels for Grace hosts use 64 KiB pages; ECC errors retire memory in blocks of that size, and a region of hundreds of GiB needs 16 times as many mappings with 4 KiB pages.";
    "D06" Some("D02"), ALL, devices::whole, "that every region is complete"
        "A region has a size, GPUs and a NUMA node. If one of them cannot be read, the region cannot be given to a virtual machine.";
    "D07" Some("D02"), ALL, devices::binding, "that every GPU is bound for passthrough"
        "A virtual machine gets the GPUs of its regions through vfio. A region cannot be used while the host itself uses one of its GPUs.";
    "D08" Some("D02"), ALL, devices::groups, "the IOMMU groups of the GPUs"
        "vfio assigns whole IOMMU groups: all devices in a GPU's group, except bridges, must go to the same virtual machine.";
    "D09" Some("D08"), ALL, devices::iommufd, "for iommufd"
        "A virtual machine on Grace uses its GPUs through /dev/iommu. On kernels without NVIDIA's changes to iommufd, QEMU stops with `vfio_container_dma_map(...) = -14 (Bad address)`; this check cannot detect that."
        => "load it" ["modprobe iommufd"];
    "D10" Some("D02"), LIBVIRT, access::user, "which user QEMU runs as"
        "libvirt runs QEMU as the user and group in /etc/libvirt/qemu.conf, by default libvirt-qemu (Debian, Ubuntu) or qemu (Fedora, RHEL).";
    "D11" Some("D10"), UNPRIVILEGED, access::permission, "that QEMU may open the regions' devices"
        "The driver creates them as 0600 root:root. QEMU opens them for reading and writing, with the groups of its user.";
    "D12" Some("D02"), UNPRIVILEGED, access::rules, "the udev rules"
        "Permissions that no udev rule sets are lost when the driver is reloaded. A file of the same name in another directory may hide a rule, and a later rule may override it.";
    "D13" Some("D10"), LIBVIRT, confinement::cgroup, "libvirt's cgroup_device_acl"
        "The setting replaces libvirt's own list of devices that every QEMU may open, so it must contain those devices as well.";
    "D14" Some("D10"), LIBVIRT, confinement::namespaces, "libvirt's mount namespaces"
        "QEMU has its own /dev with the devices that libvirt knows about. A device that is given to QEMU without libvirt is missing there.";
    "D15" Some("D10"), LIBVIRT, confinement::apparmor, "AppArmor"
        "QEMU may open only the files in libvirt's profile. NVIDIA's libvirt adds the device of each virtual machine; other versions do not.";
    "D16" Some("D10"), LIBVIRT, confinement::selinux, "SELinux"
        "QEMU may open devices of the type svirt_image_t. NVIDIA's libvirt sets that type; a udev rule can also set it.";
    "D17" Some("D02"), ON_HOST, software::qemu, "that QEMU has acpi-egm-memory"
        "This object tells the guest which part of its memory is the EGM of which GPU. NVIDIA's QEMU has it; upstream QEMU does not, up to version 11.1."
        => "install NVIDIA's packages qemu-nvidia and qemu-efi-aarch64" [];
    "D18" Some("D02"), LIBVIRT, software::libvirt, "that libvirt supports the memory model egm"
        "NVIDIA's libvirt does; upstream libvirt does not, up to version 12.8: it rejects the domain or silently drops <pciDev>."
        => "install NVIDIA's packages libvirt-nvidia, which replaces the distribution's libvirt, qemu-nvidia and qemu-efi-aarch64" []
        => "or start QEMU without libvirt: `egm-probe stanza --format qemu-args` prints its arguments" [];
    "D19" Some("D02"), ON_HOST, load::locked_memory, "how much memory QEMU may lock"
        "vfio locks all memory of a virtual machine. libvirt raises QEMU's limit as far as it is permitted to.";
    "D20" Some("D02"), ALL, load::huge_pages, "for unused huge pages"
        "EGM memory cannot be combined with huge pages. Reserved huge pages reduce the host's own memory, which is scarce if EGM is enabled.";
    "D21" Some("D02"), ALL, load::holders, "which processes hold the regions"
        "A region that is held by another program prevents every virtual machine from starting with it.";
    "D22" Some("D02"), ALL, load::scrub, "how long clearing a region takes"
        "When a region is opened, the driver clears all of it at once: this delays the start of a virtual machine, and a kernel that panics on soft lockups may panic."
        => "do not panic on soft lockups" ["sysctl -w kernel.softlockup_panic=0"];
    "D23" Some("D02"), LIBVIRT, domains::buses, "that domains have a bus with an SMMUv3 for each GPU"
        "A guest accesses the memory of each of its GPUs through an SMMUv3, which belongs to an expander bus. If a domain has neither, this check alone reports it.";
    "D24" Some("D02"), LIBVIRT, domains::pci_hole, "that domains have PCI address space for the GPUs' memory"
        "GPU memory is mapped in PCI windows of hundreds of GiB: <pcihole64> should be 4 TiB, or 8 TiB with GB300.";
    "D25" Some("D02"), LIBVIRT, domains::gpu_cells, "that domains have empty cells for each GPU"
        "A GPU adds eight NUMA nodes to its guest, one for each MIG instance; without cells for them its memory does not come online.";
    "D26" Some("D02"), LIBVIRT, domains::regions, "that domains do not share regions"
        "A region belongs to one virtual machine at a time: if two domains are defined with it, only one of them can run."
        => "run only one of them at a time, or give them different regions" [];
    "D27" Some("D02"), KUBERNETES, kubernetes::numa_nodes, "how many NUMA nodes kubelet accepts"
        "A Grace host has a NUMA node for each socket and eight for each GPU. kubelet's topology manager accepts 8 unless max-allowable-numa-nodes allows more. Only /var/lib/kubelet/config.yaml is read: no options of the command line, and no further files.";
    "D28" Some("D02"), KUBERNETES, kubernetes::policies, "kubelet's CPU and topology managers"
        "KubeVirt gives virtual machines with EGM dedicated CPUs, which only the static CPU manager assigns; the topology manager places them on the socket of the GPUs.";
    "D29" Some("D02"), KUBERNETES, kubernetes::device_plugin, "that KubeVirt's device plugin offers the regions"
        "kubevirt-gpu-device-plugin knows only the layout gpu-list, and adds a region only if all of its GPUs are requested together with one resource name. It reports nothing otherwise. KubeVirt builds a Grace guest (GraceIOVirtualization) only for GPUs whose ids it knows.";
    "D30" Some("D02"), KATA, kata::regions, "that Kata Containers finds the regions"
        "Kata Containers looks for the sizes of regions in /sys/class/misc, and needs a NUMA node with CPUs for each GPU.";
}
