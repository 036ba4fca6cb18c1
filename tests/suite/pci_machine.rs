//! The PCI machine of a domain, as a user of the library reads it.

use std::fmt::Debug;
use std::fs;

use egm_probe::domain::{
    Bus, ControllerModel, CpuMode, Domain, GicVersion, GuestPlace, IdSizeName, Origin, PciMachine,
    Value,
};

use crate::support::fixtures;

const MACHINE: &str = include_str!("inputs/machine.xml");

/// The meaning, the text at the place and the origin of a value.
fn shown<T: Debug>(value: Option<&Value<T>>) -> String {
    let Some(value) = value else { return "-".into() };
    let at = &MACHINE[value.span.clone()];
    format!("{:?} {at} {}", value.value, value.origin.name())
}

fn place(place: Option<GuestPlace>) -> Option<(Bus, u8, u8)> {
    place.map(|place| (place.bus, place.slot, place.function))
}

#[test]
fn every_gpu_of_a_grace_guest_is_below_a_bus_with_one_smmu() {
    let text = fs::read_to_string(fixtures().join("domains/grace/gb200.xml")).unwrap();
    let domain = Domain::parse(&text).unwrap();
    let machine = PciMachine::of(&domain);
    let smmus = machine.iommus_by_bus();
    let mut roots = Vec::new();
    for hostdev in &domain.hostdevs {
        let place = hostdev.guest.as_ref().unwrap().place().unwrap();
        let root = machine.root_of(&place.bus).unwrap();
        let [smmu] = smmus[&root][..] else { panic!("{root:?} has several") };
        assert!(smmu.is_smmuv3() && smmu.is_accelerated());
        assert_eq!(smmu.id_size().unwrap().bits.value, Some(20));
        let expander = machine.controller(&root).unwrap();
        assert_eq!(expander.model.as_ref().unwrap().value, Some(ControllerModel::PcieExpanderBus));
        assert_eq!(machine.iommufd(hostdev).and_then(|it| it.value), Some(true));
        assert_eq!(hostdev.managed.as_ref().and_then(|it| it.value), Some(true));
        roots.push(root);
    }
    assert_eq!(roots, [1, 3, 5, 7].map(Bus::Index));
    assert_eq!(machine.hole().and_then(|hole| hole.value).unwrap().0, 4 << 40);
    // Four ports and four GPUs; the expanders have no addresses yet.
    let occupied = machine.occupied();
    assert_eq!(
        occupied.keys().cloned().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6, 7, 8].map(Bus::Index)
    );
    assert_eq!(occupied[&Bus::Index(2)][&0][0].kind, "hostdev");
    assert_eq!(machine.root_of(&Bus::Index(0)), Some(Bus::Index(0)));
    assert_eq!(machine.root_of(&Bus::Index(9)), None);
    assert_eq!(domain.cpu_mode.unwrap().value, Some(CpuMode::HostPassthrough));
    assert_eq!(domain.features.gic_version.unwrap().value, Some(GicVersion::V3));
}

#[test]
fn values_of_elements_are_kept_with_their_places() {
    let domain = Domain::parse(MACHINE).unwrap();
    let [expander, port, .., unknown] = &domain.pci_controllers[..] else { panic!() };
    let disk = &domain.pci_devices.iter().find(|device| device.kind == "disk").unwrap().address;
    let smmu = &domain.iommus[0];
    let sizes: Vec<_> = smmu.id_sizes().collect();
    assert_eq!([sizes[0].name, sizes[1].name], [IdSizeName::Pasid, IdSizeName::SsidSize]);
    let [gpu, nic] = &domain.hostdevs[..] else { panic!() };
    let distances = &domain.cells[0].distances;
    let pages = &domain.backing.pages;
    let topology = domain.topology.as_ref().unwrap();
    for (value, expected) in [
        (shown(expander.index.as_ref()), "Some(1) 1 element"),
        (shown(expander.target.bus_nr.as_ref()), "Some(254) 0xfe element"),
        (shown(expander.target.node.as_ref()), "Some(0) 0 element"),
        (shown(port.model.as_ref()), "Some(PcieRootPort) pcie-root-port element"),
        (shown(port.target.chassis.as_ref()), "None 256 element"),
        (shown(port.target.port.as_ref()), "Some(8) 0x8 element"),
        (shown(port.target.speed.as_ref()), "-"),
        (shown(unknown.model.as_ref()), "None pcie-tree element"),
        (shown(unknown.target.bus_nr.as_ref()), "None 255 element"),
        (shown(disk.slot.as_ref()), "None 0x20 element"),
        (shown(smmu.bus().as_ref()), "None one element"),
        (shown(smmu.switch("accel").as_ref()), "None yes element"),
        (shown(smmu.switch("ats").as_ref()), "-"),
        (shown(Some(&sizes[0].bits)), "Some(20) on element"),
        (shown(Some(&sizes[1].bits)), "None 21 element"),
        (shown(gpu.managed.as_ref()), "Some(true) yes element"),
        (shown(nic.managed.as_ref()), "None maybe element"),
        (shown(gpu.iommufd.as_ref()), "Some(false) no element"),
        (shown(domain.hard_limit.as_ref()), "Some(Bytes(8589934592)) 8 element"),
        (shown(pages[0].size.as_ref()), "Some(Bytes(2097152)) 2 element"),
        (shown(pages[1].size.as_ref()), "None x element"),
        (shown(domain.vcpu_placement.as_ref()), "Some(\"static\") static element"),
        (shown(domain.pins[1].vcpu.as_ref()), "None first element"),
        (shown(domain.features.ras.as_ref()), "None yes element"),
        (shown(distances[1].cell.as_ref()), "Some(1) 1 element"),
        (shown(distances[1].value.as_ref()), "None  element"),
        (shown(distances[2].cell.as_ref()), "-"),
        (shown(Some(&topology.levels[1].1)), "None 4x element"),
    ] {
        assert_eq!(value, expected);
    }
    assert_eq!(topology.cpus, None);
    assert_eq!(nic.guest, None, "the address is that of the source");
    assert_eq!(&MACHINE[domain.backing.locked.clone().unwrap()], "<locked/>");
    let lists = [domain.vcpu_cpus.as_ref().unwrap(), &domain.thread_pins[0]];
    let lists = lists.map(|list| list.value.as_ref().unwrap().to_string());
    assert_eq!(lists, ["0-2,4-71", "0-1"]);
    assert_eq!(&MACHINE[smmu.driver[0].span.clone()], "pciBus='one'");
    // libvirt chooses the address of the interface, and refuses that of the disk.
    let unknown = domain.pci_devices.iter().filter(|device| device.address.place().is_none());
    assert_eq!(unknown.map(|it| it.kind.as_str()).collect::<Vec<_>>(), ["disk", "interface"]);
    let place = place(gpu.guest.as_ref().unwrap().place());
    assert_eq!(place, Some((Bus::Index(2), 0, 0)));
}

#[test]
fn arguments_for_qemu_create_the_same_types() {
    let domain = Domain::parse(MACHINE).unwrap();
    let line = &domain.command_line;
    let [pxb, port] = &line.controllers[..] else { panic!("{line:?}") };
    assert_eq!(pxb.model.as_ref().unwrap().value, Some(ControllerModel::PcieExpanderBus));
    assert_eq!(pxb.target.bus_nr.as_ref().unwrap().value, Some(64));
    assert_eq!(pxb.target.node.as_ref().unwrap().value, Some(1));
    let address = pxb.address.as_ref().unwrap().place();
    assert_eq!(place(address), Some((Bus::Index(0), 16, 0)), "addr is hexadecimal");
    assert_eq!(port.target.chassis.as_ref().unwrap().value, Some(9));
    assert_eq!(port.target.speed.as_ref().unwrap().text, "32");
    assert_eq!(port.address.as_ref().unwrap().place(), None, "QEMU chooses the slot");
    let kinds: Vec<_> = line.devices.iter().map(|device| device.kind.as_str()).collect();
    assert_eq!(kinds, ["pxb-pcie", "pcie-root-port", "vfio-pci"]);
    let host = line.devices[2].host.as_ref().unwrap();
    assert_eq!(host.value.unwrap().to_string(), "0008:01:00.0");
    assert_eq!(line.iommufds[0].text, "iommufd0");

    let machine = PciMachine::of(&domain);
    let root = machine.root_of(&Bus::Name("rp".into())).unwrap();
    assert_eq!(root, Bus::Name("pxb".into()));
    let smmu = machine.iommus_by_bus()[&root][0];
    assert!(smmu.is_smmuv3() && smmu.is_accelerated());
    assert_eq!(smmu.origin, Origin::CommandLine);
    assert_eq!(
        (smmu.oas().unwrap().value, smmu.id_size().unwrap().bits.value),
        (Some(48), Some(20))
    );
    assert_eq!(smmu.switch("ats").map(|ats| (ats.text, ats.value)), Some(("auto".into(), None)));
    assert!(MACHINE[smmu.span.clone()].starts_with("arm-smmuv3,"));
    let hole = machine.hole().unwrap();
    assert_eq!((hole.value.unwrap().0, hole.origin), (8 << 40, Origin::CommandLine));
}

#[test]
fn overrides_replace_what_libvirt_writes() {
    let domain = Domain::parse(MACHINE).unwrap();
    let machine = PciMachine::of(&domain);
    let port = machine.controller(&Bus::Index(2)).unwrap();
    assert_eq!(port.qemu_name().as_deref(), Some("ua-port"));
    assert_eq!(shown(port.target.speed.as_ref()), "Some(\"16\") 16 override");
    assert_eq!(shown(port.target.width.as_ref()), "Some(1) 1 override");
    assert_eq!(port.target.port, None, "it is removed");
    assert_eq!(machine.canonical(&Bus::of_qemu("ua-port")), Bus::Index(2));
    let iommufd = machine.iommufd(&domain.hostdevs[0]);
    assert_eq!(shown(iommufd), "Some(true) iommufd0 override");
    assert_eq!(machine.iommufd(&domain.hostdevs[1]), None);
    let smmu = &machine.iommus()[0];
    assert_eq!(shown(smmu.bus().as_ref()), "Some(Index(1)) pci.1 override");
    assert_eq!(smmu.id_sizes().count(), 1);
    assert_eq!(shown(Some(&smmu.id_size().unwrap().bits)), "Some(16) 16 override");
    // The domain keeps what its elements say.
    assert_eq!(domain.iommus[0].id_sizes().count(), 2);
}

#[test]
fn a_controller_below_itself_has_no_root() {
    let machine = PciMachine::of(&Domain::parse(MACHINE).unwrap());
    for index in [3, 4, 5, 99] {
        assert_eq!(machine.root_of(&Bus::Index(index)), None, "{index}");
    }
    assert_eq!(machine.root_of(&Bus::Index(2)), Some(Bus::Index(1)));
    // A chain of many controllers takes linear time.
    let argument = |text: &str| format!("<qemu:arg value='{text}'/>");
    let arguments = (1..20_000).flat_map(|index| {
        let port = format!("pcie-root-port,id=p{index},bus=p{}", index - 1);
        [argument("-device"), argument(&port)]
    });
    let arguments = arguments.collect::<Vec<_>>().concat();
    let machine = PciMachine::of(
        &Domain::parse(&format!(
            "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:commandline>\
             <qemu:arg value='-device'/><qemu:arg value='pxb-pcie,id=p0'/>{arguments}\
             </qemu:commandline></domain>"
        ))
        .unwrap(),
    );
    assert_eq!(machine.root_of(&Bus::Name("p19999".into())), Some(Bus::Name("p0".into())));
}
