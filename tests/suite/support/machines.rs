//! Made-up machines, from values that were seen on real hosts: sizes, addresses, ids and NUMA
//! nodes of GB200, GB300 and GH200, in every shape in which a driver shows its regions.

use super::broken;
use super::processes;
use super::tree::Tree;

const MIB: u64 = 1 << 20;
const GB200_REGION: u64 = 457_728 * MIB;

/// One Grace socket: its region, its GPUs, its CPUs. Its number is its NUMA node's.
pub struct Socket {
    pub region: &'static str,
    pub size: u64,
    pub cpus: &'static str,
    pub memory_kib: u64,
    pub gpus: Vec<&'static str>,
}

/// A host; the driver of its regions is still to be chosen.
pub struct Machine {
    pub tree: Tree,
    pub sockets: Vec<Socket>,
}

/// Every made-up machine, by the name of its fixture.
pub fn all() -> Vec<(&'static str, Tree)> {
    let mut machines = vec![
        ("class-empty", class_empty()),
        ("everything-broken", broken::everything()),
        ("gb200-aux-first-gpu", gb200().aux_first_gpu()),
        ("gb200-aux-per-gpu", gb200().aux_per_gpu()),
        ("gb200-cpuless-nodes", gb200_on_nodes(["2", "10", "18", "26"])),
        ("gb200-full-gpu-list", gb200().gpu_list()),
        ("gb200-full-standalone", gb200().standalone()),
        ("gb200-gpu-bound-elsewhere", gpu_bound_elsewhere()),
        ("gb200-gpu-unbound", gpu_unbound()),
        ("gb200-just-made", just_made()),
        ("gb200-links", device_links()),
        ("gb200-mixed-ways", mixed_ways()),
        ("gb200-no-nodes", gb200_on_nodes(["-1"; 4])),
        ("gb200-odd-sizes", odd_sizes()),
        ("gb200-nodes-unreadable", nodes_unreadable()),
        ("gb200-nodes-disagree", gb200_on_nodes(["0", "1", "1", "1"])),
        ("gb200-peer-on-own-nodes", peer_on_own_nodes()),
        ("gb200-pci-links", gb200().pci_links()),
        ("gb200-pci-links-no-size", pci_links_no_size()),
        ("gb300-egm-off", gb300().tree),
        ("gb300-gpu-list", gb300_gpu_list()),
        ("gh200-full", gh200().standalone()),
        ("gh200-quad", gh200_quad().gpu_list()),
        ("no-egm", no_egm()),
        ("no-sys", no_sys()),
        ("one-domain", one_domain()),
        ("wide-domain", wide_domain()),
    ];
    machines.extend(processes::all());
    machines
}

pub fn gb200() -> Machine {
    let socket = |region, cpus, gpus: [&'static str; 2]| Socket {
        region,
        size: GB200_REGION,
        cpus,
        memory_kib: 23_068_672,
        gpus: gpus.to_vec(),
    };
    let sockets = vec![
        socket("egm4", "0-71", ["0008:01:00.0", "0009:01:00.0"]),
        socket("egm5", "72-143", ["0018:01:00.0", "0019:01:00.0"]),
    ];
    Machine::new(sockets, 34, 0, "0x2941")
}

/// A host with these regions: number, MiB for each GPU, how many GPUs.
pub fn host_of(regions: &[(u32, u64, u8)]) -> Tree {
    let mut tree = Tree::default();
    processes::add_init(&mut tree);
    for (socket, (number, mib, gpus)) in regions.iter().enumerate() {
        let gpus: Vec<String> =
            (0..*gpus).map(|gpu| format!("00{socket:x}{:x}:01:00.0", 8 + gpu)).collect();
        let path = format!("{VIRTUAL}/egm{number}");
        tree.link(&format!("sys/class/egm/egm{number}"), &path);
        tree.file(&format!("{path}/dev"), format!("{MAJOR}:{number}\n"));
        let size = mib * MIB * gpus.len() as u64;
        tree.file(&format!("{path}/egm_size"), format!("{size:#x}\n"));
        tree.file(&format!("{path}/uevent"), format!("DEVNAME=egm{number}\n"));
        tree.file(&format!("{path}/gpu_devices"), gpus.join("\n") + "\n");
        for gpu in &gpus {
            let ids = ["0x10de", "0x2941", "0x030200"];
            let driver = Some("nvgrace_gpu_vfio_pci");
            add_function(&mut tree, &gpu_path(gpu), ids, "-1", "0", driver, None);
        }
    }
    tree
}

fn gb300() -> Machine {
    let socket = |region, cpus, memory_mb: u64, gpus: [&'static str; 2]| Socket {
        region,
        size: GB200_REGION,
        cpus,
        memory_kib: memory_mb * 1024,
        gpus: gpus.to_vec(),
    };
    let sockets = vec![
        socket("egm4", "0-71", 483_137, ["0008:06:00.0", "0009:06:00.0"]),
        socket("egm5", "72-143", 481_768, ["0018:06:00.0", "0019:06:00.0"]),
    ];
    Machine::new(sockets, 32, 283_136 * 1024, "0x31c2")
}

fn gh200() -> Machine {
    let socket = Socket {
        region: "egm4",
        size: 66 * 1024 * MIB,
        cpus: "0-71",
        memory_kib: 100_663_296,
        gpus: vec!["0009:01:00.0"],
    };
    Machine::new(vec![socket], 8, 0, "0x2342")
}

fn gh200_quad() -> Machine {
    let socket = |region, cpus, gpu| Socket {
        region,
        size: 56_896 * MIB,
        cpus,
        memory_kib: 67_108_864,
        gpus: vec![gpu],
    };
    let sockets = vec![
        socket("egm4", "0-71", "0009:01:00.0"),
        socket("egm5", "72-143", "0019:01:00.0"),
        socket("egm6", "144-215", "0029:01:00.0"),
        socket("egm7", "216-287", "0039:01:00.0"),
    ];
    Machine::new(sockets, 32, 0, "0x2345")
}

/// The names of this host's own `pci.ids` come before the program's.
fn gb300_gpu_list() -> Tree {
    let mut tree = gb300().gpu_list();
    tree.file(
        "usr/share/hwdata/pci.ids",
        "10de  NVIDIA Corporation\n\t31c2  GB110 [GB300]\n15b3  Mellanox Technologies\n",
    );
    tree
}

fn gb200_on_nodes(nodes: [&str; 4]) -> Tree {
    let mut machine = gb200();
    let gpus: Vec<_> = machine.sockets.iter().flat_map(|socket| socket.gpus.clone()).collect();
    for (gpu, node) in gpus.iter().zip(nodes) {
        machine.tree.file(&format!("{}/numa_node", gpu_path(gpu)), format!("{node}\n"));
        if node == "-1" {
            machine.tree.file(&format!("{}/local_cpulist", gpu_path(gpu)), "0-143\n");
        }
    }
    machine.gpu_list()
}

/// A GPU that the host uses itself: gone from the region's list, and still of its socket.
fn gpu_bound_elsewhere() -> Tree {
    let mut machine = gb200();
    let gpu = machine.sockets[0].gpus.remove(0);
    let mut tree = machine.gpu_list();
    tree.link(&format!("{}/driver", gpu_path(gpu)), "sys/bus/pci/drivers/nvidia");
    tree
}

/// Regions whose shares are 1 MiB and 1.75 MiB beyond a multiple of 2 MiB, and a device with an odd name.
fn odd_sizes() -> Tree {
    let mut machine = gb200();
    machine.sockets[0].size = GB200_REGION + 2 * MIB;
    machine.sockets[1].size = 7 * MIB / 2;
    let mut tree = machine.gpu_list();
    let uevent = format!("MAJOR={MAJOR}\nMINOR=5\nDEVNAME=it's <egm5>&\n");
    tree.file(&format!("{VIRTUAL}/egm5/uevent"), uevent);
    tree
}

/// Two recordings of one host put together: all of it, and a part of it after a GPU was unbound.
fn gpu_unbound() -> Tree {
    let mut tree = Tree::read(&super::archive("gb200-gpu-list"));
    let later = Tree::read(&super::archive("gb200-gpu-list-one-gpu-unbound"));
    tree.take_from(&later, &[&gpu_path("0008:01:00.0"), VIRTUAL]);
    tree
}

/// Other names of the devices, as udev rules make them.
fn device_links() -> Tree {
    let mut tree = gb200().gpu_list();
    tree.link("dev/grace-egm/by-node/0", "dev/egm4");
    tree.link("dev/grace-egm/by-node/1", "dev/egm5");
    tree
}

/// The same where the GPUs say that they are on nodes of their own: two nodes, one socket.
fn peer_on_own_nodes() -> Tree {
    let mut tree = gpu_bound_elsewhere();
    for (gpu, node) in [("0008:01:00.0", "2"), ("0009:01:00.0", "10")] {
        tree.file(&format!("{}/numa_node", gpu_path(gpu)), format!("{node}\n"));
    }
    tree
}

/// Each GPU of egm4 is named in another way; egm5 has its directory below a bridge, a link that
/// is wrong but whose GPU is there, and a list as a later driver might write it.
fn mixed_ways() -> Tree {
    let mut tree = gb200().gpu_list();
    tree.file(&format!("{VIRTUAL}/egm4/gpu_devices"), "0008:01:00.0\n");
    tree.link(&format!("{}/egm4", gpu_path("0009:01:00.0")), &format!("{VIRTUAL}/egm4"));
    tree.remove_all(&format!("{VIRTUAL}/egm5"));
    let path = "sys/devices/pci0018:00/0018:00:00.0/egm/egm5";
    tree.link("sys/class/egm/egm5", path);
    tree.file(&format!("{path}/dev"), format!("{MAJOR}:5\n"));
    tree.file(&format!("{path}/egm_size"), "479962595328\n");
    tree.raw_link(&format!("{path}/0018:01:00.0"), "../../../gone/0018:01:00.0");
    tree.file(&format!("{path}/gpu_devices"), "00000018:01:00.0, 0019:01:00.0 18:01.0");
    tree
}

/// A kernel that does not list the nodes with CPUs, and one node's CPUs cannot be read: the other
/// socket's node must not be taken for the nearest one.
fn nodes_unreadable() -> Tree {
    let mut tree = gb200_on_nodes(["2", "10", "18", "26"]);
    tree.remove(&format!("{NODES}/has_cpu"));
    tree.file(&format!("{NODES}/node0/cpulist"), "junk\n");
    tree
}

/// What is there in the milliseconds after a region was announced: its attributes come later.
fn just_made() -> Tree {
    let mut tree = gb200().gpu_list();
    for file in ["dev", "egm_size", "gpu_devices"] {
        tree.remove(&format!("{VIRTUAL}/egm5/{file}"));
    }
    tree
}

fn pci_links_no_size() -> Tree {
    let mut tree = gb200().pci_links();
    for region in ["egm4", "egm5"] {
        tree.remove(&format!("{VIRTUAL}/{region}/egm_size"));
    }
    // One GPU is named from its own directory only.
    tree.remove(&format!("{VIRTUAL}/egm5/0019:01:00.0"));
    tree
}

/// A host whose only domain is 0, with a GPU at the address that 0009:01:00.0 is often
/// mistaken for.
fn one_domain() -> Tree {
    let socket = Socket {
        region: "egm0",
        size: 66 * 1024 * MIB,
        cpus: "0-71",
        memory_kib: 100_663_296,
        gpus: vec!["0000:09:01.0"],
    };
    Machine::new(vec![socket], 8, 0, "0x2342").standalone()
}

/// Domains of more than four digits.
fn wide_domain() -> Tree {
    let socket = Socket {
        region: "egm10",
        size: 66 * 1024 * MIB,
        cpus: "0-71",
        memory_kib: 100_663_296,
        gpus: vec!["10000:e1:00.0", "10001:01:1f.7"],
    };
    Machine::new(vec![socket], 16, 0, "0x3041").gpu_list()
}

fn class_empty() -> Tree {
    let mut tree = gb200().tree;
    tree.directory("sys/class/egm");
    tree
}

fn no_egm() -> Tree {
    let mut tree = Tree::default();
    add_node(&mut tree, 0, "0-7", 16_777_216, &[10]);
    add_node_lists(&mut tree, 1, 1);
    tree.directory("sys/bus/pci/devices");
    tree.directory("sys/class");
    tree
}

fn no_sys() -> Tree {
    let mut tree = Tree::default();
    tree.file("proc/version", "Linux version 6.8.0\n");
    tree
}

pub const VIRTUAL: &str = "sys/devices/virtual/egm";
pub const MAJOR: u32 = 510;

/// The kernel's own directory of a GPU.
pub fn gpu_path(gpu: &str) -> String {
    let (domain, _) = gpu.split_once(':').unwrap();
    format!("sys/devices/pci{domain}:00/{domain}:00:00.0/{gpu}")
}

impl Machine {
    /// A host with its sockets, and so many NUMA nodes without CPUs after those of the sockets:
    /// eight each GPU, of which the first holds its memory.
    fn new(sockets: Vec<Socket>, others: usize, gpu_memory_kib: u64, device_id: &str) -> Self {
        let mut tree = Tree::default();
        let count = sockets.len() + others;
        for (id, socket) in sockets.iter().enumerate() {
            let distances: Vec<_> = (0..count).map(|to| distance(&sockets, id, to)).collect();
            add_node(&mut tree, id, socket.cpus, socket.memory_kib, &distances);
        }
        for id in sockets.len()..count {
            let distances: Vec<_> = (0..count).map(|to| distance(&sockets, id, to)).collect();
            let first_of_gpu = (id - sockets.len()).is_multiple_of(8);
            let memory = if first_of_gpu { gpu_memory_kib } else { 0 };
            add_node(&mut tree, id, "", memory, &distances);
        }
        add_node_lists(&mut tree, sockets.len(), count);
        let mut group = 79;
        for (node, socket) in sockets.iter().enumerate() {
            for gpu in &socket.gpus {
                let path = gpu_path(gpu);
                let bridge = path.rsplit_once('/').unwrap().0.to_owned();
                let ids = ["0x10de", "0x22b1", "0x060400"];
                add_function(&mut tree, &bridge, ids, "-1", "0-143", Some("pcieport"), None);
                let ids = ["0x10de", device_id, "0x030200"];
                let driver = Some("nvgrace_gpu_vfio_pci");
                let node = node.to_string();
                add_function(&mut tree, &path, ids, &node, socket.cpus, driver, Some(group));
                group += 1;
            }
        }
        let nic = "sys/devices/pci0000:00/0000:00:00.0/0000:03:00.0";
        let ids = ["0x15b3", "0x1021", "0x020700"];
        add_function(&mut tree, nic, ids, "0", sockets[0].cpus, Some("mlx5_core"), Some(12));
        tree.directory("dev");
        processes::add_init(&mut tree);
        tree.file("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nqemu:x:107:107::/:/bin/false\n");
        tree.file("etc/group", "root:x:0:\nkvm:x:36:qemu\n");
        Self { tree, sockets }
    }

    pub fn gpu_list(self) -> Tree {
        self.with_regions(|tree, socket, path| {
            tree.file(&format!("{path}/gpu_devices"), socket.gpus.join("\n") + "\n");
        })
    }

    fn standalone(self) -> Tree {
        self.with_regions(link_gpus)
    }

    pub fn pci_links(self) -> Tree {
        self.with_regions(|tree, socket, path| {
            link_gpus(tree, socket, path);
            for gpu in &socket.gpus {
                tree.link(&format!("{}/{}", gpu_path(gpu), socket.region), path);
            }
        })
    }

    fn aux_per_gpu(self) -> Tree {
        self.with_aux_regions(|tree, socket, aux, _| {
            link_gpus(tree, socket, aux);
            // The other GPUs have an auxiliary device of their own, without a device node.
            for gpu in &socket.gpus[1..] {
                tree.directory(&aux_path(gpu, socket.region));
            }
        })
    }

    fn aux_first_gpu(self) -> Tree {
        self.with_aux_regions(|tree, socket, _, path| link_gpus(tree, socket, path))
    }

    fn with_regions(mut self, add: impl Fn(&mut Tree, &Socket, &str)) -> Tree {
        for socket in &self.sockets {
            let path = format!("{VIRTUAL}/{}", socket.region);
            add_region(&mut self.tree, socket, &path);
            add(&mut self.tree, socket, &path);
        }
        self.tree
    }

    fn with_aux_regions(mut self, add: impl Fn(&mut Tree, &Socket, &str, &str)) -> Tree {
        for socket in &self.sockets {
            let aux = aux_path(socket.gpus[0], socket.region);
            let path = format!("{aux}/egm/{}", socket.region);
            add_region(&mut self.tree, socket, &path);
            self.tree.link(&format!("{path}/device"), &aux);
            add(&mut self.tree, socket, &aux, &path);
        }
        self.tree
    }
}

fn aux_path(gpu: &str, region: &str) -> String {
    format!("{}/nvgrace_gpu_vfio_pci.egm.{}", gpu_path(gpu), &region[3..])
}

fn link_gpus(tree: &mut Tree, socket: &Socket, directory: &str) {
    for gpu in &socket.gpus {
        tree.link(&format!("{directory}/{gpu}"), &gpu_path(gpu));
    }
}

/// What every region has, whatever its driver.
fn add_region(tree: &mut Tree, socket: &Socket, path: &str) {
    let region = socket.region;
    let minor: u32 = region[3..].parse().unwrap();
    tree.link(&format!("sys/class/egm/{region}"), path);
    tree.link(&format!("{path}/subsystem"), "sys/class/egm");
    tree.file(&format!("{path}/dev"), format!("{MAJOR}:{minor}\n"));
    tree.file(&format!("{path}/egm_size"), format!("{:#x}\n", socket.size));
    let uevent = format!("MAJOR={MAJOR}\nMINOR={minor}\nDEVNAME={region}\nDEVMODE=0600\n");
    tree.file(&format!("{path}/uevent"), uevent);
    tree.file(&format!("{path}/power/autosuspend_delay_ms"), "");
    tree.device(&format!("dev/{region}"), (MAJOR, minor), 0o660, (0, 36));
}

pub fn add_function(
    tree: &mut Tree,
    path: &str,
    [vendor, device, class]: [&str; 3],
    node: &str,
    cpus: &str,
    driver: Option<&str>,
    iommu_group: Option<u32>,
) {
    let address = path.rsplit_once('/').unwrap().1;
    for (name, value) in [
        ("vendor", vendor),
        ("device", device),
        ("class", class),
        ("numa_node", node),
        ("local_cpulist", cpus),
    ] {
        tree.file(&format!("{path}/{name}"), format!("{value}\n"));
    }
    tree.link(&format!("sys/bus/pci/devices/{address}"), path);
    if let Some(driver) = driver {
        tree.directory(&format!("sys/bus/pci/drivers/{driver}"));
        tree.link(&format!("{path}/driver"), &format!("sys/bus/pci/drivers/{driver}"));
    }
    if let Some(group) = iommu_group {
        tree.link(&format!("{path}/iommu_group"), &format!("sys/kernel/iommu_groups/{group}"));
        tree.link(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"), path);
    }
}

/// 10 to itself, 11 to the other nodes of the same GPU, 40 between sockets and between GPUs, 80
/// from a GPU to its socket, 120 to another one.
fn distance(sockets: &[Socket], from: usize, to: usize) -> u32 {
    let gpu = |node: usize| node.checked_sub(sockets.len()).map(|other| other / 8);
    let mut sockets_of_gpus = Vec::new();
    for (number, socket) in sockets.iter().enumerate() {
        sockets_of_gpus.extend(socket.gpus.iter().map(|_| number));
    }
    match (gpu(from), gpu(to)) {
        _ if from == to => 10,
        (None, None) => 40,
        (Some(one), Some(other)) => {
            if one == other {
                11
            } else {
                40
            }
        }
        (Some(gpu), None) | (None, Some(gpu)) => {
            let socket = from.min(to);
            if sockets_of_gpus.get(gpu) == Some(&socket) { 80 } else { 120 }
        }
    }
}

pub const NODES: &str = "sys/devices/system/node";

pub fn add_node(tree: &mut Tree, id: usize, cpus: &str, memory_kib: u64, distances: &[u32]) {
    let path = format!("{NODES}/node{id}");
    tree.file(&format!("{path}/cpulist"), format!("{cpus}\n"));
    let meminfo = format!("Node {id} MemTotal:       {memory_kib} kB\nNode {id} MemFree: 0 kB\n");
    tree.file(&format!("{path}/meminfo"), meminfo);
    let distances: Vec<_> = distances.iter().map(ToString::to_string).collect();
    tree.file(&format!("{path}/distance"), distances.join(" ") + "\n");
}

fn add_node_lists(tree: &mut Tree, with_cpus: usize, count: usize) {
    let range = |end: usize| {
        if end == 1 { "0\n".into() } else { format!("0-{}\n", end - 1) }
    };
    tree.file(&format!("{NODES}/online"), range(count));
    tree.file(&format!("{NODES}/has_cpu"), range(with_cpus));
}
