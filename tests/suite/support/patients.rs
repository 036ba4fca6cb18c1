//! A host on which every check passes, and for each check hosts on which it alone does not.

use std::fmt::Write;

use super::machines::{VIRTUAL, add_function, gb200, gpu_path};
use super::tree::Tree;

/// Hosts that are ready, and those that are not, by the code of the check that says so and what it is
/// that is wrong.
#[allow(clippy::too_many_lines)] // A table.
pub fn all() -> Vec<(&'static str, Tree)> {
    let changed = |change: fn(&mut Tree)| {
        let mut tree = healthy(gb200().gpu_list());
        change(&mut tree);
        tree
    };
    vec![
        ("healthy", changed(|_| {})),
        (
            "healthy-member",
            changed(|tree| {
                conf(tree, "user = \"builder\"\ngroup = \"builder\"\n");
                tree.file("etc/group", "root:x:0:\nkvm:x:36:builder\nbuilder:x:1000:\n");
            }),
        ),
        ("healthy-number", changed(|tree| conf(tree, "user = \"+4711\"\ngroup = \"36\"\n"))),
        (
            "healthy-functions",
            changed(|tree| {
                let audio = "sys/devices/pci0008:00/0008:00:00.0/0008:01:00.1";
                let ids = ["0x10de", "0x2942", "0x040300"];
                add_function(tree, audio, ids, "0", "0-71", Some("vfio-pci"), Some(79));
            }),
        ),
        (
            "healthy-listed",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, &acl("/dev/egm4\", \"/dev/egm5"));
            }),
        ),
        ("D01", changed(|tree| tree.remove_all("sys/class/egm"))),
        ("D02", changed(no_regions)),
        (
            "D02-other-driver",
            changed(|tree| {
                no_regions(tree);
                bind(tree, "0008:01:00.0", "vfio-pci");
                bind(tree, "0009:01:00.0", "vfio-pci");
            }),
        ),
        ("D03", healthy(gb200().pci_links())),
        ("D04", changed(|tree| tree.file("proc/sys/kernel/arch", "x86_64\n"))),
        ("D05", changed(|tree| pages(tree, &[64, 2048, 32_768, 1_048_576]))),
        ("D05-16k", changed(|tree| pages(tree, &[2048, 32_768, 1_048_576]))),
        ("D06", changed(|tree| tree.file(&format!("{VIRTUAL}/egm5/egm_size"), "junk\n"))),
        ("D07", changed(|tree| bind(tree, "0019:01:00.0", "nvidia"))),
        ("D08", changed(shared_group)),
        ("D08-off", changed(no_groups)),
        ("D09", changed(|tree| tree.remove("dev/iommu"))),
        ("D10", changed(|tree| tree.file("etc/passwd", "root:x:0:0::/root:/bin/sh\n"))),
        ("D10-malformed", changed(|tree| conf(tree, "user = builder\n"))),
        ("D10-nobody", changed(|tree| conf(tree, "user = \"nobody-here\"\n"))),
        ("D11", changed(|tree| conf(tree, "user = \"builder\"\ngroup = \"builder\"\n"))),
        (
            "D11-first",
            changed(|tree| {
                conf(
                    tree,
                    "user = \"builder\"\ngroup = \"builder\"\nuser = \"libvirt-qemu\"\ngroup = \"kvm\"\n",
                );
            }),
        ),
        ("D11-missing", changed(|tree| tree.remove("dev/egm5"))),
        (
            "D12",
            changed(|tree| rule(tree, "99-local", "# ours\nKERNEL==\"egm*\", MODE=\"0600\"\n")),
        ),
        ("D12-none", changed(|tree| tree.remove("usr/lib/udev/rules.d/60-egm.rules"))),
        (
            "D12-hidden",
            changed(|tree| {
                tree.file(
                    "etc/udev/rules.d/60-egm.rules",
                    "SUBSYSTEM==\"egm\", SYMLINK+=\"x%k\"\n",
                );
            }),
        ),
        (
            "D12-one-region",
            changed(|tree| {
                let rule = "KERNEL==\"egm4\", GROUP=\"kvm\", MODE=\"0660\"\n";
                tree.file("etc/udev/rules.d/60-egm.rules", rule);
            }),
        ),
        (
            "D12-masked",
            changed(|tree| {
                tree.raw_link("etc/udev/rules.d/60-egm.rules", "/dev/null");
            }),
        ),
        (
            "D12-final",
            changed(|tree| rule(tree, "10-first", "KERNEL==\"egm*\", GROUP:=\"disk\"\n")),
        ),
        (
            "D12-condition",
            changed(|tree| {
                rule(tree, "99-local", "KERNEL==\"egm*\", ENV{X}==\"1\", MODE=\"0600\"\n");
            }),
        ),
        ("D12-changed", changed(|tree| tree.device("dev/egm5", (510, 5), 0o666, (0, 36)))),
        (
            "D13",
            changed(|tree| {
                conf(tree, "cgroup_device_acl = [\n  \"/dev/null\", \"/dev/zero\",\n]\n");
            }),
        ),
        (
            "D13-past",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, "namespaces = [ ]\n");
            }),
        ),
        (
            "D14",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, "cgroup_controllers = [ \"cpu\", \"memory\" ]\n");
            }),
        ),
        (
            "D15",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, &acl("/dev/egm4\", \"/dev/egm5"));
                tree.remove("etc/apparmor.d/local/abstractions/libvirt-qemu");
            }),
        ),
        (
            "D15-denied-all",
            changed(|tree| {
                tree.file(
                    "etc/apparmor.d/abstractions/libvirt-qemu.d/deny",
                    "deny /dev/egm* rw,\n",
                );
            }),
        ),
        (
            "D15-other-profile",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, &acl("/dev/egm4\", \"/dev/egm5"));
                let text = "/dev/kvm rw,\nprofile helper /usr/x {\n  /dev/** rw,\n}\n";
                tree.file("etc/apparmor.d/local/abstractions/libvirt-qemu", text);
            }),
        ),
        (
            "D15-denied",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, &acl("/dev/egm4\", \"/dev/egm5"));
                tree.file("etc/apparmor.d/abstractions/libvirt-qemu.d/deny", "deny /dev/egm5 w,\n");
            }),
        ),
        (
            "D16",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, &acl("/dev/egm4\", \"/dev/egm5"));
                tree.file("sys/fs/selinux/enforce", "1");
            }),
        ),
        (
            "D16-other-type",
            changed(|tree| {
                past_libvirt(tree);
                conf(tree, &acl("/dev/egm4\", \"/dev/egm5"));
                tree.file("sys/fs/selinux/enforce", "1");
                let label = "SECLABEL{selinux}=\"system_u:object_r:device_t:s0\"";
                rule(tree, "70-label", &format!("SUBSYSTEM==\"egm\", {label}\n"));
            }),
        ),
        ("D17", changed(|_| {})),
        ("D18", changed(|_| {})),
        ("D19", changed(|tree| daemon(tree, "8388608", 0))),
        ("D19-one-region", changed(|tree| daemon(tree, "500000000000", 0))),
        ("D20", changed(|tree| huge_pages(tree, 524_288, (16, 10)))),
        ("D21", changed(stray_holder)),
        ("D22", changed(|tree| tree.file("proc/sys/kernel/softlockup_panic", "1\n"))),
        ("D23", changed(|tree| domain(tree, &[("<iommu model='smmuv3'/>", "")]))),
        ("D24", changed(|tree| domain(tree, &[("4294967296", "1048576")]))),
        ("D25", changed(|tree| domain(tree, &[("<acpi nodeset='10-17'/>", "")]))),
        ("D25-no-cells", changed(|tree| domain(tree, &[("nodeset='10-17'", "nodeset='100-107'")]))),
    ]
}

fn healthy(mut tree: Tree) -> Tree {
    for (name, value) in [
        ("arch", "aarch64"),
        ("osrelease", "6.14.0-1007-nvidia-64k"),
        ("watchdog_thresh", "10"),
        ("softlockup_panic", "0"),
    ] {
        tree.file(&format!("proc/sys/kernel/{name}"), format!("{value}\n"));
    }
    pages(&mut tree, &[2048, 524_288, 16_777_216]);
    tree.file("sys/module/nvgrace_egm/refcnt", "0\n");
    tree.device("dev/iommu", (10, 127), 0o660, (0, 0));
    tree.file(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nbuilder:x:1000:1000::/home/builder:/bin/bash\n\
         libvirt-qemu:x:64055:36:Libvirt Qemu,,,:/var/lib/libvirt:/usr/sbin/nologin\n",
    );
    tree.file("etc/group", "root:x:0:\nkvm:x:36:\nbuilder:x:1000:\n");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/udev-rules/60-egm.rules");
    tree.file("usr/lib/udev/rules.d/60-egm.rules", std::fs::read(rules).unwrap());
    tree.file(
        "usr/lib/udev/rules.d/50-other.rules",
        "SUBSYSTEM==\"mem\", KERNEL==\"null\", MODE=\"0666\"\n",
    );
    conf(&mut tree, "# as it is shipped\n#user = \"libvirt-qemu\"\n");
    tree.file("sys/module/apparmor/parameters/enabled", "Y\n");
    let profiles = "etc/apparmor.d";
    tree.file(
        &format!("{profiles}/abstractions/libvirt-qemu"),
        "  /dev/kvm rw,\n  include if exists <abstractions/libvirt-qemu.d>\n  \
         include if exists <local/abstractions/libvirt-qemu>\n",
    );
    tree.file(&format!("{profiles}/local/abstractions/libvirt-qemu"), "/dev/egm* rw,\n");
    daemon(&mut tree, "8388608", 0x1ff_ffff_ffff);
    domain(&mut tree, &[]);
    tree
}

fn conf(tree: &mut Tree, text: &str) {
    tree.file("etc/libvirt/qemu.conf", text);
}

/// Huge pages of a size: how many are set aside, and how many of them are free.
fn huge_pages(tree: &mut Tree, kib: u64, (count, free): (u64, u64)) {
    let path = format!("sys/kernel/mm/hugepages/hugepages-{kib}kB");
    tree.file(&format!("{path}/nr_hugepages"), format!("{count}\n"));
    tree.file(&format!("{path}/free_hugepages"), format!("{free}\n"));
}

/// The sizes of huge pages that the kernel has; none of them is set aside.
fn pages(tree: &mut Tree, sizes: &[u64]) {
    // The first time there are none.
    tree.file("sys/kernel/mm/hugepages/x", "");
    tree.remove_all("sys/kernel/mm/hugepages");
    for kib in sizes {
        huge_pages(tree, *kib, (0, 0));
    }
}

/// libvirt's own list of devices, with more.
fn acl(more: &str) -> String {
    format!(
        "cgroup_device_acl = [\n  \"/dev/null\", \"/dev/full\", \"/dev/zero\", \"/dev/random\", \
         \"/dev/urandom\", \"/dev/ptmx\", \"/dev/kvm\", \"{more}\"\n]\n"
    )
}

fn rule(tree: &mut Tree, name: &str, text: &str) {
    tree.file(&format!("etc/udev/rules.d/{name}.rules"), text);
}

fn bind(tree: &mut Tree, gpu: &str, driver: &str) {
    let driver = format!("sys/bus/pci/drivers/{driver}");
    tree.directory(&driver);
    tree.link(&format!("{}/driver", gpu_path(gpu)), &driver);
}

fn no_groups(tree: &mut Tree) {
    tree.remove_all("sys/kernel/iommu_groups");
    for gpu in ["0008:01:00.0", "0009:01:00.0", "0018:01:00.0", "0019:01:00.0"] {
        tree.remove(&format!("{}/iommu_group", gpu_path(gpu)));
    }
}

fn limits(tree: &mut Tree, pid: u32, name: &str, locked: &str, capabilities: u64) {
    let unit = if locked == "unlimited" { "" } else { "bytes" };
    tree.file(&format!("proc/{pid}/comm"), format!("{name}\n"));
    tree.file(
        &format!("proc/{pid}/limits"),
        format!("Limit                     Soft Limit           Hard Limit           Units     \n{:<26}{locked:<21}{locked:<21}{unit:<10}\n", "Max locked memory"),
    );
    tree.file(
        &format!("proc/{pid}/status"),
        format!("Name:\t{name}\nUid:\t0\t0\t0\t0\nCapEff:\t{capabilities:016x}\n"),
    );
    tree.file(&format!("proc/{pid}/maps"), "");
    tree.directory(&format!("proc/{pid}/fd"));
}

/// libvirt's daemon, which may raise limits as root, and not in a container.
fn daemon(tree: &mut Tree, locked: &str, capabilities: u64) {
    limits(tree, 900, "virtqemud", locked, capabilities);
}

/// A process that has egm4 open and is no virtual machine.
fn stray_holder(tree: &mut Tree) {
    limits(tree, 4711, "cat", "unlimited", 0);
    tree.file("proc/4711/cmdline", "cat\0/dev/egm4\0");
    tree.raw_link("proc/4711/fd/3", "/dev/egm4");
}

fn no_regions(tree: &mut Tree) {
    tree.remove_all("sys/class/egm");
    tree.directory("sys/class/egm");
}

/// A network card in the group of a GPU.
fn shared_group(tree: &mut Tree) {
    let nic = "sys/devices/pci0000:00/0000:00:00.0/0000:03:00.0";
    tree.link("sys/kernel/iommu_groups/79/devices/0000:03:00.0", nic);
}

fn past_libvirt(tree: &mut Tree) {
    tree.file(
        "etc/libvirt/qemu/vm2.xml",
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n  <name>vm2</name>\n  \
         <qemu:commandline>\n    <qemu:arg value='-object'/>\n    <qemu:arg value='memory-backend-file,\
         id=m0,mem-path=/dev/egm4,size=8G,share=on'/>\n  </qemu:commandline>\n</domain>\n",
    );
}

/// A domain that has all that it should have, but for what is changed in it.
fn domain(tree: &mut Tree, changes: &[(&str, &str)]) {
    let mut devices = String::new();
    let (mut hostdevs, mut cells) = (String::new(), String::new());
    for (index, gpu) in ["0x0008", "0x0009", "0x0018", "0x0019"].iter().enumerate() {
        let first = 2 + 8 * index;
        let _ = write!(
            hostdevs,
            "    <hostdev mode='subsystem' type='pci' managed='yes'>\n      <source><address domain='{gpu}' \
             bus='0x01' slot='0x00' function='0x0'/></source>\n      <alias name='ua-hostdev{index}'/>\n      \
             <acpi nodeset='{first}-{}'/>\n    </hostdev>\n    <iommu model='smmuv3'/>\n",
            first + 7
        );
        let node = index / 2;
        let _ = write!(
            devices,
            "    <memory model='egm' access='shared'>\n      <source><path>/dev/egm{}</path></source>\n      \
             <target><size unit='KiB'>234356736</size><node>{node}</node><pciDev>ua-hostdev{index}</pciDev>\
             </target>\n    </memory>\n",
            4 + node
        );
    }
    for id in 0..34 {
        let memory = if id < 2 { 468_713_472 } else { 0 };
        let _ = writeln!(cells, "      <cell id='{id}' memory='{memory}' unit='KiB'/>");
    }
    let mut text = format!(
        "<domain type='kvm'>\n  <name>vm1</name>\n  <memory unit='KiB'>937426944</memory>\n  <cpu>\n    <numa>\n\
         {cells}    </numa>\n  </cpu>\n  <devices>\n    <controller type='pci' index='0' model='pcie-root'>\n      \
         <pcihole64 unit='KiB'>4294967296</pcihole64>\n    </controller>\n{hostdevs}{devices}  </devices>\n\
         </domain>\n"
    );
    for (old, new) in changes {
        assert!(text.contains(old));
        text = text.replacen(old, new, 1);
    }
    tree.file("etc/libvirt/qemu/vm1.xml", text);
}
