//! Hosts for tests that need many of them; those with names are directories of the fixtures.

use super::tree::Tree;

const MIB: u64 = 1 << 20;
const VIRTUAL: &str = "sys/devices/virtual/egm";

/// A host with these regions: number, MiB for each GPU, how many GPUs.
pub fn host_of(regions: &[(u32, u64, u8)]) -> Tree {
    let mut tree = Tree::default();
    // Without a process nothing would be known of holders.
    tree.file("proc/1/maps", "");
    tree.file("proc/1/comm", "systemd\n");
    tree.directory("proc/1/fd");
    for (socket, (number, mib, gpus)) in regions.iter().enumerate() {
        let gpus: Vec<String> =
            (0..*gpus).map(|gpu| format!("00{socket:x}{:x}:01:00.0", 8 + gpu)).collect();
        let path = format!("{VIRTUAL}/egm{number}");
        tree.link(&format!("sys/class/egm/egm{number}"), &path);
        tree.file(&format!("{path}/dev"), format!("510:{number}\n"));
        let size = mib * MIB * gpus.len() as u64;
        tree.file(&format!("{path}/egm_size"), format!("{size:#x}\n"));
        tree.file(&format!("{path}/uevent"), format!("DEVNAME=egm{number}\n"));
        tree.file(&format!("{path}/gpu_devices"), gpus.join("\n") + "\n");
        for gpu in &gpus {
            add_gpu(&mut tree, gpu);
        }
    }
    tree
}

/// The kernel's own directory of a GPU.
pub fn gpu_path(gpu: &str) -> String {
    let (domain, _) = gpu.split_once(':').unwrap();
    format!("sys/devices/pci{domain}:00/{domain}:00:00.0/{gpu}")
}

fn add_gpu(tree: &mut Tree, gpu: &str) {
    let path = gpu_path(gpu);
    for (name, value) in [
        ("vendor", "0x10de"),
        ("device", "0x2941"),
        ("class", "0x030200"),
        ("numa_node", "-1"),
        ("local_cpulist", "0"),
    ] {
        tree.file(&format!("{path}/{name}"), format!("{value}\n"));
    }
    tree.link(&format!("sys/bus/pci/devices/{gpu}"), &path);
    let driver = "sys/bus/pci/drivers/nvgrace_gpu_vfio_pci";
    tree.directory(driver);
    tree.link(&format!("{path}/driver"), driver);
}
