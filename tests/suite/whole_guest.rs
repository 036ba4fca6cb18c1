//! `stanza --complete`: the whole Grace guest.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use egm_probe::domain::{Bus, Domain, PciMachine};
use serde_json::Value;

use crate::stanza::{fed, fixture, printed, replaced, stanza, text};
use crate::support;
use crate::support::domains::{domains, stem};

const NEW: [&str; 6] = ["--all", "--complete", "--name", "vm1", "--vcpus", "16"];

/// The output and the messages of a run that must succeed.
fn run(machine: &str, args: &[&str], domain: Option<&str>) -> (String, String) {
    let output = match domain {
        Some(domain) => {
            let args = [args, &["--domain", "-"]].concat();
            fed(&mut stanza(machine, &args), domain.as_bytes())
        }
        None => stanza(machine, args).output().unwrap(),
    };
    assert!(output.status.success(), "{machine} {args:?}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

fn complete(domain: &str) -> (String, String) {
    run("gb200-full-gpu-list", &["--all", "--complete"], Some(domain))
}

/// The cell of each expander bus in order of index, and the index of its only SMMU.
fn buses(domain: &Domain) -> Vec<(u32, u32)> {
    let machine = PciMachine::of(domain);
    let smmus = machine.iommus_by_bus();
    let expanders = machine.controllers().iter().filter(|it| it.target.bus_nr.is_some());
    let mut buses: Vec<_> = expanders
        .map(|it| {
            let index = it.index.as_ref().unwrap().value.unwrap();
            assert_eq!(smmus[&Bus::Index(index)].len(), 1, "bus {index}");
            (index, it.target.node.as_ref().unwrap().value.unwrap())
        })
        .collect();
    buses.sort_unstable();
    buses
}

/// Checks that nothing of the machine collides.
pub(crate) fn check_numbers(domain: &Domain) {
    let machine = PciMachine::of(domain);
    let mut indexes = BTreeSet::new();
    let mut chassis = BTreeSet::new();
    let mut buses = BTreeSet::new();
    for controller in machine.controllers() {
        let index = controller.index.as_ref().and_then(|index| index.value).unwrap();
        assert!(indexes.insert(index), "index {index}");
        let own = controller.target.chassis.as_ref().and_then(|it| it.value);
        let is_port = controller.model.as_ref().is_some_and(|it| it.text == "pcie-root-port");
        // libvirt's default is the index.
        let own = own.map_or_else(|| is_port.then_some(index), |own| Some(u32::from(own)));
        assert!(own.is_none_or(|own| chassis.insert(own)), "chassis of {index}");
        if let Some(first) = controller.target.bus_nr.as_ref().and_then(|it| it.value) {
            let on = |it: &&egm_probe::domain::PciController| {
                it.address.as_ref().and_then(egm_probe::domain::GuestAddress::on_bus)
                    == Some(Bus::Index(index))
            };
            let ports = machine.controllers().iter().filter(on).count();
            for number in usize::from(first)..=usize::from(first) + ports {
                assert!(buses.insert(number), "bus number {number}");
            }
        }
    }
    for (bus, slots) in machine.occupied() {
        for (slot, devices) in slots {
            let is_one = devices.len() == 1 || devices[0].address.multifunction.is_some();
            assert!(is_one, "{bus:?} slot {slot}: {devices:?}");
        }
    }
}

#[test]
fn a_new_domain_is_complete() {
    for (machine, nodes, nodesets, hole) in [
        ("gb200-full-gpu-list", &[0, 0, 1, 1][..], "2-9 10-17 18-25 26-33", 4_u64),
        ("gb300-gpu-list", &[0, 0, 1, 1], "2-9 10-17 18-25 26-33", 8),
        ("gh200-full", &[0], "1-8", 4),
        ("gh200-quad", &[0, 1, 2, 3], "4-11 12-19 20-27 28-35", 4),
    ] {
        let (xml, messages) = run(machine, &NEW, None);
        assert_eq!(messages, "", "{machine}");
        let domain = Domain::parse(&xml).unwrap();
        check_numbers(&domain);
        let cells = u32::try_from(domain.cells.len()).unwrap();
        let sockets = nodes.last().unwrap() + 1;
        assert_eq!(cells as usize, sockets as usize + 8 * nodes.len(), "{machine}");
        let expected: Vec<_> = (0..).map(|bus| 2 * bus + 1).zip(nodes.iter().copied()).collect();
        assert_eq!(buses(&domain), expected, "{machine}");
        let hostdevs = domain.hostdevs.iter();
        let of_gpus: Vec<_> = hostdevs.map(|it| it.cells.as_ref().unwrap().text.clone()).collect();
        assert_eq!(of_gpus.join(" "), nodesets, "{machine}");
        let pci = PciMachine::of(&domain);
        assert_eq!(pci.hole().unwrap().value.unwrap().0, hole << 40, "{machine}");
        for (hostdev, (bus, _)) in domain.hostdevs.iter().zip(&expected) {
            let place = hostdev.guest.as_ref().unwrap().place().unwrap();
            assert_eq!(pci.root_of(&place.bus), Some(Bus::Index(*bus)));
            assert_eq!((place.slot, pci.iommufd(hostdev).unwrap().value), (0, Some(true)));
        }
        for cell in &domain.cells {
            let to: Vec<_> = cell.distances.iter().map(|it| it.cell.as_ref()?.value).collect();
            assert_eq!(to, (0..cells).map(Some).collect::<Vec<_>>(), "{machine}");
        }
        assert_eq!(domain.pins.len(), 16, "{machine}");
        let (again, messages) = run(machine, &["--all", "--complete"], Some(&xml));
        assert_eq!((again == xml, messages.as_str()), (true, ""), "{machine}: a second run");
        let args = ["validate", "--strict", "-"];
        let mut validate = std::process::Command::new(env!("CARGO_BIN_EXE_egm-probe"));
        validate.arg("--from").arg(support::machine(machine)).args(args);
        let output = fed(&mut validate, xml.as_bytes());
        assert!(output.status.success(), "{machine}: {}", text(&output.stdout));
    }
}

#[test]
fn virtual_cpus_are_pinned_to_their_socket() {
    let args = ["--all", "--complete", "--name", "vm1", "--vcpus"];
    let (xml, _) = run("gb200-full-gpu-list", &[&args[..], &["120"]].concat(), None);
    let domain = Domain::parse(&xml).unwrap();
    let pins: Vec<u32> = domain.pins.iter().map(|pin| pin.cpus.text.parse().unwrap()).collect();
    let expected: Vec<u32> = (12..72).chain(84..144).collect();
    assert_eq!(pins, expected, "12 CPUs of each socket are left to the host");
    let (xml, messages) = run("gb200-full-gpu-list", &[&args[..], &["144"]].concat(), None);
    assert!(Domain::parse(&xml).unwrap().pins.is_empty());
    let problem = "72 virtual CPUs are not pinned: NUMA node 0 has 71 free CPUs";
    assert!(messages.contains(problem), "{messages}");
}

/// The codes of the findings in a domain, without notes and those about the incomplete guest.
pub(crate) fn codes(machine: &str, domain: &str) -> BTreeSet<String> {
    let mut validate = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
    validate.arg("--from").arg(support::machine(machine));
    validate.args(["validate", "--json", "--allow", "EGM201", "-"]);
    let output = fed(&mut validate, domain.as_bytes());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = json["files"][0]["findings"].as_array().unwrap().iter();
    let findings = findings.filter(|finding| finding["severity"] != "note");
    findings.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

/// The lines of a domain that may change: memory, and empty tags of the first bus and the CPU.
fn may_change(line: &str) -> bool {
    const STARTS: [&str; 5] =
        ["<memory ", "<memory>", "<currentMemory>", "<controller type='pci' index='0'", "<cpu "];
    STARTS.iter().any(|start| line.trim_start().starts_with(start))
}

#[test]
fn the_rest_of_a_domain_is_unchanged() {
    // The lines of the GPUs' own ports and buses change as well.
    let of_gpus = ["<address type='pci'", "<driver name='vfio'/>"];
    for (name, changed) in [
        ("virt-install", &[][..]),
        ("pinned-crlf", &[]),
        ("plain-ports", &of_gpus),
        ("own-buses", &["<target busNr='32'/>"]),
    ] {
        let old = fixture(&format!("stanza/{name}.xml"));
        let (new, _) = complete(&old);
        check_numbers(&Domain::parse(&new).unwrap());
        assert_eq!(complete(&new).0, new, "{name}: a second run");
        let mut left = new.split_inclusive('\n');
        let is_gpu = |line: &str| changed.iter().any(|part| line.contains(part));
        for line in old.split_inclusive('\n').filter(|line| !may_change(line) && !is_gpu(line)) {
            assert!(left.any(|kept| kept == line), "{name}: {line:?} is missing from\n{new}");
        }
        let aliases = new.split("<alias name='").skip(1).map(|rest| rest.split('\'').next());
        let aliases: Vec<_> = aliases.collect();
        assert_eq!(aliases.iter().collect::<BTreeSet<_>>().len(), aliases.len(), "{aliases:?}");
        assert!(codes("gb200-full-gpu-list", &new).is_subset(&BTreeSet::from(["EGM216".into()])));
        assert_eq!(old.contains('\r'), new.split_inclusive('\n').all(|it| it.ends_with("\r\n")));
    }
}

#[test]
fn every_good_domain_becomes_a_whole_guest() {
    let mut tried = 0;
    for path in domains("good") {
        let machine = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        let old = fs::read_to_string(&path).unwrap();
        if stem(&path) == "running" || machine == "no-host" {
            continue;
        }
        let complete =
            |domain: &str| run(machine, &["--all", "--complete", "--force"], Some(domain)).0;
        let new = complete(&old);
        assert_eq!(complete(&new), new, "{}: a second run", path.display());
        check_numbers(&Domain::parse(&new).unwrap());
        // Only what the domain had and must be replaced on request is left.
        let mut left = codes(machine, &new);
        left.retain(|code| !["EGM023", "EGM213"].contains(&code.as_str()));
        assert!(left.is_empty(), "{}: {left:?}", path.display());
        tried += 1;
    }
    assert!(tried > 40, "{tried}");
}

#[test]
fn the_id_size_is_spelled_as_in_the_target_libvirt() {
    for (dialect, spelling) in [
        ("nvidia-12.4", "ssidSize='20'"),
        ("nvidia-11.9", "pasid='on'"),
        ("upstream", "ssidsize='20'"),
    ] {
        let args = ["--all", "--with", "pci", "--libvirt", dialect];
        let (xml, _) = run("gh200-full", &args, None);
        let driver =
            format!("<driver pciBus='1' accel='on' ats='on' ril='off' {spelling} oas='48'/>");
        assert!(xml.contains(&driver), "{dialect}: {xml}");
    }
}

#[test]
fn gpus_on_plain_root_ports_are_moved() {
    let (xml, messages) = complete(&fixture("stanza/plain-ports.xml"));
    let domain = Domain::parse(&xml).unwrap();
    check_numbers(&domain);
    assert_eq!(buses(&domain), [(3, 0), (5, 0), (7, 1), (9, 1)]);
    for (gpu, port) in [("0008:01:00.0", 4), ("0009:01:00.0", 6)] {
        let note = format!(
            "egm-probe: note: {gpu} moves to an expander bus: controller {port} becomes its root port"
        );
        assert!(messages.contains(&note), "{messages}");
        let hostdev = domain.hostdev(gpu.parse().unwrap()).unwrap();
        assert_eq!(hostdev.guest.as_ref().unwrap().on_bus(), Some(Bus::Index(port)));
    }
    assert_eq!(domain.hostdevs[0].managed.as_ref().unwrap().value, Some(false), "kept");
    let (again, messages) = complete(&xml);
    assert_eq!((again == xml, messages.as_str()), (true, ""));
}

#[test]
fn existing_buses_are_kept() {
    let old = fixture("stanza/own-buses.xml");
    let (xml, messages) = complete(&old);
    let kept = "CPU mode is `host-model`, expected `host-passthrough` (EGM216)";
    assert!(messages.lines().count() == 1 && messages.contains(kept), "{messages}");
    let domain = Domain::parse(&xml).unwrap();
    check_numbers(&domain);
    let gpu = domain.hostdev("0008:01:00.0".parse().unwrap()).unwrap();
    assert_eq!(gpu.guest.as_ref().unwrap().on_bus(), Some(Bus::Index(6)));
    let machine = PciMachine::of(&domain);
    let node = machine.controller(&Bus::Index(5)).unwrap().target.node.as_ref();
    assert_eq!(node.unwrap().value, Some(0), "the bus had no cell");
    for kept in [
        "<pcihole64 unit='TiB'>8</pcihole64>",
        "<driver pciBus='5' accel='on' ats='off'/>",
        "<memballoon model='virtio'/>",
        "<vcpupin vcpu='0' cpuset='71'/>",
        "<cpu mode='host-model'>",
    ] {
        assert!(xml.contains(kept), "{kept} is not in {xml}");
    }
    assert_eq!(domain.pins.len(), 8);
    let cpus: BTreeSet<_> = domain.pins.iter().map(|pin| &pin.cpus.text).collect();
    assert_eq!(cpus.len(), 8, "no CPU of the host is used twice");
    assert_eq!(complete(&xml).0, xml, "a second run");

    let args = ["--all", "--complete", "--replace"];
    let (replaced, _) = run("gb200-full-gpu-list", &args, Some(&xml));
    for new in [
        "<pcihole64 unit='TiB'>8</pcihole64>",
        "<driver pciBus='5' accel='on' ats='on' ril='off' ssidSize='20' oas='48'/>",
        "<memballoon model='none'/>",
        "<vcpupin vcpu='0' cpuset='68'/>",
        "<cpu mode='host-passthrough'>",
    ] {
        assert!(replaced.contains(new), "{new} is not in {replaced}");
    }
}

#[test]
fn an_address_that_was_chosen_is_replaced_only_on_request() {
    let old = fixture("stanza/plain-ports.xml");
    let on_first_bus = replaced(
        &old,
        &[(
            "<address type='pci' domain='0x0000' bus='0x02' slot='0x00'",
            "<address type='pci' domain='0x0000' bus='0x00' slot='0x09'",
        )],
    );
    let args = ["--all", "--complete", "--domain", "-"];
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), on_first_bus.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("0009:01:00.0 is on a bus of the domain that is neither")
    );
    let args = ["--all", "--complete", "--replace"];
    let (xml, _) = run("gb200-full-gpu-list", &args, Some(&on_first_bus));
    assert_eq!(buses(&Domain::parse(&xml).unwrap()), [(3, 0), (5, 0), (7, 1), (9, 1)]);
}

#[test]
fn an_smmu_for_the_whole_machine_is_removed_only_on_request() {
    let old = fixture("stanza/plain-ports.xml");
    let whole = "\n    <iommu model='smmuv3'/>";
    let old = old.replace("\n  </devices>", &format!("{whole}\n  </devices>"));
    let old =
        old.replace("<vcpu", "<memoryBacking>\n    <hugepages/>\n  </memoryBacking>\n  <vcpu");
    let args = ["--all", "--complete", "--domain", "-"];
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), old.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("the domain has an IOMMU for the whole machine"));
    let (xml, _) = run("gb200-full-gpu-list", &["--all", "--complete", "--replace"], Some(&old));
    let domain = Domain::parse(&xml).unwrap();
    assert!(
        domain.iommus.len() == 4 && !xml.contains(whole) && !xml.contains("hugepages"),
        "{xml}"
    );
    assert!(!xml.contains("\n\n"), "no empty line is left: {xml}");
}

#[test]
fn an_unused_bus_of_the_domain_is_used() {
    // Without the <hostdev> of a GPU, its bus has no device.
    let (xml, _) = run("gh200-full", &NEW, None);
    let (start, end) = (xml.find("    <hostdev").unwrap(), xml.find("</hostdev>\n").unwrap() + 11);
    let without = format!("{}{}", &xml[..start], &xml[end..]);
    let (again, messages) = run("gh200-full", &["--all", "--complete"], Some(&without));
    let domain = Domain::parse(&again).unwrap();
    assert_eq!((buses(&domain), messages.as_str()), (vec![(1, 0)], ""));
    assert_eq!(domain.hostdevs[0].guest.as_ref().unwrap().on_bus(), Some(Bus::Index(2)));
}

#[test]
fn gpus_behind_one_smmu_can_share_a_bus() {
    let (xml, _) = run("gb200-shared-smmu", &[&NEW[..], &["--smmu", "shared"]].concat(), None);
    let domain = Domain::parse(&xml).unwrap();
    check_numbers(&domain);
    assert_eq!(buses(&domain), [(1, 0), (4, 1)]);
    let machine = PciMachine::of(&domain);
    for (hostdev, bus) in domain.hostdevs.iter().zip([1, 1, 4, 4]) {
        let own = hostdev.guest.as_ref().unwrap().on_bus().unwrap();
        assert_eq!(machine.root_of(&own), Some(Bus::Index(bus)));
    }
    let (again, _) =
        run("gb200-shared-smmu", &["--all", "--complete", "--smmu", "shared"], Some(&xml));
    assert_eq!(again, xml, "a second run");
}

#[test]
fn other_functions_get_a_bus_near_to_their_cell() {
    let args = [&NEW[..], &["--device", "0000:03:00.0=1", "--managed", "no"]].concat();
    let (xml, _) = run("gb200-full-gpu-list", &args, None);
    let domain = Domain::parse(&xml).unwrap();
    check_numbers(&domain);
    assert_eq!(buses(&domain).last(), Some(&(9, 1)));
    let device = domain.hostdev("0000:03:00.0".parse().unwrap()).unwrap();
    assert_eq!(device.guest.as_ref().unwrap().on_bus(), Some(Bus::Index(10)));
    assert!(device.cells.is_none() && device.alias.is_none());
    assert!(domain.hostdevs.iter().all(|it| it.managed.as_ref().unwrap().value == Some(false)));
    let args = [&NEW[..], &["--device", "0000:03:00.0"]].concat();
    let (xml, _) = run("gb200-full-gpu-list", &args, None);
    assert_eq!(buses(&Domain::parse(&xml).unwrap()).last(), Some(&(9, 0)), "that of its node");
    let args = [
        "--region",
        "egm5",
        "--complete",
        "--name",
        "vm1",
        "--vcpus",
        "8",
        "--device",
        "0000:03:00.0",
    ];
    let output = stanza("gb200-full-gpu-list", &args).output().unwrap();
    let problem = "cannot determine the guest NUMA node of 0000:03:00.0";
    assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    for (device, problem) in [
        ("0000:04:00.0=0", "no PCI function 0000:04:00.0 on this host"),
        ("0000:03:00.0=99", "no guest NUMA node 99"),
    ] {
        let args = [&NEW[..], &["--device", device]].concat();
        let output = stanza("gb200-full-gpu-list", &args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{device}");
        assert!(text(&output.stderr).contains(problem), "{}", text(&output.stderr));
    }
}

#[test]
fn a_new_domain_needs_a_name_and_cpus() {
    for args in [
        &["--all", "--complete"][..],
        &["--all", "--complete", "--name", "vm1"],
        &["--all", "--complete", "--vcpus", "8"],
        &["--all", "--name", "vm1", "--vcpus", "8"],
        &["--all", "--complete", "--name", "a/b", "--vcpus", "8"],
        &["--all", "--complete", "--name", "vm1", "--vcpus", "8", "--domain", "-"],
        &["--all", "--with", "distances"],
        &["--all", "--distances", "grace"],
        &["--all", "--smmu", "shared"],
        &["--all", "--device", "0000:03:00.0"],
    ] {
        assert_eq!(stanza("gh200-full", args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
    let name = ["--all", "--complete", "--name", "a & <b>", "--vcpus", "8"];
    assert_eq!(Domain::parse(&printed(&name)).unwrap().name, "a & <b>");
}

#[test]
fn the_arguments_for_qemu_have_the_buses_and_devices() {
    let args = ["--format", "qemu-args", "--device", "0000:03:00.0=0", "--libvirt"];
    let of = |dialect| {
        let args = [&NEW[..], &args, &[dialect]].concat();
        let (lines, _) = run("gb200-full-gpu-list", &args, None);
        let words: Vec<_> = lines.lines().map(str::to_owned).collect();
        words.chunks(2).map(|pair| pair.join(" ")).collect::<Vec<_>>()
    };
    let arguments = of("nvidia-12.4");
    assert_eq!(
        arguments[0],
        "-machine virt,usb=off,gic-version=3,acpi=on,highmem-mmio-size=4294967296K"
    );
    let position = |argument: &str| {
        let found = arguments.iter().position(|it| it == argument);
        found.unwrap_or_else(|| panic!("{argument} is not in\n{}", arguments.join("\n")))
    };
    // The order of libvirt: nodes, controllers by index, SMMUs, iommufd, devices.
    let places: Vec<_> = [
        "-smp 16,sockets=2,dies=1,clusters=1,cores=8,threads=1",
        "-numa node,nodeid=33",
        "-numa dist,src=33,dst=33,val=10",
        r#"-device {"driver":"pxb-pcie","bus_nr":32,"id":"pci.1","numa_node":0,"bus":"pcie.0","addr":"0x1"}"#,
        r#"-device {"driver":"pcie-root-port","port":0,"chassis":2,"id":"pci.2","bus":"pci.1","addr":"0x0"}"#,
        r#"-device {"driver":"pxb-pcie","bus_nr":64,"id":"pci.3","numa_node":0,"bus":"pcie.0","addr":"0x2"}"#,
        r#"-device {"driver":"pcie-root-port","port":0,"chassis":10,"id":"pci.10","bus":"pci.9","addr":"0x0"}"#,
        r#"-device {"driver":"arm-smmuv3","primary-bus":"pci.1","id":"iommu0","accel":true,"ats":"on","ril":"off","ssidsize":"20","oas":"48"}"#,
        r#"-device {"driver":"arm-smmuv3","primary-bus":"pci.9","id":"iommu4","accel":true,"ats":"on","ril":"off","ssidsize":"20","oas":"48"}"#,
        r#"-object {"qom-type":"iommufd","id":"iommufd0"}"#,
        r#"-device {"driver":"vfio-pci","host":"0008:01:00.0","id":"ua-hostdev0","iommufd":"iommufd0","bus":"pci.2","addr":"0x0"}"#,
        r#"-object {"qom-type":"acpi-generic-initiator","id":"gi0","pci-dev":"ua-hostdev0","node":2}"#,
        r#"-device {"driver":"vfio-pci","host":"0000:03:00.0","id":"hostdev0","iommufd":"iommufd0","bus":"pci.10","addr":"0x0"}"#,
    ]
    .map(position)
    .into();
    assert!(places.is_sorted(), "{places:?}");
    let older = of("nvidia-11.9").into_iter().filter(|it| it.contains(r#""pasid":"on","oas""#));
    assert_eq!(older.count(), 5);
}
