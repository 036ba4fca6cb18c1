//! A host on which everything is wrong that can be: what each region lacks must not keep the
//! others from being listed.

use super::machines::{NODES, VIRTUAL, add_function, add_node, gb200, gpu_path};
use super::tree::Tree;

/// `egm5` is whole. The others:
pub fn everything() -> Tree {
    let mut tree = gb200().gpu_list();
    let at = |region: &str, file: &str| format!("{VIRTUAL}/{region}/{file}");

    // egm4: a list with junk in it, among it what would paint a terminal red; a size that is
    // none; a name that leads out of /dev.
    tree.file(&at("egm4", "egm_size"), "0xlots\n");
    tree.file(
        &at("egm4", "gpu_devices"),
        "0008:01:00.0\n\x1b[31mred\u{202e}\n\n0008:01:00.0\n09:01.0\n0018:01:00.0\n",
    );
    tree.file(&at("egm4", "uevent"), "MAJOR=510\nDEVNAME=../etc/shadow\n");

    // egm6: nothing in it.
    tree.link("sys/class/egm/egm6", &format!("{VIRTUAL}/egm6"));
    tree.directory(&format!("{VIRTUAL}/egm6"));

    // egm7: a link that leads nowhere. egm8: one that leads to itself. egm9: a file.
    tree.raw_link("sys/class/egm/egm7", "../../devices/virtual/egm/egm7");
    tree.raw_link("sys/class/egm/egm8", "egm8");
    tree.file("sys/class/egm/egm9", "not a directory\n");

    // egm10: a size over 64 bits; a GPU that was taken out; another that is a file; a device node
    // of another number.
    region(&mut tree, "egm10", "10");
    tree.file(&at("egm10", "egm_size"), "0x10000000000000000\n");
    tree.raw_link(&at("egm10", "0028:01:00.0"), "../../../pci0028:00/0028:00:00.0/0028:01:00.0");
    tree.file(&at("egm10", "0029:01:00.0"), "not a link\n");
    tree.device("dev/egm10", (1, 5), 0o666, (0, 0));

    // egm11: attributes that are a FIFO, a directory and a device; a regular file as its node.
    region(&mut tree, "egm11", "11");
    tree.fifo(&at("egm11", "egm_size"));
    tree.directory(&at("egm11", "gpu_devices"));
    tree.device(&at("egm11", "dev"), (510, 11), 0o600, (0, 0));
    tree.file("dev/egm11", "");

    // egm12: not UTF-8; far too long; a GPU whose every attribute is wrong; no device node.
    region(&mut tree, "egm12", "12");
    tree.file(&at("egm12", "egm_size"), [0xff, 0xfe, b'\n']);
    tree.file(&at("egm12", "uevent"), vec![b'x'; 70_000]);
    let gpu = gpu_path("0030:01:00.0");
    let bad = "\x1b]0;title\x07";
    add_function(&mut tree, &gpu, [bad, "0x12941", "-1"], "4294967296", "71-0", None, None);
    tree.raw_link(&format!("{gpu}/driver"), "../../../../bus/pci/drivers/\x1b[7mdriver");
    tree.raw_link(&format!("{gpu}/iommu_group"), "../../../../kernel/iommu_groups/many");
    tree.link(&at("egm12", "0030:01:00.0"), &gpu);

    // egm13: its GPU is on a node whose distances are not those of the host. egm14: on a node
    // as near to one socket as to the other.
    for (name, address, node) in [("egm13", "0031:01:00.0", "33"), ("egm14", "0032:01:00.0", "34")]
    {
        region(&mut tree, name, &name[3..]);
        let gpu = gpu_path(address);
        let ids = ["0x10de", "0x2941", "0x030200"];
        add_function(&mut tree, &gpu, ids, node, "0-143", None, None);
        tree.link(&at(name, address), &gpu);
    }
    add_node(&mut tree, 33, "", 0, &[80, 120]);
    let mut even = vec![120; 36];
    even[34] = 10;
    add_node(&mut tree, 34, "", 0, &even);
    tree.file(&format!("{NODES}/node35/meminfo"), "Node 35 MemTotal: 99999999999999999999 kB\n");

    // No regions at all, whatever they begin with.
    for name in ["egm", "egmctl", "egm-4", "egm4a", "EGM4", "control"] {
        tree.directory(&format!("sys/class/egm/{name}"));
    }
    tree
}

fn region(tree: &mut Tree, name: &str, minor: &str) {
    let path = format!("{VIRTUAL}/{name}");
    tree.link(&format!("sys/class/egm/{name}"), &path);
    tree.file(&format!("{path}/dev"), format!("510:{minor}\n"));
    tree.file(&format!("{path}/egm_size"), "0x40000000\n");
    tree.file(&format!("{path}/uevent"), format!("DEVNAME={name}\n"));
}
