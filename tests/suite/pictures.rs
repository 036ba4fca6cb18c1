//! The outputs of `topology --svg` and `metrics`, checked with the programs that read them.

use crate::live::can;
use crate::stanza::fed;
use crate::support;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn run(machine: &str, args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("--from").arg(support::machine(machine)).args(args).output().unwrap()
}

#[test]
fn the_picture_of_every_machine_is_drawn_and_its_text_is_text() {
    if !can("rsvg-convert", &["rsvg-convert", "--version"]) {
        return;
    }
    for machine in support::machines() {
        let output = run(&machine, &["topology", "--svg", "-"]);
        assert!(output.status.success(), "{machine}: {output:?}");
        let svg = String::from_utf8(output.stdout).unwrap();
        let parsed = roxmltree::Document::parse(&svg);
        assert!(parsed.is_ok(), "{machine}: {parsed:?}");
        assert!(!svg.contains(|c: char| c.is_control() && c != '\n'), "{machine}");
        let list = run(&machine, &["list", "--json", "--no-occupancy"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        for region in list["regions"].as_array().unwrap() {
            let name = region["name"].as_str().unwrap();
            assert!(svg.contains(&format!(">{name}  ")), "{machine}: {name} is not in it");
            for gpu in region["gpus"].as_array().unwrap() {
                let address = gpu["address"].as_str().unwrap();
                assert!(svg.contains(&format!(">GPU {address}<")), "{machine}: {address}");
            }
        }
        let png = fed(&mut Command::new("rsvg-convert"), svg.as_bytes());
        assert!(png.status.success() && png.stdout.starts_with(b"\x89PNG"), "{machine}: {png:?}");
    }
}

#[test]
fn the_picture_in_the_readme_is_up_to_date() {
    let drawn = run("claims-two-pieces", &["topology", "--svg", "-"]).stdout;
    let path = support::fixtures().join("../../docs/topology.svg");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &drawn).unwrap();
    }
    assert!(fs::read(path).unwrap() == drawn, "run `make golden`");
}

#[test]
fn the_picture_of_a_guest_shows_what_stanza_writes() {
    let base = support::fixtures().join("../../examples/base.xml");
    let output = Command::new(PROGRAM)
        .args(["--from", "tests/fixtures/gb200-full-gpu-list", "stanza", "--all", "--complete"])
        .arg("--domain")
        .arg(base)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let domain = String::from_utf8(output.stdout).unwrap();
    let domain = roxmltree::Document::parse(&domain).unwrap();
    let picture = support::fixtures().join("../../docs/guest.svg");
    let picture = fs::read_to_string(picture).unwrap();
    let picture = roxmltree::Document::parse(&picture).unwrap();
    let texts: BTreeSet<_> = picture
        .descendants()
        .filter(|it| it.has_tag_name("text"))
        .filter_map(|it| it.text())
        .collect();
    let all = |name| domain.descendants().filter(move |it| it.has_tag_name(name));
    let below = |it: roxmltree::Node<'_, '_>, name: &str, attribute: &str| {
        let found = it.descendants().find(|it| it.has_tag_name(name)).unwrap();
        found.attribute(attribute).or(found.text()).unwrap().to_owned()
    };
    let mut expected = Vec::new();
    for cell in all("cell").filter(|cell| cell.attribute("cpus").is_some()) {
        let (id, cpus) = (cell.attribute("id").unwrap(), cell.attribute("cpus").unwrap());
        let (first, last) = cpus.split_once('-').unwrap();
        let pin = |cpu| {
            let pin = all("vcpupin").find(|pin| pin.attribute("vcpu") == Some(cpu));
            pin.and_then(|pin| pin.attribute("cpuset")).unwrap()
        };
        let (from, to) = (pin(first), pin(last));
        expected.push(format!(
            "cell {id}: virtual CPUs {cpus}, pinned to CPUs {from}-{to} of the host"
        ));
    }
    for controller in all("controller") {
        let index = controller.attribute("index").unwrap();
        match controller.attribute("model") {
            Some("pcie-expander-bus") => {
                let bus = below(controller, "target", "busNr");
                let node = below(controller, "node", "");
                expected.push(format!("index {index}, busNr {bus}, node {node}"));
            }
            Some("pcie-root-port") => expected.push(format!("index {index}")),
            _ => {}
        }
    }
    expected.extend(all("iommu").map(|it| format!("pciBus {}", below(it, "driver", "pciBus"))));
    for gpu in all("hostdev") {
        let alias = below(gpu, "alias", "name");
        let addresses: Vec<_> = gpu.descendants().filter(|it| it.has_tag_name("address")).collect();
        let part = |at: usize, name| &addresses[at].attribute(name).unwrap()[2..];
        expected.push(format!("{alias}: GPU {}:{}:00.0", part(0, "domain"), part(0, "bus")));
        let bus = u8::from_str_radix(part(1, "bus"), 16).unwrap();
        expected.push(format!("on bus {bus} of the guest, by iommufd"));
        expected.push(format!("its own memory: cells {}", below(gpu, "acpi", "nodeset")));
    }
    for memory in all("memory").filter(|it| it.attribute("model") == Some("egm")) {
        let size: f64 = below(memory, "size", "none").parse().unwrap();
        let alias = below(memory, "pciDev", "");
        expected.push(format!("{:.1} GiB for {alias}", size / f64::from(1 << 20)));
    }
    assert_eq!(expected.len(), 2 + 8 + 4 + 12 + 4);
    for text in expected {
        assert!(texts.contains(text.as_str()), "{text}: {texts:?}");
    }
}

/// One process parses the metrics of all machines, each by its name in a JSON document.
const PARSER: &str = "import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
def samples(text):
    names = set()
    for family in parse(text):
        assert family.type == 'gauge' and family.documentation, family
        assert family.name not in names, family.name
        names.add(family.name)
        labels = [tuple(sorted(sample.labels.items())) for sample in family.samples]
        assert len(labels) == len(set(labels)), family
        for sample in family.samples:
            yield [sample.name, sample.labels, sample.value]
texts = json.load(sys.stdin)
print(json.dumps({machine: list(samples(text)) for machine, text in texts.items()}))
";

#[test]
fn metrics_are_what_prometheus_reads() {
    if !can("the Prometheus parser", &["/usr/bin/python3", "-c", "import prometheus_client.parser"])
    {
        return;
    }
    let written: BTreeMap<String, String> = support::machines()
        .into_iter()
        .map(|machine| {
            let output = run(&machine, &["metrics"]);
            assert!(output.status.success() && output.stderr.is_empty(), "{machine}: {output:?}");
            (machine, String::from_utf8(output.stdout).unwrap())
        })
        .collect();
    let texts = serde_json::to_vec(&written).unwrap();
    let read = fed(Command::new("/usr/bin/python3").args(["-c", PARSER]), &texts);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let read: BTreeMap<String, Vec<(String, Value, f64)>> =
        serde_json::from_slice(&read.stdout).unwrap();
    for (machine, text) in written {
        let samples = &read[&machine];
        let lines = text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples.len(), lines, "{machine}");
        let values = |name: &str| -> Vec<f64> {
            let own = samples.iter().filter(|(it, ..)| it == name);
            own.map(|(.., value)| *value).collect()
        };
        let list = run(&machine, &["list", "--json"]);
        let list: Value = serde_json::from_slice(&list.stdout).unwrap();
        // A lease that cannot be read makes a region unknown, too.
        let is_complete = list["occupancy"] == "complete" && machine != "leases-broken";
        let complete = values("egm_scan_complete");
        assert_eq!(complete, [f64::from(u8::from(is_complete))], "{machine}");
        let exist = list["regions"].as_array().unwrap().iter().filter(|it| it["gone"] == false);
        let exist = f64::from(u32::try_from(exist.count()).unwrap());
        let counted = values("egm_regions");
        assert!(counted.is_empty() || counted == [exist], "{machine}: {counted:?}");
    }
}

#[test]
fn files_are_replaced_atomically() {
    let folder = tempfile::tempdir().unwrap();
    for (args, begins) in [(&["metrics", "-o"][..], "# HELP"), (&["topology", "--svg"], "<svg")] {
        let path = folder.path().join("out");
        fs::write(&path, "old").unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let output = run("claims-vm", &[args, &[path.to_str().unwrap()]].concat());
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(fs::read_to_string(&path).unwrap().starts_with(begins));
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode, "another file was put in its place");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
        let nowhere = folder.path().join("no/such/out");
        let output = run("claims-vm", &[args, &[nowhere.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let output = run("claims-vm", &[args, &["/dev/null"]].concat());
        assert_eq!(output.status.code(), Some(4), "a device is not replaced: {output:?}");
    }
}
