//! The rules compared with the behaviour of NVIDIA's libvirt for the same documents.
//!
//! `fixtures/domains/measured` has the documents as libvirt got them, and its verdicts:
//! libvirt's 12.4.0+nvidia parser, post-parse, validation and command line.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use egm_probe::check::{CheckOptions, Severity, check};
use egm_probe::domain::{Domain, Encoding, SourceText};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::fixtures;
use crate::trial;

/// Rules that this libvirt does not check when it defines a domain, although the guest then has no
/// EGM; the documents are without ACPI.
const NOT_MEASURED: [&str; 1] = ["EGM034"];

/// Documents that libvirt accepts and QEMU refuses, or that give the guest wrong memory.
const ACCEPTED: [(&str, &str); 26] = [
    ("access-nowhere", "the guest's memory is a private copy"),
    ("access-private", "the guest's memory is a private copy"),
    ("access-private-by-the-backing", "the guest's memory is a private copy"),
    ("alias-in-other-case", "pciDev names no device: QEMU stops"),
    ("alias-of-nobody", "pciDev names no device: QEMU stops"),
    ("alias-with-a-dot", "libvirt replaces the alias, and pciDev names no device"),
    ("beyond-the-region", "libvirt rounds the sizes up: QEMU stops"),
    ("cell-empty", "the cell's memory is not the sum of its devices: QEMU stops"),
    ("cell-too-large", "the cell's memory is not the sum of its devices: QEMU stops"),
    ("cell-too-small", "the cell's memory is not the sum of its devices: QEMU stops"),
    ("gpu-cells-of-two-gpus", "two GPUs put their memory into one cell"),
    ("gpu-cells-that-are-not-there", "QEMU: Specified node is invalid"),
    ("gpu-cells-with-memory", "a GPU's memory is added to the guest's RAM"),
    ("hostdev-missing", "pciDev names no device: QEMU stops"),
    ("hostdev-without-alias", "pciDev names no device: QEMU stops"),
    ("node-missing", "the device backs no cell"),
    ("path-relative", "QEMU opens no such file"),
    ("path-with-a-slash-at-its-end", "QEMU opens no such directory"),
    ("path-with-two-slashes", "two names of one region have two backends"),
    ("region-in-two-cells", "one backend cannot be the memory of two cells"),
    ("shares-uneven", "libvirt rounds a size up: QEMU stops"),
    ("size-not-whole-mib", "libvirt rounds the size up: QEMU stops"),
    ("size-zero", "QEMU: a backend of size 0"),
    ("too-many-cells", "QEMU has 128 nodes at most"),
    ("two-devices-for-a-gpu", "the guest looks for one region per GPU"),
    ("two-regions-in-a-cell", "a cell has one backend"),
];

/// Documents that libvirt refuses because of parts that only its schema describes.
const OF_THE_SCHEMA: [&str; 1] = ["fault-elsewhere"];

pub(crate) fn trials() -> Vec<Trial> {
    let verdicts = fs::read_to_string(folder().join("verdicts.json")).unwrap();
    let verdicts: Vec<BTreeMap<String, Value>> = serde_json::from_str(&verdicts).unwrap();
    let trial = |verdict: BTreeMap<String, Value>| {
        let document = verdict["doc"].as_str().unwrap().trim_end_matches(".xml").to_owned();
        let name = document.clone();
        trial("measured", &name, move || rules_agree(&document, &verdict))
    };
    verdicts.into_iter().map(trial).collect()
}

fn folder() -> PathBuf {
    fixtures().join("domains/measured")
}

fn rules_agree(document: &str, verdict: &BTreeMap<String, Value>) {
    let name = document.rsplit("--").next().unwrap();
    let file = fs::read(folder().join(format!("{document}.xml"))).unwrap();
    let source = SourceText::decode(&file).unwrap();
    let domain = Domain::parse(source.text()).unwrap();
    let mut errors: Vec<_> = check(&domain, &CheckOptions::default())
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .filter(|finding| !NOT_MEASURED.contains(&finding.rule.code))
        .map(|finding| format!("{}: {}", finding.rule.code, finding.message))
        .collect();
    if source.encoding() != Encoding::Utf8 {
        errors.push("EGM043".into());
    }
    let is_refused = verdict["verdict"] == "refused";
    let is_exception = if is_refused {
        OF_THE_SCHEMA.contains(&name)
    } else {
        ACCEPTED.iter().any(|(exception, _)| *exception == name)
    };
    // An exception that is none any more is to leave the list.
    let is_error_wanted = is_refused != is_exception;
    assert_eq!(!errors.is_empty(), is_error_wanted, "{}: {errors:?}", verdict["error"]);
}
