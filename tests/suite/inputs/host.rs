//! A small host, made from a fixture: two regions of which a virtual machine holds one.

use std::io::Read;
use std::sync::OnceLock;

use egm_probe::capture::Capture;
use egm_probe::host::Needs;
use egm_probe::output::{columns, json, metrics, svg, table, topology};
use egm_probe::report::{Report, State};
use egm_probe::sysroot::Sysroot;
use flate2::read::GzDecoder;
use tar::{Builder, EntryType, Header};

const FIXTURE: &[u8] = include_bytes!("../../fixtures/claims-vm/host.tar.gz");

/// What of the fixture takes time and tells nothing.
fn is_wanted(path: &str) -> bool {
    let node = path.strip_prefix("sys/devices/system/node/node");
    node.is_none_or(|rest| rest.starts_with("0/") || rest.starts_with("1/"))
        && !["0000:", "iommu_groups/", "/power", ":00:00.0/class", ":00:00.0/vendor"]
            .iter()
            .any(|part| path.contains(part))
}

fn header(kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o444);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    header
}

/// The archive of it, without its end.
fn base() -> &'static [u8] {
    static BASE: OnceLock<Vec<u8>> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut builder = Builder::new(Vec::new());
        for entry in tar::Archive::new(GzDecoder::new(FIXTURE)).entries().unwrap() {
            let mut entry = entry.unwrap();
            if is_wanted(entry.path().unwrap().to_str().unwrap()) {
                let header = entry.header().clone();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                builder.append(&header, &content[..]).unwrap();
            }
        }
        for (path, content) in [
            ("sys/devices/system/node/online", "0-1\n"),
            ("sys/devices/system/node/node0/distance", "10 40\n"),
            ("sys/devices/system/node/node1/distance", "40 10\n"),
        ] {
            add(&mut builder, path, content.as_bytes());
        }
        without_end(builder)
    })
}

fn add(builder: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = header(EntryType::Regular, content.len());
    builder.append_data(&mut header, path, content).unwrap();
}

fn without_end(builder: Builder<Vec<u8>>) -> Vec<u8> {
    let mut tar = builder.into_inner().unwrap();
    tar.truncate(tar.len() - 1024);
    tar
}

/// The archive of the host with other files in it.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, content) in files {
        add(&mut builder, path, content);
    }
    // Of two files of the same name the later counts.
    [base(), &builder.into_inner().unwrap()].concat()
}

/// The host with other files in it.
pub fn with(files: &[(&str, &[u8])]) -> Sysroot {
    Sysroot::from_tar(&archive(files)[..]).unwrap()
}

/// What holds of any host: what is shown of it is well-formed and harmless, what is free adds up,
/// and a capture of it gives the same answers. A capture takes ten times as long as all the rest:
/// the fuzzers make one of each eighth input, told by its bytes so that it is always the same one.
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
    let rows: Vec<_> = report.rows().collect();
    let chosen = columns::defaults();
    for format in [table::Format::Table, table::Format::Raw, table::Format::Pairs] {
        let mut style = table::Style::new(format);
        style.header = false;
        let lines = shown(&|out| table::write(out, &rows, &chosen, style));
        // A value that breaks lines, or that has blanks in it where those part columns.
        if format != table::Format::Table {
            assert_eq!(lines.lines().count(), rows.len(), "{lines}");
        }
    }
    for warning in report.warnings() {
        let bad = warning.to_string().chars().find(|c| c.is_control());
        assert_eq!(bad, None, "{warning:?}");
    }
}
