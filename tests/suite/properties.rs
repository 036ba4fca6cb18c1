//! Properties that hold for any host and any selection of its GPUs.

use std::collections::{BTreeMap, BTreeSet};

use egm_probe::check::{CheckOptions, Severity, check};
use egm_probe::domain::{Document, Domain};
use egm_probe::plan::{Plan, Request, Size};
use egm_probe::report::Report;
use egm_probe::stanza::{Options, Parts, Stanza};
use egm_probe::sysroot::Sysroot;
use egm_probe::values::Bytes;
use proptest::prelude::*;

use crate::support::machines::host_of;

const MIB: u64 = 1 << 20;

/// Regions: the number of each, its size in MiB per GPU, and the number of its GPUs.
type Regions = Vec<(u32, u64, u8)>;

fn regions() -> impl Strategy<Value = Regions> {
    let numbers = prop::collection::btree_set(0_u32..300, 1..5);
    numbers.prop_flat_map(|numbers| {
        let each = |number| (Just(number), (1_u64..200_000).prop_map(|mib| 2 * mib), 1_u8..5);
        numbers.into_iter().map(each).collect::<Vec<_>>()
    })
}

fn report(regions: &Regions) -> Report {
    let tar = host_of(regions).tar();
    Report::read(&Sysroot::from_tar(&tar[..]).unwrap(), Plan::NEEDS)
}

/// A typical domain: with or without cells, CPUs, and a GPU of the host.
const BASES: [&str; 5] = [
    "<domain><name>a</name><devices/></domain>",
    "<domain type='kvm'>\n\t<name>b</name>\n\t<memory>1</memory>\n\t<vcpu>7</vcpu>\n\t<devices>\n\t</devices>\n</domain>",
    "<domain><name>c</name><maxMemory slots='1'>1</maxMemory><memory unit='GiB'>4</memory><vcpu>2</vcpu><cpu><numa>\
     <cell id='0' cpus='0-1' memory='4' unit='GiB'/></numa></cpu><devices>\
     <memory model='dimm'/><hostdev type='pci'><source>\
     <address domain='0' bus='1' slot='0' function='0'/></source></hostdev></devices></domain>",
    "<domain><name>d</name><maxMemory>1</maxMemory><currentMemory>1</currentMemory><memoryBacking/>\
     <cpu/><devices><hostdev type='pci'><source><address domain='0x8' bus='1' slot='0' function='0'/>\
     </source><alias name='ua-mine'/></hostdev></devices></domain>",
    "<domain><name>e</name><memory unit='GiB'>8</memory><cpu><numa>\
     <cell id='0' memory='4' unit='GiB'/><cell id='1' memory='4' unit='GiB'/></numa></cpu><devices>\
     <hostdev type='pci'><source><address domain='0x8' bus='1' slot='0' function='0'/></source>\
     <alias name='hostdev7'/></hostdev><memory model='egm' access='shared'>\
     <source><path>/dev/by-another-name</path></source><target><size unit='GiB'>4</size>\
     <node>1</node><pciDev>hostdev7</pciDev></target></memory></devices></domain>",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_right_adds_up_and_is_read_back(
        regions in regions(),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        (all, peers, gpu_cells) in (any::<bool>(), any::<bool>(), 0_u32..4),
        size in prop::option::of((1_u64..150).prop_map(|mib| 2 * mib)),
        vcpus in prop::option::of(1_u32..200),
        base in 0..=BASES.len(),
    ) {
        let report = report(&regions);
        let gpus: Vec<_> = report.host.gpus().map(|(gpu, _)| gpu.address).collect();
        let mut request = if all {
            Request::everything()
        } else {
            Request::of_gpus(chosen.iter().map(|index| *index.get(&gpus)))
        };
        request.peers = peers;
        request.size = size.map_or(Size::Kept, |size| Size::Each(Bytes(size * MIB)));
        request.vcpus = vcpus;
        request.gpu_cells = gpu_cells;
        request.force = true;
        let options = Options::of(Parts::all());
        let base = BASES.get(base);
        let domain = base.map(|base| Domain::parse(base).unwrap());
        let plan = match Plan::new(&report, &request, domain.as_ref()) {
            Ok(plan) => plan,
            // The only possible error here is a size beyond the region: the one that is asked for, or
            // the 4 GiB that the last domain has.
            Err(refused) => {
                let keeps = base == BASES.last();
                prop_assert!(size.is_some() || keeps, "{:?}", refused.refusals);
                let told = refused.refusals.iter().all(|it| it.to_string().contains("are requested"));
                prop_assert!(told, "{:?}", refused.refusals);
                return Ok(());
            }
        };
        let stanza = match base {
            None => Stanza::new(&report, plan.clone(), &options).unwrap(),
            Some(base) => {
                let stanza = Stanza::within(&report, plan.clone(), &Document::parse(base).unwrap(), &options);
                // The EGM device of one GPU belongs to no region, unless it is updated.
                match stanza {
                    Err(error) if base.contains("another-name") => {
                        prop_assert!(error.to_string().contains("is not an EGM region"), "{error}");
                        return Ok(());
                    }
                    stanza => stanza.unwrap(),
                }
            }
        };
        let text = match base {
            None => format!("<domain><name>x</name>{}</domain>", in_devices(&stanza.xml)),
            Some(_) => stanza.xml.clone(),
        };
        let read = Domain::parse(&text).unwrap();
        let errors = || {
            let findings = check(&read, &CheckOptions { report: Some(&report), ..CheckOptions::default() }).into_iter();
            findings.filter(|finding| finding.rule.severity == Severity::Error).collect::<Vec<_>>()
        };
        prop_assert!(errors().is_empty(), "{:?}", errors());

        // The result has exactly the requested GPUs.
        let placed: BTreeSet<_> = plan.placements.iter().map(|placement| placement.gpu).collect();
        if all {
            prop_assert_eq!(&placed, &gpus.iter().copied().collect());
        } else if !peers {
            prop_assert_eq!(&placed, &request.gpus.iter().copied().collect());
        }

        // Parsing the result gives the plan.
        let hostdevs = read.hostdevs_by_alias();
        let mut found = BTreeSet::new();
        let mut sums: BTreeMap<u32, u64> = BTreeMap::new();
        for device in &read.egm {
            let alias = &device.pci_dev.as_ref().unwrap().text;
            let gpu = hostdevs[alias.as_str()].pci().unwrap();
            let cell = device.cell.as_ref().unwrap().value.unwrap();
            let size = device.size.as_ref().unwrap().value.unwrap();
            found.insert((gpu, alias.clone(), device.path.as_ref().unwrap().text.clone(), cell, size));
            *sums.entry(cell).or_default() += size.0;
        }
        let planned: BTreeSet<_> = plan
            .placements
            .iter()
            .map(|it| (it.gpu, it.alias.clone(), it.path.clone(), it.cell, it.size))
            .collect();
        prop_assert_eq!(found, planned);

        // Byte for byte.
        let mut total = 0;
        for cell in &read.cells {
            let memory = cell.memory.as_ref().unwrap().value.unwrap().0;
            let id = cell.id.value.unwrap();
            let expected = sums.get(&id).copied().unwrap_or_else(|| ordinary(domain.as_ref(), id));
            prop_assert_eq!(memory, expected);
            total += memory;
        }
        total += read.other_memory.iter().map(|device| device.counts().0).sum::<u64>();
        prop_assert_eq!(read.memory.as_ref().unwrap().value.unwrap().0, total);
        prop_assert_eq!(plan.memory.0, total);

        // A second run changes nothing.
        let again = Plan::new(&report, &request, Some(&read)).unwrap();
        let again = Stanza::within(&report, again, &Document::parse(&text).unwrap(), &options).unwrap();
        prop_assert_eq!(again.xml, text);
    }

    #[test]
    fn no_text_is_too_strange(text in strange()) {
        if let Ok(domain) = Domain::parse(&text) {
            let report = report(&vec![(4, 64, 2)]);
            let _ = check(&domain, &CheckOptions { report: Some(&report), ..CheckOptions::default() });
            for (force, all) in [(true, true), (false, false)] {
                let gpus = report.host.gpus().map(|(gpu, _)| gpu.address).take(1);
                let mut request = Request::of_gpus(gpus);
                (request.all, request.force, request.gpu_cells) = (all, force, 2);
                let Ok(plan) = Plan::new(&report, &request, Some(&domain)) else { continue };
                let options = Options::of(Parts::all());
                if let Ok(stanza) = Stanza::within(&report, plan, &Document::parse(&text).unwrap(), &options) {
                    let _ = stanza.qemu_arguments();
                    let domain = Domain::parse(&stanza.xml).unwrap();
                    let plan = Plan::new(&report, &request, Some(&domain)).unwrap();
                    let again = Stanza::within(&report, plan, &Document::parse(&stanza.xml).unwrap(), &options);
                    prop_assert_eq!(again.unwrap().xml, stanza.xml);
                }
            }
        }
    }
}

/// The memory of a cell that is not EGM.
fn ordinary(domain: Option<&Domain>, id: u32) -> u64 {
    let Some(domain) = domain else { return 0 };
    let is_egm = domain.egm.iter().any(|device| device.cell.as_ref().unwrap().value == Some(id));
    let cell = domain.cells.iter().find(|cell| cell.id.value == Some(id) && !is_egm);
    cell.map_or(0, |cell| cell.memory.as_ref().unwrap().value.unwrap().0)
}

/// Domains of valid parts in the wrong order, with wrong values.
fn strange() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just(String::new()),
        Just("0".to_owned()),
        Just("1".to_owned()),
        Just("ua-a".to_owned()),
        Just("/dev/egm4".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just("4294967295".to_owned()),
        Just("0-4294967295".to_owned()),
        Just("&#xe9;&amp;".to_owned()),
        "[ -~&&[^<>&'\"]]{0,6}",
    ];
    let names = prop::sample::select(vec![
        "memory",
        "maxMemory",
        "vcpu",
        "cpu",
        "numa",
        "cell",
        "devices",
        "hostdev",
        "source",
        "path",
        "target",
        "size",
        "node",
        "pciDev",
        "alias",
        "acpi",
        "address",
        "memoryBacking",
        "access",
        "name",
        "x:memory",
        "topology",
        "os",
        "loader",
        "features",
        "gic",
    ]);
    let attributes = prop::collection::btree_map(
        prop::sample::select(vec![
            "model", "type", "name", "id", "cpus", "memory", "unit", "nodeset", "domain", "bus",
            "slot", "function", "mode", "access", "sockets", "firmware",
        ]),
        prop_oneof![
            value.clone(),
            Just("egm".to_owned()),
            Just("pci".to_owned()),
            Just("KiB".to_owned())
        ],
        0..4,
    );
    let leaf = value.clone().prop_map(|value| value).boxed();
    let tree = leaf.prop_recursive(6, 48, 6, move |inner| {
        (names.clone(), attributes.clone(), prop::collection::vec(inner, 0..5)).prop_map(
            |(name, attributes, children)| {
                let attributes: Vec<_> =
                    attributes.iter().map(|(name, value)| format!(" {name}='{value}'")).collect();
                let attributes = attributes.concat();
                if children.is_empty() {
                    format!("<{name}{attributes}/>")
                } else {
                    format!("<{name}{attributes}>{}</{name}>", children.concat())
                }
            },
        )
    });
    prop::collection::vec(tree, 0..6).prop_map(|parts| {
        format!(
            "<domain xmlns:x='urn:x'><name>x</name><devices>{}</devices>{}</domain>",
            parts.concat(),
            parts.concat()
        )
    })
}

/// Puts hostdevs and memory devices into `<devices>`, after the other parts.
fn in_devices(xml: &str) -> String {
    let at = xml.find("<hostdev").unwrap();
    format!("{}<devices>{}</devices>", &xml[..at], &xml[at..])
}
