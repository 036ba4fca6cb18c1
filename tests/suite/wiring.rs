//! The machine around EGM: a complete Grace guest, and what is found after one change of it.

use std::collections::BTreeSet;
use std::fs;

use egm_probe::check::{CheckOptions, Severity, check};
use egm_probe::domain::Domain;

use crate::support::fixtures;

fn complete() -> String {
    let path = fixtures().join("domains/good/gb200-full-gpu-list/complete.xml");
    fs::read_to_string(path).unwrap()
}

/// The codes of the findings without a host.
fn codes(text: &str) -> BTreeSet<&'static str> {
    let domain = Domain::parse(text).unwrap();
    check(&domain, &CheckOptions::default()).iter().map(|finding| finding.rule.code).collect()
}

fn changed(text: &str, before: &str, after: &str) -> String {
    assert!(text.contains(before), "{before}");
    text.replacen(before, after, 1)
}

const FIRST_SMMU: &str = "<driver pciBus='1' accel='on' ats='on' ril='off' ssidSize='20' oas='48' \
                          cmdqv='on'/>";
const SECOND_SMMU: &str = "<driver pciBus='3' accel='on' ats='on' ril='off' ssidSize='20' \
                           oas='48' cmdqv='on'/>";
/// The addresses of the first port, and of the first two GPUs.
const PORT: &str = "bus='0x01' slot='0x00' function='0x0'/>\n    </controller>";
const GPU: &str = "<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='0x0'/>";
const OTHER: &str = "<address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/>";
const HOLE: &str = "<pcihole64 unit='KiB'>4294967296</pcihole64>";
const CPU: &str = "<cpu mode='host-passthrough'>";
const USB: &str = "<memballoon model='none'/>";

/// A change: its name, the text before and after, and the codes that are found.
type Change = (&'static str, &'static str, &'static str, &'static [&'static str]);

const CHANGES: &[Change] = &[
    ("a port on the first bus", PORT, "slot='0x03'/></controller>", &["EGM202"]),
    ("a port on a missing bus", PORT, "bus='0x1e' slot='0x00'/></controller>", &["EGM202"]),
    ("a port on another bus", PORT, "bus='0x03' slot='0x01'/></controller>", &["EGM209"]),
    (
        "a port in another cell",
        PORT,
        "bus='0x07' slot='0x01'/></controller>",
        &["EGM205", "EGM209"],
    ),
    ("a port without an address", PORT, "/></controller>", &["EGM202"]),
    ("a GPU without an address", GPU, "", &["EGM202"]),
    ("a GPU on the first bus", GPU, "<address type='pci' slot='0x05'/>", &["EGM202"]),
    ("a GPU on an expander", GPU, "<address type='pci' bus='1' slot='2'/>", &["EGM202"]),
    ("a GPU on a missing bus", GPU, "<address type='pci' bus='40'/>", &["EGM202"]),
    ("a GPU in slot 1", GPU, "<address type='pci' bus='2' slot='1'/>", &["EGM208"]),
    ("a GPU on another's port", GPU, OTHER, &["EGM208"]),
    ("a GPU on the port of a far GPU", GPU, "<address type='pci' bus='8'/>", &["EGM208"]),
    (
        "a bus that is a bridge",
        "model='pcie-expander-bus'",
        "model='pcie-root-port'",
        &["EGM202", "EGM204", "EGM207"],
    ),
    (
        "a bus of conventional PCI",
        "model='pcie-expander-bus'",
        "model='pci-expander-bus'",
        &["EGM202"],
    ),
    ("no bus", "type='pci' index='1'", "type='usb' index='1'", &["EGM204"]),
    ("a machine-wide SMMU", "pciBus='1' ", "", &["EGM204"]),
    ("the bus number in pciBus", "pciBus='1'", "pciBus='33'", &["EGM204"]),
    ("the port in pciBus", "pciBus='1'", "pciBus='2'", &["EGM204"]),
    ("a hexadecimal pciBus", "pciBus='1'", "pciBus='0x1'", &["EGM204"]),
    ("a missing bus in pciBus", "pciBus='1'", "pciBus='9'", &["EGM204"]),
    ("an SMMU of the first bus", "pciBus='1'", "pciBus='0'", &["EGM203"]),
    ("two SMMUs of a bus", SECOND_SMMU, "<driver pciBus='1' accel='on'/>", &["EGM203"]),
    ("another model of IOMMU", "<iommu model='smmuv3'>", "<iommu model='virtio'>", &["EGM203"]),
    (
        "a bus in the other cell",
        "<node>0</node>\n      </target>\n    </c",
        "<node>1</node></target></c",
        &["EGM205"],
    ),
    (
        "a bus in the GPU's cell",
        "<node>0</node>\n      </target>\n    </c",
        "<node>2</node></target></c",
        &["EGM205"],
    ),
    (
        "a bus in a missing cell",
        "<node>0</node>\n      </target>\n    </c",
        "<node>x</node></target></c",
        &["EGM205"],
    ),
    (
        "a bus without a cell",
        "<node>0</node>\n      </target>\n    </c",
        "</target></c",
        &["EGM205"],
    ),
    ("the same bus number", "busNr='35'", "busNr='33'", &["EGM206"]),
    ("the number of a port", "busNr='35'", "busNr='34'", &["EGM206"]),
    ("the number of the first bus", "busNr='33'", "busNr='0'", &["EGM206"]),
    ("no number for the port", "busNr='67'", "busNr='255'", &["EGM206"]),
    ("a number after the next bus", "busNr='33'", "busNr='36'", &["EGM206"]),
    ("the number of a port on the first bus", "busNr='33'", "busNr='1'", &[]),
    ("a chassis of another port", "chassis='2'", "chassis='1'", &["EGM207"]),
    ("an index that is the chassis of another port", " chassis='4'", "", &[]),
    ("an index that is a chassis", " chassis='1'", "", &["EGM207"]),
    ("a GPU without iommufd", "<driver iommufd='yes'/>", "", &["EGM210"]),
    ("a GPU with iommufd off", "iommufd='yes'", "iommufd='no'", &["EGM210"]),
    ("an SMMU that is not accelerated", FIRST_SMMU, "<driver pciBus='1'/>", &[]),
    ("attributes without accel", "accel='on' ", "", &["EGM095"]),
    ("no cells", "<acpi nodeset='2-9'/>", "", &["EGM212"]),
    ("seven cells", "nodeset='2-9'", "nodeset='2-8'", &["EGM213"]),
    ("nine cells", "nodeset='26-33'", "nodeset='25-33'", &["EGM019", "EGM213"]),
    ("cells of another GPU", "nodeset='10-17'", "nodeset='2-9'", &["EGM019"]),
    ("missing cells", "nodeset='26-33'", "nodeset='26-32,34'", &["EGM019"]),
    ("a cell with memory", "nodeset='2-9'", "nodeset='1,3-9'", &["EGM019"]),
    (
        "a device on a GPU's cell",
        USB,
        "<hostdev type='pci'><source><address bus='3'/></source><acpi nodeset='9'/></hostdev>",
        &["EGM214"],
    ),
    (
        "a device on a CPU's cell",
        USB,
        "<hostdev type='pci'><source><address bus='3'/></source><acpi nodeset='0'/></hostdev>",
        &[],
    ),
    (
        "a device below an SMMU without iommufd",
        USB,
        "<hostdev type='pci'><source><address bus='3'/></source><address type='pci' bus='0x07' slot='0x01'/></hostdev>",
        &["EGM210"],
    ),
    (
        "a disk on a GPU's port",
        USB,
        "<disk><address type='pci' bus='0x02' slot='0x00'/></disk>",
        &["EGM208"],
    ),
    (
        "a function of another's slot",
        USB,
        "<disk><address type='pci' bus='0x02' function='1'/></disk>",
        &[],
    ),
    ("no hole", HOLE, "", &["EGM215"]),
    ("a small hole", "'KiB'>4294967296<", "'GiB'>512<", &["EGM215"]),
    ("a hole of 3 TiB", "'KiB'>4294967296<", "'TiB'>3<", &["EGM215"]),
    ("a hole of 4 TiB in other units", "'KiB'>4294967296<", "'GiB'>4096<", &[]),
    ("a large hole", "'KiB'>4294967296<", "'TiB'>32<", &["EGM215"]),
    ("no CPU mode", CPU, "<cpu>", &["EGM216"]),
    ("a CPU model", CPU, "<cpu mode='custom'>", &["EGM216"]),
    ("the largest CPU model", CPU, "<cpu mode='maximum'>", &[]),
    ("GICv2", "<gic version='3'/>", "<gic version='2'/>", &["EGM217"]),
    ("the GIC of the host", "<gic version='3'/>", "", &[]),
    ("a distance in one direction", "<sibling id='1' value='40'/>", "", &[]),
    (
        "a hard limit",
        "</vcpu>",
        "</vcpu><memtune><hard_limit unit='G'>512</hard_limit></memtune>",
        &["EGM220"],
    ),
    (
        "a large hard limit",
        "</vcpu>",
        "</vcpu><memtune><hard_limit unit='T'>1</hard_limit></memtune>",
        &[],
    ),
    (
        "a pin of a CPU that is missing",
        "</vcpu>",
        "</vcpu><cputune><vcpupin vcpu='120' cpuset='1'/></cputune>",
        &["EGM221"],
    ),
    (
        "a pin of the last CPU",
        "</vcpu>",
        "</vcpu><cputune><vcpupin vcpu='119' cpuset='1'/></cputune>",
        &[],
    ),
];

#[test]
fn each_change_of_a_complete_guest_has_its_finding() {
    let complete = complete();
    assert_eq!(codes(&complete), BTreeSet::new());
    let mut failed = Vec::new();
    for (name, before, after, expected) in CHANGES {
        let found = codes(&changed(&complete, before, after));
        if found != expected.iter().copied().collect() {
            failed.push(format!("{name}: {found:?}, expected {expected:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Without any part of the machine, its rules are about what the user has yet to add.
#[test]
fn a_domain_without_a_machine_has_one_warning() {
    let path = fixtures().join("domains/good/gb200-full-gpu-list/tray.xml");
    let tray = fs::read_to_string(path).unwrap();
    let domain = Domain::parse(&tray).unwrap();
    let findings = check(&domain, &CheckOptions::default());
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.rule.code, finding.severity), ("EGM201", Severity::Warning));
    assert!(finding.help.as_ref().unwrap().contains("egm-probe stanza --complete"));
    let other = changed(&tray, "<gic version='3'/>", "<gic version='2'/>");
    assert_eq!(codes(&other), BTreeSet::from(["EGM201"]));
    let limited = changed(
        &tray,
        "</vcpu>",
        "</vcpu><memtune><hard_limit unit='G'>1</hard_limit></memtune>
         <cputune><vcpupin vcpu='999' cpuset='1'/></cputune>",
    );
    assert_eq!(codes(&limited), BTreeSet::from(["EGM201", "EGM220", "EGM221"]));
    for part in
        ["<iommu model='smmuv3'/>", "<controller type='pci' index='1' model='pcie-expander-bus'/>"]
    {
        let started = changed(&tray, "<devices>", &format!("<devices>{part}"));
        let found = codes(&started);
        assert!(!found.contains("EGM201") && found.contains("EGM212"), "{part}: {found:?}");
        assert!(found.contains("EGM215"), "{part}: {found:?}");
    }
    let started = changed(&tray, "<vcpu>", "<iommufd enabled='yes'/><vcpu>");
    assert_eq!(codes(&started), BTreeSet::from(["EGM202", "EGM212", "EGM216"]));
}

/// Addresses that libvirt chooses may be right.
#[test]
fn unknown_places_are_warnings() {
    let complete = complete();
    for (before, after) in [
        (GPU, ""),
        (PORT, "/></controller>"),
        ("<node>0</node>\n      </target>\n    </c", "</target></c"),
        ("'KiB'>4294967296<", "'TiB'>32<"),
    ] {
        let domain = Domain::parse(&changed(&complete, before, after)).unwrap();
        let findings = check(&domain, &CheckOptions::default());
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.severity, Severity::Warning, "{finding:?}");
    }
}

#[test]
fn a_distance_that_is_missing_in_both_directions_is_found() {
    let one = changed(&complete(), "<sibling id='33' value='120'/>", "");
    assert_eq!(codes(&one), BTreeSet::new());
    // The matrix has cell 0 first, and its distance to cell 33 last.
    let at = one.find("<cell id='33'").unwrap();
    let both = one[..at].to_owned() + &changed(&one[at..], "<sibling id='0' value='120'/>", "");
    let domain = Domain::parse(&both).unwrap();
    let findings = check(&domain, &CheckOptions::default());
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!(finding.message, "1 pair of cells without a distance, such as 0 and 33");
}

#[test]
fn command_queues_need_contiguous_memory() {
    let ordinary =
        changed(&complete(), "<node>1</node>\n        <pciDev>", "<node>0</node><pciDev>");
    let ordinary = changed(&ordinary, "<node>1</node>\n        <pciDev>", "<node>0</node><pciDev>");
    assert!(codes(&ordinary).contains("EGM218"));
    for (pages, is_found) in [
        ("<hugepages/>", false),
        ("<hugepages><page size='2' unit='M' nodeset='1'/></hugepages>", false),
        ("<hugepages><page size='2' unit='M' nodeset='0'/></hugepages>", true),
    ] {
        let backing = format!("<memoryBacking>{pages}");
        let huge = changed(&ordinary, "<memoryBacking>", &backing);
        assert_eq!(codes(&huge).contains("EGM218"), is_found, "{pages}");
    }
}

/// QEMU's arguments and overrides are part of the machine.
#[test]
fn arguments_and_overrides_count() {
    let complete = complete();
    let with = |text: &str, inner: &str| {
        let text = changed(
            text,
            "<domain ",
            "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ",
        );
        changed(&text, "</domain>", &format!("{inner}</domain>"))
    };
    let hole = "<qemu:commandline><qemu:arg value='-machine'/>
                <qemu:arg value='highmem-mmio-size=4T'/></qemu:commandline>";
    assert_eq!(codes(&with(&changed(&complete, HOLE, ""), hole)), BTreeSet::new());
    let node = "<qemu:override><qemu:device alias='pci.1'><qemu:frontend>
                <qemu:property name='numa_node' type='unsigned' value='1'/>
                </qemu:frontend></qemu:device></qemu:override>";
    assert_eq!(codes(&with(&complete, node)), BTreeSet::from(["EGM205"]));
    let accel = "<qemu:override><qemu:device alias='ua-hostdev0'><qemu:frontend>
                 <qemu:property name='iommufd' type='string' value='iommufd0'/>
                 </qemu:frontend></qemu:device></qemu:override>";
    let without = changed(&complete, "<driver iommufd='yes'/>", "");
    assert_eq!(codes(&with(&without, accel)), BTreeSet::new());
}
