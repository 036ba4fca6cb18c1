//! Definitions of virtual machines.

use std::sync::OnceLock;

use egm_probe::check::{CheckOptions, check};
use egm_probe::domain::{Document, Domain, PciMachine, line_and_column};
use egm_probe::host::Needs;
use egm_probe::plan::{DistanceChoice, GuestNode, Plan, Request, Size};
use egm_probe::report::Report;
use egm_probe::stanza::{Options, Parts, Stanza};
use egm_probe::values::Bytes;

use super::host::{holds, with};

fn report() -> &'static Report {
    static REPORT: OnceLock<Report> = OnceLock::new();
    REPORT.get_or_init(|| Report::read(&with(&[]), Needs::all()))
}

/// The parser and the rules.
pub fn domain(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Domain::parse(text) {
        Ok(domain) => {
            machine(&domain, text);
            for findings in [
                check(&domain, &CheckOptions::default()),
                check(&domain, &CheckOptions { report: Some(report()), ..CheckOptions::default() }),
            ] {
                for finding in findings {
                    assert!(text.get(finding.span.clone()).is_some(), "{finding:?}");
                    let message = &finding.message;
                    assert!(!message.chars().any(char::is_control), "{message:?}");
                }
            }
        }
        Err(error) => {
            let (last, _) = line_and_column(text, text.len());
            assert!((1..=last).contains(&error.line) && error.column > 0, "{error}");
            assert!(!error.problem.chars().any(char::is_control), "{error:?}");
        }
    }
}

/// The places of the PCI machine are in the text, and every device with a place occupies it.
fn machine(domain: &Domain, text: &str) {
    let machine = PciMachine::of(domain);
    let mut spans = Vec::new();
    for controller in machine.controllers() {
        spans.push(&controller.span);
        let target = &controller.target;
        let bytes = [&target.bus_nr, &target.chassis, &target.port, &target.width];
        spans.extend(bytes.into_iter().flatten().map(|value| &value.span));
        spans.extend(target.node.as_ref().map(|node| &node.span));
        let _ = controller.bus().and_then(|bus| machine.root_of(&bus));
    }
    for iommu in machine.iommus() {
        let _ = (iommu.bus(), iommu.switch("accel"), iommu.oas(), iommu.id_size());
        spans.extend(iommu.driver.iter().flat_map(|it| [&it.span, &it.value_span]));
    }
    for device in machine.devices() {
        spans.extend([&device.span, &device.address.span]);
    }
    for hostdev in &domain.hostdevs {
        spans.extend(machine.iommufd(hostdev).map(|value| &value.span));
    }
    spans.extend(machine.hole().map(|hole| &hole.span));
    let cells = domain.cells.iter().flat_map(|cell| &cell.distances);
    spans.extend(cells.map(|distance| &distance.span));
    for span in spans {
        assert!(text.get(span.clone()).is_some(), "{span:?}");
    }
    let placed = machine.devices().iter().filter(|device| device.address.place().is_some());
    let occupied = machine.occupied();
    let found = occupied.values().flat_map(|slots| slots.values()).map(Vec::len).sum::<usize>();
    assert_eq!(found, placed.count());
}

/// The first byte selects the options; the remaining bytes are the domain.
pub fn stanza(data: &[u8]) {
    let Some((options, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let Ok(domain) = Domain::parse(text) else { return };
    let has = |bit: u8| options & (1 << bit) != 0;
    let report = report();
    let second = report.host.gpus().map(|(gpu, _)| gpu.address).skip(1).take(1);
    let mut request = if has(0) { Request::everything() } else { Request::of_gpus(second) };
    (request.force, request.peers) = (has(1), has(2));
    request.size = if has(3) { Size::Each(Bytes(8 << 30)) } else { Size::Kept };
    request.gpu_cells = if has(4) { 2 } else { 0 };
    request.vcpus = has(5).then_some(3);
    // The options of the machine share their bits with others.
    (request.machine.pci, request.machine.shared_smmu) = (has(4), has(0));
    request.machine.distances = has(4).then_some(DistanceChoice::Known);
    (request.machine.pinning, request.machine.replace) = (has(5), has(2));
    if has(6) {
        request.guest_nodes.push(GuestNode { region: None, cell: 1 });
    }
    let options = Options::of(if has(7) { Parts::default() } else { Parts::all() });
    let Ok(plan) = Plan::new(report, &request, Some(&domain)) else { return };
    let Ok(document) = Document::parse(text) else { return };
    let Ok(stanza) = Stanza::within(report, plan.clone(), &document, &options) else { return };
    let _ = stanza.qemu_arguments();

    // The parsed result matches the plan, and other parts are unchanged.
    let again = Domain::parse(&stanza.xml).expect("what was written is no domain");
    for placement in &plan.placements {
        let devices: Vec<_> = again
            .egm
            .iter()
            .filter(|device| device.pci_dev.as_ref().is_some_and(|it| it.text == placement.alias))
            .collect();
        let [device] = devices[..] else { panic!("{} devices of {placement:?}", devices.len()) };
        assert_eq!(device.size.as_ref().and_then(|size| size.value), Some(placement.size));
        assert_eq!(device.cell.as_ref().and_then(|cell| cell.value), Some(placement.cell));
        assert_eq!(device.path.as_ref().map(|path| path.text.as_str()), Some(&*placement.path));
    }
    keeps(text, &stanza.xml);

    // A second run changes nothing.
    let plan = Plan::new(report, &request, Some(&again)).expect("the same is refused");
    let twice = Stanza::within(report, plan, &Document::parse(&stanza.xml).unwrap(), &options);
    assert_eq!(twice.expect("the same is not written").xml, stanza.xml);
}

/// All other parts are preserved byte for byte, and in order.
fn keeps(before: &str, after: &str) {
    const ITS_OWN: [&str; 14] = [
        "memory",
        "currentMemory",
        "maxMemory",
        "vcpu",
        "cpu",
        "memoryBacking",
        "devices",
        "hostdev",
        "os",
        "features",
        "cputune",
        "controller",
        "iommu",
        "memballoon",
    ];
    let document = roxmltree::Document::parse(before).unwrap();
    let root = document.root_element();
    let open = ["devices", "os", "features"];
    let open = root.children().filter(|child| open.iter().any(|name| child.has_tag_name(*name)));
    let parts = root.children().chain(open.flat_map(|parent| parent.children()));
    let others = parts.filter(|node| {
        let name = node.tag_name();
        node.is_element() && (name.namespace().is_some() || !ITS_OWN.contains(&name.name()))
    });
    for other in others {
        let text = &before[other.range()];
        assert!(after.contains(text), "{text:?} is gone");
    }
}

/// A definition of libvirt, of which a capture has only the parts about EGM.
pub fn definition(data: &[u8]) {
    holds(&with(&[("etc/libvirt/qemu/vm1.xml", data)]), data);
    holds(&with(&[("run/libvirt/qemu/vm1.xml", data)]), data);
}
