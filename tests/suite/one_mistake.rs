//! A complete guest with one wrong value: `validate` has one finding, whose help names the right one.

use std::fs;

use egm_probe::check::{CheckOptions, Finding, NEEDS, check};
use egm_probe::domain::Domain;
use egm_probe::report::Report;
use egm_probe::sysroot::Sysroot;

use crate::removal::run;
use crate::support::{fixtures, machine};

fn complete() -> String {
    let path = fixtures().join("domains/good/gb200-full-gpu-list/complete.xml");
    fs::read_to_string(path).unwrap()
}

/// Replaces one of several occurrences of a text.
fn changed(text: &str, occurrence: usize, before: &str, after: &str) -> String {
    let (at, _) = text.match_indices(before).nth(occurrence).expect(before);
    format!("{}{after}{}", &text[..at], &text[at + before.len()..])
}

fn found(text: &str, report: Option<&Report>) -> Vec<Finding> {
    let options = CheckOptions { report, ..CheckOptions::default() };
    check(&Domain::parse(text).unwrap(), &options)
}

/// Which occurrence of a text, its replacement, the rule, and a part of the help.
type Mistake = (usize, &'static str, &'static str, &'static str, &'static str);

const NODE: &str = "<node>1</node>\n        <pciDev>";

/// Mistakes that are found with the host.
const ON_HOST: &[Mistake] = &[
    (0, "<path>/dev/egm5", "<path>/dev/egm4", "EGM103", "<path>/dev/egm5</path>"),
    (1, "<path>/dev/egm4", "<path>/dev/egm5", "EGM103", "<path>/dev/egm4</path>"),
    (0, "<path>/dev/egm5", "<path>/dev/egm6", "EGM101", "<path>/dev/egm5</path>"),
    (0, "<size unit='KiB'>234356736", "<size unit='KiB'>334356480", "EGM104", "134356992 KiB"),
    (0, "domain='0x0018'", "domain='0x0009'", "EGM020", "domain='0x0018'"),
    (0, "domain='0x0009'", "domain='0x0018'", "EGM020", "domain='0x0009'"),
    (0, "<pciDev>ua-hostdev0", "<pciDev>ua-hostdev2", "EGM005", "`ua-hostdev0`"),
    (0, "<pciDev>ua-hostdev2", "<pciDev>gpu", "EGM003", "`ua-hostdev2`"),
    (0, "<alias name='ua-hostdev0'", "<alias name='ua-hostdev2'", "EGM006", "name='ua-hostdev0'"),
];

/// Mistakes that are found with and without the host.
const ANYWHERE: &[Mistake] = &[
    (0, NODE, "<node>0</node>\n        <pciDev>", "EGM010", "<node>1</node>"),
    (0, NODE, "<node>40</node>\n        <pciDev>", "EGM008", "<node>1</node>"),
    (0, NODE, "<node>7</node>\n        <pciDev>", "EGM019", "<node>1</node>"),
    (0, "<pciDev>ua-hostdev2", "<pciDev>ua-hostdev1", "EGM005", "`ua-hostdev2`"),
    (0, "<pciDev>ua-hostdev2", "<pciDev>ua-hostdv2", "EGM003", "`ua-hostdev2`"),
    (0, "<alias name='ua-hostdev2'", "<alias name='ua-hostdev1'", "EGM006", "name='ua-hostdev2'"),
    (0, "<cell id='33'", "<cell id='40'", "EGM015", "id='33'"),
    (0, "<cell id='1'", "<cell id='0'", "EGM015", "id='1'"),
    (0, "<cell id='9'", "<cell id='x'", "EGM015", "id='9'"),
    (3, "<sibling id='33'", "<sibling id='34'", "EGM021", "id='33'"),
    (0, "nodeset='10-17'", "nodeset='9-16'", "EGM019", "nodeset='10-17'"),
    (0, "value='120'", "value='300'", "EGM021", "10 to 255"),
    (0, "value='120'", "value='9'", "EGM021", "10 to 255"),
    (0, " value='120'", "", "EGM021", "10 to 255"),
    (0, "pciBus='5'", "pciBus='9'", "EGM204", "pciBus='5'"),
    (0, "pciBus='5'", "pciBus='3'", "EGM203", "pciBus='5'"),
    (0, "bus='0x04' slot='0x00'", "bus='0x06' slot='0x00'", "EGM208", "bus='0x04'"),
    (0, "bus='0x04' slot='0x00'", "bus='0x00' slot='0x0a'", "EGM202", "bus='0x04'"),
    (0, "chassis='2'", "chassis='1'", "EGM207", "chassis='2'"),
    (0, "index='4'", "index='2'", "EGM209", "index='4'"),
    (0, "busNr='35'", "busNr='33'", "EGM206", "busNr='35'; "),
    (0, "busNr='35'", "busNr='300'", "EGM206", "at most 255"),
    (0, "<node>1</node>", "<node>0</node>", "EGM205", "stanza --with pci --replace"),
];

fn has_one_finding(mistakes: &[Mistake], report: Option<&Report>) {
    let complete = complete();
    assert!(found(&complete, report).is_empty());
    let mut wrong = Vec::new();
    for (occurrence, before, after, code, help) in mistakes {
        let findings = found(&changed(&complete, *occurrence, before, after), report);
        let shown: Vec<_> =
            findings.iter().map(|it| (it.rule.code, &it.message, it.help.as_deref())).collect();
        let is_it = findings.len() == 1
            && findings[0].rule.code == *code
            && findings[0].help.as_ref().is_some_and(|it| it.contains(help));
        if !is_it {
            wrong.push(format!("{before} -> {after}: expected {code} {help}, found {shown:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_mistake_has_one_finding_with_its_repair() {
    let root = Sysroot::capture(&machine("gb200-full-gpu-list")).unwrap();
    let report = Report::read(&root, NEEDS);
    has_one_finding(ON_HOST, Some(&report));
    has_one_finding(ANYWHERE, Some(&report));
    has_one_finding(ANYWHERE, None);
}

#[test]
fn a_deleted_expander_bus_has_one_finding_and_is_written_again() {
    let complete = complete();
    let start = complete.find("    <controller type='pci' index='3'").unwrap();
    let end = start + complete[start..].find("</controller>\n").unwrap() + "</controller>\n".len();
    let without = [&complete[..start], &complete[end..]].concat();
    let findings = found(&without, None);
    let helps: Vec<_> = findings.iter().map(|it| (it.rule.code, it.help.as_deref())).collect();
    let help =
        "add <controller type='pci' index='3' model='pcie-expander-bus'>, or remove this <iommu>";
    assert_eq!(helps, [("EGM204", Some(help))]);

    let again = run("gb200-full-gpu-list", &["--complete", "--replace"], &without).unwrap();
    assert!(found(&again, None).is_empty(), "{again}");
    assert!(!again.contains("pciBus='3'"), "{again}");
}

/// Thousands of findings do not need a search for each of them.
#[test]
fn many_mistakes_are_found_fast() {
    let device = "<memory model='egm'><source><path>/dev/egm4</path></source><target><node>0</node>\
                  <pciDev>ua-x</pciDev></target></memory>";
    let hostdev = "<hostdev type='pci'><source><address bus='1'/></source><alias name='ua-y'/>\
                   <acpi nodeset='0-9'/><address type='pci' bus='2' slot='1'/></hostdev>";
    let text = format!(
        "<domain><devices>{}{}</devices></domain>",
        device.repeat(2_000),
        hostdev.repeat(2_000)
    );
    let started = std::time::Instant::now();
    assert!(found(&text, None).len() > 2_000);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
