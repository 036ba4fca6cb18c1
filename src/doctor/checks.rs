//! The checks: one table, from which everything that names one is made. A remedy that does not depend
//! on what a check finds stands behind its explanation.

use super::{Check, access, confinement, devices, domains, load, software};

macro_rules! checks {
    ($(
        $code:literal $parent:expr, $run:path, $title:literal $explanation:literal
        $(=> $remedy:literal [$($command:literal)?])*;
    )*) => {
        /// Every check, in the order in which they are made.
        pub const CHECKS: &[Check] = &[$(Check {
            code: $code,
            title: $title,
            parent: $parent,
            explanation: $explanation,
            run: $run,
            remedies: &[$(($remedy, &[$($command)?])),*],
        }),*];
    };
}

checks! {
    "D01" None, devices::driver, "for the EGM driver"
        "Where the driver is loaded there is /sys/class/egm. Depending on its generation it is the module nvgrace_egm, or a part of nvgrace_gpu_vfio_pci.";
    "D02" Some("D01"), devices::regions, "for EGM regions"
        "The firmware sets EGM aside when that is switched on in its set-up, which takes effect at the next start. Drivers that list GPUs make a region only once one of its GPUs is bound to them.";
    "D03" Some("D02"), devices::shape, "the generation of the driver"
        "The driver's interface was never merged into Linux, and has changed. With the oldest one a second process maps the same memory instead of being refused.";
    "D04" Some("D02"), load::kernel, "the kernel"
        "EGM is a part of NVIDIA Grace, which is aarch64. On anything else a region is a test's.";
    "D05" Some("D02"), load::page_size, "the page size"
        "NVIDIA's kernels for Grace hosts have pages of 64 KiB; ECC errors retire memory in blocks of that size, and a region of hundreds of GiB takes 16 times as many mappings with pages of 4 KiB.";
    "D06" Some("D02"), devices::whole, "that every region is whole"
        "A region has a size, GPUs and a NUMA node. What could not be read cannot be given to a virtual machine.";
    "D07" Some("D02"), devices::binding, "that every GPU is bound for passthrough"
        "A virtual machine has the GPUs of its regions through vfio. A GPU that the host uses itself keeps its region from being of use.";
    "D08" Some("D02"), devices::groups, "the IOMMU groups of the GPUs"
        "vfio hands out whole IOMMU groups: what shares a group with a GPU, but for bridges, must go to the same virtual machine.";
    "D09" Some("D08"), devices::iommufd, "for iommufd"
        "A virtual machine on Grace has its GPUs through /dev/iommu. On kernels without NVIDIA's changes to it QEMU stops with `vfio_container_dma_map(...) = -14 (Bad address)`, which cannot be seen from here."
        => "load it" ["modprobe iommufd"];
    "D10" Some("D02"), access::user, "for the user that QEMU runs as"
        "libvirt runs QEMU as the user and group of /etc/libvirt/qemu.conf, else as libvirt-qemu (Debian, Ubuntu) or qemu (Fedora, RHEL).";
    "D11" Some("D10"), access::permission, "that QEMU may open the regions' devices"
        "The driver makes them 0600 root:root. QEMU opens them to read and to write, with the groups that its user is in.";
    "D12" Some("D02"), access::rules, "the udev rules"
        "A permission that no udev rule gives is gone when the driver is loaded again. A rule may be hidden by a file of the same name in another directory, and a later rule has the last word.";
    "D13" Some("D10"), confinement::cgroup, "libvirt's cgroup_device_acl"
        "The setting takes the place of libvirt's own list of devices that every QEMU may open, so what that has must be in it, too.";
    "D14" Some("D10"), confinement::namespaces, "libvirt's mount namespaces"
        "QEMU sees a /dev of its own, with the devices that libvirt knows of. One that is given to QEMU past libvirt is not there.";
    "D15" Some("D10"), confinement::apparmor, "AppArmor"
        "libvirt's profile for QEMU lets it open what it lists. NVIDIA's libvirt adds the device of each virtual machine; another one does not.";
    "D16" Some("D10"), confinement::selinux, "SELinux"
        "QEMU may open devices of the type svirt_image_t. NVIDIA's libvirt gives it that type; a udev rule can, too.";
    "D17" Some("D02"), software::qemu, "that QEMU has acpi-egm-memory"
        "The object that tells the guest which of its memory is EGM of which GPU is in NVIDIA's QEMU, and in none of the project's own up to 11.1."
        => "install NVIDIA's packages of QEMU and libvirt" [];
    "D18" Some("D02"), software::libvirt, "that libvirt knows the memory model egm"
        "NVIDIA's libvirt does, and none of the project's own up to 12.8: that refuses the domain, or leaves <pciDev> out without a word."
        => "install NVIDIA's packages of QEMU and libvirt" []
        => "or start QEMU without libvirt: `egm-probe stanza --format qemu-args` writes its arguments" [];
    "D19" Some("D02"), load::locked_memory, "how much memory QEMU may lock"
        "vfio locks all memory of a virtual machine. libvirt raises the limit as far as it may itself.";
    "D20" Some("D02"), load::huge_pages, "for huge pages that nobody needs"
        "Memory from EGM does not go with huge pages. What is set aside for them is missing from the host's own memory, of which there is little when EGM is on.";
    "D21" Some("D02"), load::holders, "who holds the regions"
        "A region that is held by something other than a virtual machine keeps every virtual machine from starting with it.";
    "D22" Some("D02"), load::scrub, "how long the driver clears a region"
        "When a region is opened the driver clears all of it, in one go: a virtual machine starts that much later, and a kernel that stops at soft lockups may stop."
        => "let it go on" ["sysctl -w kernel.softlockup_panic=0"];
    "D23" Some("D02"), domains::smmu, "that domains have an SMMUv3 for each GPU"
        "A guest reaches the memory of its GPUs through one SMMUv3 each."
        => "<iommu model='smmuv3'/> in <devices> for each GPU, on the PCI bus that the GPU is on" [];
    "D24" Some("D02"), domains::pci_hole, "that domains have room for the GPUs' memory"
        "The memory of a GPU is in PCI windows of hundreds of GiB: <pcihole64> is to be 4 TiB, and 8 TiB with GB300.";
    "D25" Some("D02"), domains::gpu_cells, "that domains have empty cells for each GPU"
        "A GPU brings eight NUMA nodes into its guest, one for each of its MIG instances; without cells for them its memory does not come up."
        => "`egm-probe stanza --all --with hostdev,numa,machine --gpu-cells 8 --domain FILE` adds them" [];
}
