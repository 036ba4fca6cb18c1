//! The seeds of the fuzzers: the fixtures, and values from the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::tree::{Tree, gzip};

pub(super) fn fixtures() -> PathBuf {
    // That of this crate, or of the fuzzers' below it.
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().find(|it| it.join("tests/fixtures").exists());
    root.expect("the fixtures are not where they should be").join("tests/fixtures")
}

fn of(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Files below the fixtures whose names have this ending.
fn files(end: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![fixtures()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            // Links in a machine's sysfs lead round in circles.
            if entry.file_type().unwrap().is_dir() {
                todo.push(path);
            } else if path.to_str().unwrap().ends_with(end) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// The captures, and the directories of machines made by hand.
fn captures() -> Vec<PathBuf> {
    let directories = files("/nodes").into_iter().map(|file| file.parent().unwrap().to_owned());
    files("host.tar.gz").into_iter().chain(directories).collect()
}

/// The short files of all hosts, by their paths; read once.
fn hosts() -> &'static [(String, Vec<u8>)] {
    static HOSTS: OnceLock<Vec<(String, Vec<u8>)>> = OnceLock::new();
    HOSTS.get_or_init(|| {
        let mut found = BTreeSet::new();
        for capture in captures() {
            let tree = Tree::read(&capture);
            let files = tree.files().filter(|(_, content)| content.len() < 4096);
            found.extend(files.map(|(path, content)| (path.to_owned(), content.to_owned())));
        }
        found.into_iter().collect()
    })
}

/// The distinct contents of the files of all hosts whose paths have this ending.
fn contents(end: &str) -> Vec<Vec<u8>> {
    let found = hosts().iter().filter(|(path, _)| path.ends_with(end));
    let found: BTreeSet<_> = found.map(|(_, content)| content.clone()).collect();
    found.into_iter().collect()
}

/// Several files as one input.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.join(&b"\n--\n"[..])
}

pub fn addresses() -> Vec<Vec<u8>> {
    of(&[
        "0009:01:00.0",
        "00000009:01:00.0",
        "pci_0009_01_00_0",
        "C1:1f.7",
        "10000:e1:00.0",
        "0000:09:01.0",
        "ffffffff:ff:1f.7",
    ])
}

pub fn lists() -> Vec<Vec<u8>> {
    of(&["0-71,144\n0-3", "0-4294967295\n4294967294", "4,0-1,2\n", "3-80,90\n0-71", "\n0"])
}

pub fn sizes() -> Vec<Vec<u8>> {
    of(&[
        "8GiB",
        " 8 GiB ",
        "234356736KiB",
        "8388608\nKiB",
        "16\nEiB",
        "18446744073709551615",
        "1\nEB",
        "15EiB",
        "1023KiB",
        "+1\nb",
    ])
}

pub fn attributes() -> Vec<Vec<u8>> {
    const RESOURCE: &[u8] = b"0x0000471002000000 0x0000471002ffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000478000000000 0x000047bfffffffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000000000001000 0x000000000000107f 0x0000000000040101
0x0000000000000000 0x0000000000000000 0x0000000000000000
";
    let ids: &[&[u8]] = &[b"1\n", b"72-143\n", b"0x10de\n", b"0x2941\n", b"0x030200\n"];
    let gpu = &[ids, &[RESOURCE, b"16.0 GT/s PCIe\n", b"1\n"]].concat();
    let mut seeds = Vec::new();
    for list in contents("/gpu_devices") {
        let region: &[&[u8]] =
            &[&list, b"0x6fc0000000\n", b"510:5\n", b"MAJOR=510\nDEVNAME=egm5\n"];
        seeds.push(joined(&[region, gpu].concat()));
    }
    for size in contents("/egm_size") {
        seeds.push(joined(&[b"0018:01:00.0", &size]));
    }
    for uevent in contents("/uevent") {
        seeds.push(joined(&[b"0018:01:00.0", b"0", b"510:5", &uevent]));
    }
    seeds
}

pub fn distances() -> Vec<Vec<u8>> {
    let mut seeds = vec![joined(&[
        b"10 40\n",
        b"40 10\n",
        b"0-1\n",
        b"0-1\n",
        b"0-71\n",
        b"Node 0 MemTotal:       23068672 kB\n",
        b"2-33\n",
    ])];
    seeds.extend(contents("/distance"));
    seeds.extend(contents("/meminfo").iter().map(|text| joined(&[b"", b"", b"", b"", b"", text])));
    seeds
}

pub fn maps() -> Vec<Vec<u8>> {
    contents("/maps")
}

pub fn leases() -> Vec<Vec<u8>> {
    let mut seeds = contents("/leases.json");
    seeds.extend(of(&[
        r#"{"schema":"egm-probe.leases/1","leases":[]}"#,
        r#"{"schema":"egm-probe.leases/1","leases":[{"regions":["egm5"],"for":"vm1","expires":"9999-12-31T23:59:59.9Z","pid":1}]}"#,
        r#"{"leases":[{"expires":"1970-01-01T00:00:00Z","for":"\u0041","regions":["egm5","egm5"]}],"schema":"egm-probe.leases/1"}"#,
    ]));
    seeds
}

pub fn manifests() -> Vec<Vec<u8>> {
    of(&[
        r#"{"schema":"egm-probe.capture/1","program":"x","live":true,"claims":null}"#,
        r#"{"schema":"egm-probe.capture/1","program":"x","live":true,
"claims":{"unread":1,"hidden":"hidepid","unsettled":true},"moment":1795444200,
"names":{"/sys/class/egm":["egm4","egm5","egm6"],"/proc":["1"]},
"errors":{"/sys/class/egm/egm6":{"list":13,"link":2,"stat":5,"read":"words"},
"/proc":{"list":13},"/dev/egm4":{"stat":2},"/run/egm-probe/leases.json":{"read":40}},
"inodes":{"/dev/egm4":{"major":0,"minor":9,"inode":210}},
"bad_definitions":{"/etc/libvirt/qemu/x.xml":{"line":1,"column":4294967295}}}"#,
    ])
}

pub fn nodes() -> Vec<Vec<u8>> {
    let lists = files("/nodes").into_iter().map(|path| fs::read(path).unwrap());
    // Other hosts are found relative to a directory that the targets do not have.
    let mut lists: Vec<_> = lists.filter(|list| !list.starts_with(b"base ")).collect();
    lists.sort();
    lists.dedup();
    lists
}

pub fn errors() -> Vec<Vec<u8>> {
    let texts = egm_probe::doctor::errors::ERRORS.iter().flat_map(|error| error.texts);
    of(&texts.copied().collect::<Vec<_>>())
}

pub fn setups() -> Vec<Vec<u8>> {
    let rules = fs::read(fixtures().join("../../udev-rules/60-egm.rules")).unwrap();
    let mut seeds = vec![joined(&[
        &rules,
        b"user = \"+107\"\ngroup = 'kvm'\ncgroup_device_acl = [\n  \"/dev/null\", # x\n]\n",
        b"profile x { /dev/egm[0-9]* rw, deny /dev/** w, }\n",
        b"  /dev/kvm rw,\n  include if exists <x>\n",
        b"root:x:0:0:root:/root:/bin/bash\nqemu:x:107:36:::\n",
        b"kvm:x:36:qemu\n",
    ])];
    let doctor = captures().into_iter().filter(|it| it.parent().unwrap().ends_with("doctor"));
    for host in doctor {
        let mut parts = [const { Vec::new() }; 2];
        for (path, content) in Tree::read(&host).files() {
            let part = if path.contains("rules.d/") {
                0
            } else if path.ends_with("qemu.conf") {
                1
            } else {
                continue;
            };
            parts[part].extend_from_slice(content);
        }
        let seed = joined(&[&parts[0], &parts[1]]);
        if seed.len() > 8 && seed.len() < 4096 {
            seeds.push(seed);
        }
    }
    seeds.sort();
    seeds.dedup();
    seeds
}

pub fn domains() -> Vec<Vec<u8>> {
    let texts = files(".xml").into_iter().map(|path| fs::read(path).unwrap());
    let texts = texts.filter(|text| text.len() < 8192);
    texts.chain(of(&[include_str!("machine.xml")])).collect()
}

/// A selection, because each takes two captures.
pub fn definitions() -> Vec<Vec<u8>> {
    domains().into_iter().step_by(5).collect()
}

pub fn stanzas() -> Vec<Vec<u8>> {
    let options = [0b0000_0011, 0b0011_1110, 0b0101_0011, 0b1000_0011, 0b0011_0011, 0b0011_0111_u8];
    let seed = |(text, options): (Vec<u8>, &u8)| [&[*options], &text[..]].concat();
    domains().into_iter().zip(options.iter().cycle()).map(seed).collect()
}

pub fn archives() -> Vec<Vec<u8>> {
    let mut seeds =
        vec![super::host::archive(&[]), super::host::archive(&[("capture.json", &manifests()[1])])];
    let short = |tar: &Vec<u8>| tar.len() <= 65536;
    let trees: Vec<_> = captures().iter().map(|path| Tree::read(path).tar()).collect();
    seeds.extend(trees.iter().filter(|tar| short(tar)).cloned());
    let packed = trees.iter().map(|tar| gzip(tar));
    seeds.extend(packed.filter(|gzip| gzip.len() < 2048));
    seeds
}
