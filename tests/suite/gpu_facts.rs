//! Facts of a host's GPUs that a guest needs: BARs, PCIe link, SMMU, own NUMA nodes, and whether
//! there is `/dev/iommu`.

use egm_probe::capture::Capture;
use egm_probe::host::{Gpu, Host, LinkSpeed, Needs};
use egm_probe::sysroot::Sysroot;
use egm_probe::values::Bytes;

use crate::support::tree::Tree;
use crate::support::{machine, machines};

/// The GPU whose files are changed.
const GPU: &str = "0019:01:00.0";
const FUNCTION: &str = "sys/devices/pci0019:00/0019:00:00.0/0019:01:00.0";
const INITIATORS: &str = "sys/devices/system/node/has_generic_initiator";

fn gb200() -> Tree {
    Tree::read(&machine("gb200-full-gpu-list"))
}

fn read(tree: &Tree, needs: Needs) -> Host {
    Host::read(&Sysroot::from_tar(&tree.tar()[..]).unwrap(), needs)
}

fn gpu(host: &Host) -> Gpu {
    host.gpu(GPU.parse().unwrap()).unwrap().0.clone()
}

/// The own nodes of every GPU, in order of their addresses.
fn own_nodes(host: &Host) -> Vec<Option<String>> {
    let mut gpus: Vec<_> = host.gpus().map(|(gpu, _)| gpu).collect();
    gpus.sort_by_key(|gpu| gpu.address);
    gpus.iter().map(|gpu| gpu.own_nodes.as_ref().map(ToString::to_string)).collect()
}

#[test]
fn every_fact_is_read() {
    let host = read(&gb200(), Needs::all());
    let gpu = gpu(&host);
    assert_eq!(gpu.smmu.as_deref(), Some("smmu3.0x0000100012000000"));
    let bars: Vec<_> = gpu.bars.unwrap().iter().map(|bar| (bar.index, bar.size)).collect();
    assert_eq!(bars, [(0, Bytes(16 << 20)), (2, Bytes(256 << 30)), (4, Bytes(32 << 20))]);
    assert_eq!((gpu.link.speed, gpu.link.width), (Some(LinkSpeed::Gen4), Some(1)));
    assert_eq!(gpu.own_nodes.unwrap().to_string(), "26-33");
    assert_eq!(host.iommufd, Some(true));
    assert_eq!(gpu.warnings, []);
}

#[test]
fn facts_that_are_not_needed_are_not_read() {
    let host = read(&gb200(), Needs::OTHER_GPUS);
    let gpu = gpu(&host);
    assert_eq!((gpu.smmu, gpu.bars, gpu.own_nodes), (None, None, None));
    assert_eq!((gpu.link.speed, gpu.link.width, host.iommufd), (None, None, None));
}

#[test]
fn missing_files_are_unknown_without_a_warning() {
    let mut tree = gb200();
    for name in ["resource", "max_link_speed", "max_link_width", "iommu"] {
        tree.remove(&format!("{FUNCTION}/{name}"));
    }
    let gpu = gpu(&read(&tree, Needs::all()));
    assert_eq!((gpu.smmu, gpu.bars, gpu.link.speed, gpu.link.width), (None, None, None, None));
    assert_eq!(gpu.warnings, []);
}

#[test]
fn unusable_files_are_unknown_with_a_warning() {
    let number = "9".repeat(4000);
    for (name, content) in [
        ("resource", ""),
        ("resource", "0x0 0x0 0x0\n"),
        ("resource", &*format!("0x0 0x{number} 0x200\n").repeat(7)),
        ("resource", "\x1b[2J\u{202e}\n"),
        ("max_link_speed", &*format!("{number} GT/s PCIe\n")),
        ("max_link_width", &*number),
    ] {
        let mut tree = gb200();
        tree.file(&format!("{FUNCTION}/{name}"), content);
        let gpu = gpu(&read(&tree, Needs::all()));
        let [warning] = &gpu.warnings[..] else { panic!("{name}: {:?}", gpu.warnings) };
        let warning = warning.to_string();
        assert!(warning.contains(name) && warning.len() < 400, "{warning}");
        assert!(!warning.contains(char::is_control), "{warning:?}");
        let is_unknown = match name {
            "resource" => gpu.bars.is_none(),
            "max_link_speed" => gpu.link.speed.is_none(),
            _ => gpu.link.width.is_none(),
        };
        assert!(is_unknown, "{name}");
    }
}

#[test]
fn an_smmu_needs_a_name() {
    for target in ["..", "/", "../../.."] {
        let mut tree = gb200();
        tree.raw_link(&format!("{FUNCTION}/iommu"), target);
        let gpu = gpu(&read(&tree, Needs::all()));
        assert_eq!(gpu.smmu, None, "{target}");
        assert_eq!(gpu.warnings.len(), 1, "{target}: {:?}", gpu.warnings);
    }
    let mut tree = gb200();
    tree.remove(&format!("{FUNCTION}/iommu"));
    tree.file(&format!("{FUNCTION}/iommu"), "smmu3.0x0000000011000000");
    let gpu = gpu(&read(&tree, Needs::all()));
    assert_eq!((gpu.smmu, gpu.warnings.len()), (None, 1));
}

#[test]
fn own_nodes_are_unknown_unless_the_numbers_match() {
    let known = ["2-9", "10-17", "18-25", "26-33"].map(|nodes| Some(nodes.to_owned()));
    assert_eq!(own_nodes(&read(&gb200(), Needs::all())), known);
    for list in ["2-32", "2-34", "2-9", "", "garbage", "0-4294967295", "2-99999999999"] {
        let mut tree = gb200();
        tree.file(INITIATORS, list);
        assert_eq!(own_nodes(&read(&tree, Needs::all())), [const { None }; 4], "{list}");
    }
    let mut tree = gb200();
    tree.remove(INITIATORS);
    assert_eq!(own_nodes(&read(&tree, Needs::all())), [const { None }; 4]);
}

#[test]
fn own_nodes_are_unknown_if_any_gpu_is() {
    // With or without the other GPUs in the result, all have to be counted.
    for needs in [Needs::OWN_NODES, Needs::OWN_NODES | Needs::OTHER_GPUS] {
        let mut tree = gb200();
        tree.file("sys/devices/virtual/egm/egm5/gpu_devices", "0018:01:00.0\n");
        let known = own_nodes(&read(&tree, needs));
        assert_eq!(known.iter().flatten().count(), known.len(), "{known:?}");
        assert_eq!(known[0].as_deref(), Some("2-9"));

        let is_unknown = |tree: &Tree| own_nodes(&read(tree, needs)).iter().all(Option::is_none);
        for (file, content) in [
            // Enough nodes for the GPUs of the regions only.
            (INITIATORS, "2-25"),
            (&*format!("{FUNCTION}/device"), "garbage"),
            (&*format!("{FUNCTION}/vendor"), "garbage"),
            (&*format!("{FUNCTION}/class"), "garbage"),
            ("sys/devices/pci0000:00/0000:00:00.0/0000:03:00.0/vendor", "garbage"),
            // A node of the second GPU.
            ("sys/devices/pci0008:00/0008:00:00.0/0008:01:00.0/numa_node", "10"),
        ] {
            let mut tree = tree.clone();
            tree.file(file, content);
            assert!(is_unknown(&tree), "{file}: {content}");
        }
        let mut tree = tree.clone();
        tree.remove_all("sys/bus/pci/devices/0019:01:00.0");
        assert!(is_unknown(&tree));
    }
}

#[test]
fn a_gpu_of_another_kind_has_no_own_nodes() {
    let mut tree = gb200();
    // An H100.
    tree.file(&format!("{FUNCTION}/device"), "0x2330\n");
    tree.file(INITIATORS, "2-25\n");
    let nodes = own_nodes(&read(&tree, Needs::all()));
    let nodes: Vec<_> = nodes.iter().map(Option::as_deref).collect();
    assert_eq!(nodes, [Some("2-9"), Some("10-17"), Some("18-25"), None]);
}

#[test]
fn iommufd_is_a_device_node() {
    let with = |change: &dyn Fn(&mut Tree)| {
        let mut tree = gb200();
        change(&mut tree);
        read(&tree, Needs::IOMMUFD).iommufd
    };
    assert_eq!(with(&|_| {}), Some(true));
    assert_eq!(with(&|tree| tree.remove("dev/iommu")), Some(false));
    assert_eq!(with(&|tree| tree.file("dev/iommu", "")), Some(false));
    assert_eq!(with(&|tree| tree.remove_all("dev")), None);
}

#[test]
fn captures_keep_the_facts() {
    let facts = |host: &Host| {
        let gpus = host.gpus().map(|(gpu, _)| gpu.clone());
        let facts = gpus.map(|gpu| (gpu.smmu, gpu.bars, gpu.link, gpu.own_nodes, gpu.warnings));
        (facts.collect::<Vec<_>>(), host.iommufd)
    };
    let mut hosts = vec![gb200(); 3];
    hosts[1].remove("dev/iommu");
    hosts[1].raw_link(&format!("{FUNCTION}/iommu"), "/");
    hosts[1].file(&format!("{FUNCTION}/resource"), "garbage");
    hosts[2].remove_all("dev");
    hosts[2].remove(INITIATORS);
    let mut iommufd = Vec::new();
    for host in hosts {
        let root = Sysroot::from_tar(&host.tar()[..]).unwrap();
        let first = Capture::take(&root, true).unwrap();
        assert_eq!(first.difference, None);
        let replayed = Sysroot::from_tar(&first.bytes[..]).unwrap();
        let host = Host::read(&root, Needs::all());
        assert_eq!(facts(&Host::read(&replayed, Needs::all())), facts(&host));
        assert!(Capture::take(&replayed, true).unwrap().bytes == first.bytes);
        iommufd.push(host.iommufd);
    }
    assert_eq!(iommufd, [Some(true), Some(false), None]);
}

/// Captures by older versions have no facts that these did not read.
#[test]
fn older_captures_do_not_say_whether_iommufd_exists() {
    let is_archive = |name: &String| machine(name).is_file();
    let archives: Vec<_> = machines().into_iter().filter(is_archive).collect();
    assert!(!archives.is_empty());
    for name in archives {
        let root = Sysroot::capture(&machine(&name)).unwrap();
        assert_eq!(Host::read(&root, Needs::all()).iommufd, None, "{name}");
        let again = Capture::take(&root, true).unwrap();
        let again = Sysroot::from_tar(&again.bytes[..]).unwrap();
        assert_eq!(Host::read(&again, Needs::all()).iommufd, None, "{name}");
    }
}

/// A GPU with the VFIO device `vfio7`.
fn with_vfio_device() -> Tree {
    let mut tree = gb200();
    tree.file(&format!("{FUNCTION}/vfio-dev/vfio7/dev"), "511:7\n");
    tree
}

#[test]
fn a_vfio_device_is_one_with_a_number() {
    let device = |tree: &Tree| gpu(&read(tree, Needs::VFIO)).vfio_device;
    assert_eq!(device(&with_vfio_device()).as_deref(), Some("vfio7"));
    assert_eq!(gpu(&read(&with_vfio_device(), Needs::GPU_DETAILS)).vfio_device, None);
    assert_eq!(device(&gb200()), None);
    for name in ["vfio", "vfio-7", "vfio7x", "vfio07\u{202e}", "null"] {
        let mut tree = gb200();
        tree.file(&format!("{FUNCTION}/vfio-dev/{name}/dev"), "511:7\n");
        assert_eq!(device(&tree), None, "{name}");
    }
    // The kernel was built without device nodes for them.
    let mut tree = gb200();
    tree.directory(&format!("{FUNCTION}/vfio-dev/vfio7"));
    assert_eq!(device(&tree), None);
}

#[test]
fn a_capture_has_the_vfio_devices() {
    let root = Sysroot::from_tar(&with_vfio_device().tar()[..]).unwrap();
    let capture = Capture::take(&root, false).unwrap();
    assert_eq!(capture.difference, None);
    let replayed = Host::read(&Sysroot::from_tar(&capture.bytes[..]).unwrap(), Needs::all());
    assert_eq!(gpu(&replayed).vfio_device.as_deref(), Some("vfio7"));
}
