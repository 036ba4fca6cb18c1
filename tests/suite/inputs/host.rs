//! A small host, made from a fixture, with two regions, one of which a virtual machine holds.

use std::path::Path;
use std::sync::OnceLock;

use egm_probe::capture::Capture;
use egm_probe::export::{Cdi, Inventory, Kind, labels, node_feature};
use egm_probe::host::{Host, Needs};
use egm_probe::output::{columns, json, metrics, svg, table, topology};
use egm_probe::report::{Report, State};
use egm_probe::sysroot::Sysroot;

use crate::support::tree::Tree;

/// Filters files of the fixture that only take time.
fn is_wanted(path: &str) -> bool {
    let node = path.strip_prefix("sys/devices/system/node/node");
    node.is_none_or(|rest| rest.starts_with("0/") || rest.starts_with("1/"))
        && !["0000:", "iommu_groups/", "/power", ":00:00.0/class", ":00:00.0/vendor"]
            .iter()
            .any(|part| path.contains(part))
}

/// The small host, to which files may be added.
fn base() -> &'static Tree {
    static BASE: OnceLock<Tree> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut tree = Tree::read(&super::seeds::fixtures().join("claims-vm"));
        tree.retain(is_wanted);
        for (path, content) in [
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/distance", "10 40\n"),
            ("sys/devices/system/node/node1/distance", "40 10\n"),
        ] {
            tree.file(path, content);
        }
        tree
    })
}

/// Writes the host into a directory, except device nodes.
pub fn write(directory: &Path) {
    let tar = base().tar();
    for entry in tar::Archive::new(&tar[..]).entries().unwrap() {
        let mut entry = entry.unwrap();
        if !entry.header().entry_type().is_character_special() {
            entry.unpack_in(directory).unwrap();
        }
    }
}

/// The archive of the host with other files in it.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tree = base().clone();
    for (path, content) in files {
        tree.file(path, content);
    }
    tree.tar()
}

/// The host with some files replaced.
pub fn with(files: &[(&str, &[u8])]) -> Sysroot {
    Sysroot::from_tar(&archive(files)[..]).unwrap()
}

/// Conditions for any host: output is well-formed and harmless, free memory adds up, and a capture
/// gives the same results. A capture takes ten times as long as everything else, so the fuzzers make
/// one for every eighth input, selected by its bytes to be reproducible.
pub fn holds(root: &Sysroot, input: &[u8]) -> Report {
    let report = Report::read(root, Needs::all());
    for row in report.rows() {
        let capacity = row.capacity;
        let is_held = row.claims.iter().any(egm_probe::claims::Claim::is_held);
        assert_eq!(is_held, capacity.state == State::InUse, "{row:?}");
        if let (State::Free, size) = (capacity.state, row.region.size) {
            assert_eq!(capacity.free, size, "{row:?}");
        }
        if let (Some(size), Some(free)) = (row.region.size, capacity.free) {
            let held = capacity.held.unwrap_or(free);
            let parts = u128::from(held.0) + u128::from(capacity.stranded.map_or(0, |it| it.0));
            assert!(free <= size && parts <= u128::from(size.0), "{row:?}");
        }
    }
    shows(&report);
    let sum = input.iter().fold(0_u8, |sum, byte| sum.rotate_left(1) ^ byte);
    if cfg!(test) || sum.is_multiple_of(8) {
        let capture = Capture::take(root, true).unwrap();
        assert_eq!(capture.difference, None);
    }
    report
}

fn shows(report: &Report) {
    let shown = |write: &dyn Fn(&mut Vec<u8>) -> std::io::Result<()>| {
        let mut text = Vec::new();
        write(&mut text).unwrap();
        let text = String::from_utf8(text).expect("what is shown is not UTF-8");
        let bad = text.chars().find(|c| c.is_control() && *c != '\n');
        assert_eq!(bad, None, "{text:?}");
        text
    };
    let list = shown(&|out| json::write_list(out, report));
    serde_json::from_str::<serde_json::Value>(&list).expect("list --json is no JSON");
    let tree = shown(&|out| topology::write_json(out, report));
    serde_json::from_str::<serde_json::Value>(&tree).expect("topology --json is no JSON");
    shown(&|out| topology::write(out, report, topology::TreeStyle::default()));
    let picture = shown(&|out| svg::write(out, report));
    roxmltree::Document::parse(&picture).expect("topology --svg is no XML");
    shown(&|out| metrics::write(out, report));
    exports(&report.host);
    let rows: Vec<_> = report.rows().collect();
    let chosen = columns::defaults();
    for format in [table::Format::Table, table::Format::Raw, table::Format::Pairs] {
        let mut style = table::Style::new(format);
        style.header = false;
        let lines = shown(&|out| table::write(out, &rows, &chosen, style));
        // Values must not have line breaks, or spaces if those separate columns.
        if format != table::Format::Table {
            assert_eq!(lines.lines().count(), rows.len(), "{lines}");
        }
    }
    for warning in report.warnings() {
        let bad = warning.to_string().chars().find(|c| c.is_control());
        assert_eq!(bad, None, "{warning:?}");
    }
}

fn exports(host: &Host) {
    let inventory = Inventory::of(host);
    let (cdi, left_out) = Cdi::new(&inventory, &"nvidia.com/egm".parse::<Kind>().unwrap());
    assert_eq!(cdi.is_empty(), left_out.len() == host.regions.len(), "{left_out:?}");
    let mut text = Vec::new();
    cdi.write(&mut text).unwrap();
    serde_json::from_slice::<serde_json::Value>(&text).expect("export cdi is no JSON");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    for (name, value) in labels(&inventory) {
        assert!(
            value.len() < 64 && name.chars().chain(value.chars()).all(is_plain),
            "{name}={value}"
        );
    }
    let feature = node_feature(&inventory, &"node1".parse().unwrap());
    assert_eq!(feature["metadata"]["name"], "egm-node1");
}
