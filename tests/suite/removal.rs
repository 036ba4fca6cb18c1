//! `stanza --remove` and `--move-to`: what was put in can be taken out and moved.

use egm_probe::check::{CheckOptions, Severity, check};
use egm_probe::domain::{Document, Domain};
use egm_probe::plan::{DistanceChoice, Plan, Request};
use egm_probe::report::Report;
use egm_probe::stanza::{Options, Parts, Removal, Rest, Stanza};
use egm_probe::sysroot::Sysroot;
use egm_probe::values::Bytes;
use regex::Regex;

use crate::stanza::{fed, fixture, stanza, text};
use crate::support::{machine, machines};

/// A domain without EGM and with what EGM requires.
pub(crate) const PLAIN: &str = "<domain type='kvm'>
  <name>vm1</name>
  <memory unit='GiB'>4</memory>
  <vcpu>8</vcpu>
  <os firmware='efi'>
    <type arch='aarch64' machine='virt'>hvm</type>
  </os>
  <features>
    <acpi/>
  </features>
  <devices>
    <console type='pty'/>
  </devices>
</domain>
";

/// Domains without EGM, GPUs and memory backing, in several styles.
fn bases() -> Vec<String> {
    vec![
        PLAIN.into(),
        PLAIN.replace('\n', "\r\n"),
        PLAIN.replace("  ", "\t"),
        PLAIN.replace("  <os ", "  <cpu mode='host-passthrough'/>\n  <os "),
        fixture("stanza/virt-install.xml"),
        fixture("stanza/pinned-crlf.xml"),
    ]
}

/// A domain without its memory and cells.
fn without_memory(domain: &str) -> String {
    let memory = Regex::new(r"\s*<(memory|maxMemory|currentMemory)\b[^>]*>[^<]*</\w+>").unwrap();
    let numa = Regex::new(r"(?s)\s*<numa>.*</numa>").unwrap();
    let domain = memory.replace_all(domain, "");
    numa.replace_all(&domain, "").into_owned()
}

/// The parts of the machine to write: buses, distances, pinning.
const PARTS: [(bool, bool, bool); 4] =
    [(false, false, false), (true, false, false), (false, true, true), (true, true, true)];

#[test]
fn what_was_put_in_is_taken_out_without_a_trace() {
    let bases = bases();
    let (mut count, mut refused) = (0, 0);
    for name in machines() {
        let root = Sysroot::capture(&machine(&name)).unwrap();
        let report = Report::read(&root, Plan::MACHINE_NEEDS);
        let regions = report.host.regions.iter().map(|region| vec![region.name.clone()]);
        let every: Vec<_> = report.host.regions.iter().map(|region| region.name.clone()).collect();
        for (pci, distances, pinning) in PARTS {
            for regions in regions.clone().chain([every.clone()]) {
                let base = &bases[(count + refused) % bases.len()];
                if pinning && base.contains("<vcpupin") {
                    // Its own could not be told from those that are added.
                    refused += 1;
                    continue;
                }
                let mut request = Request::of_regions(regions.clone());
                request.force = true;
                request.gpu_cells = if pci { 8 } else { 0 };
                request.machine.pci = pci;
                request.machine.distances = distances.then_some(DistanceChoice::Known);
                request.machine.pinning = pinning;
                let mut parts = Parts::default();
                (parts.hostdev, parts.numa) = (true, true);
                let options = Options::of(parts);
                let document = Document::parse(base).unwrap();
                let Ok(plan) = Plan::new(&report, &request, Some(document.domain())) else {
                    refused += 1;
                    continue;
                };
                let Ok(whole) = Stanza::within(&report, plan, &document, &options) else {
                    refused += 1;
                    continue;
                };
                let mut removal = Removal::default();
                (removal.regions, removal.memory) = (regions, Some(Bytes(8 << 30)));
                (removal.hostdev, removal.pci, removal.pinning) = (true, pci, pinning);
                let whole = Document::parse(&whole.xml).unwrap();
                let rest = Rest::of(&report, &whole, &removal, &options).unwrap();
                assert_eq!(without_memory(&rest.xml), without_memory(base), "{name} {removal:?}");
                let memory = Domain::parse(&rest.xml).unwrap().memory.unwrap().value;
                assert_eq!(memory, Some(Bytes(8 << 30)), "{name} {removal:?}");
                count += 1;
            }
        }
    }
    eprintln!("{count} domains, {refused} refused");
    assert!(count > 200, "{count} domains, {refused} refused");
}

/// Runs `stanza` on a domain; returns the output, or the messages of a refusal.
pub(crate) fn run(host: &str, args: &[&str], domain: &str) -> Result<String, String> {
    let args = [args, &["--domain", "-"]].concat();
    let output = fed(&mut stanza(host, &args), domain.as_bytes());
    match output.status.code() {
        Some(0) => Ok(text(&output.stdout)),
        Some(1) => Err(text(&output.stderr)),
        code => panic!("{host} {args:?}: {code:?}: {}", text(&output.stderr)),
    }
}

/// Checks that there are no findings but those about policy.
fn check_clean(host: &str, domain: &str) {
    let root = Sysroot::capture(&machine(host)).unwrap();
    let report = Report::read(&root, Plan::MACHINE_NEEDS);
    let document = Document::parse(domain).unwrap();
    let options = CheckOptions { report: Some(&report), ..CheckOptions::default() };
    let is_wrong = |severity| matches!(severity, Severity::Error | Severity::Warning);
    for finding in check(document.domain(), &options) {
        let is_policy = ["EGM106", "EGM107"].contains(&finding.rule.code);
        assert!(is_policy || !is_wrong(finding.severity), "{host}: {finding:?}\n{domain}");
    }
}

const GB200: &str = "gb200-full-gpu-list";

fn complete(host: &str, args: &[&str]) -> String {
    run(host, &[args, &["--complete"]].concat(), PLAIN).unwrap()
}

#[test]
fn what_is_left_is_a_whole_guest() {
    let whole = complete(GB200, &["--all"]);
    let socket = run(GB200, &["--remove", "--region", "egm5", "--with", "all"], &whole).unwrap();
    check_clean(GB200, &socket);
    let domain = Domain::parse(&socket).unwrap();
    assert_eq!((domain.cells.len(), domain.egm.len(), domain.iommus.len()), (17, 2, 2));
    assert_eq!(domain.cells[0].cpus.as_ref().unwrap().text, "0-7", "it has all CPUs");
    assert!(domain.pins.len() == 8 && socket.contains("<acpi nodeset='9-16'/>"), "{socket}");
    // One GPU of each socket: both cells stay.
    let gpus = ["--remove", "--gpu", "0009:01:00.0,0019:01:00.0", "--with", "all"];
    let pair = run(GB200, &gpus, &whole).unwrap();
    check_clean(GB200, &pair);
    let domain = Domain::parse(&pair).unwrap();
    assert_eq!((domain.cells.len(), domain.egm.len(), domain.iommus.len()), (18, 2, 2));
    let half = domain.egm[0].size.as_ref().unwrap().value;
    assert_eq!(domain.cells[0].memory.as_ref().unwrap().value, half, "the size stays");
    // Their memory alone: GPUs, cells and buses stay, and so do the CPUs of the cell.
    let memory = run(GB200, &["--remove", "--region", "egm5"], &whole).unwrap();
    let domain = Domain::parse(&memory).unwrap();
    assert_eq!((domain.cells.len(), domain.hostdevs.len(), domain.egm.len()), (34, 4, 2));
    assert_eq!(domain.cells[1].memory.as_ref().unwrap().value, Some(Bytes(0)));
}

#[test]
fn whatever_names_a_cell_is_renumbered() {
    let whole = complete(GB200, &["--all"]);
    let args = ["--remove", "--region", "egm4", "--with", "all"];
    let rest = run(GB200, &args, &whole).unwrap();
    let with = |domain: &str, cells: &[&str]| {
        let page = |cells: &&str| format!("      <page size='2' unit='MiB' nodeset='{cells}'/>\n");
        let pages: String = cells.iter().map(page).collect();
        let pages = format!("<memoryBacking>\n    <hugepages>\n{pages}    </hugepages>\n");
        let pages = if cells.is_empty() { "<memoryBacking>\n" } else { &pages };
        domain.replace("<memoryBacking>\n", pages)
    };
    for (before, after) in
        [(&["1"][..], &["0"][..]), (&["0-1"], &["0"]), (&["0", "1"], &["0"]), (&["0"], &[])]
    {
        let written = run(GB200, &args, &with(&whole, before)).unwrap();
        assert_eq!(written, with(&rest, after), "{before:?}");
    }
    let commented = whole.replace("<node>1</node>", "<node><!-- second socket -->1</node>");
    assert_eq!(run(GB200, &args, &commented).unwrap(), rest);
    let latency = |initiator, target| {
        format!("<latency initiator='{initiator}' target='{target}' type='access' value='5'/>")
    };
    let between =
        |latencies: &str| format!("      <interconnects>{latencies}</interconnects>\n    </numa>");
    let latencies = between(&[latency(0, 1), latency(1, 0), latency(1, 1)].concat());
    let written = run(GB200, &args, &whole.replace("    </numa>", &latencies)).unwrap();
    assert_eq!(written, rest.replace("    </numa>", &between(&latency(0, 0))));
}

/// libvirt numbers controllers without an index itself, and accepts a comma at the end of a list.
#[test]
fn a_domain_may_leave_out_what_libvirt_adds() {
    let whole = complete(GB200, &["--all"]);
    let index = Regex::new(r"(<controller type='pci') index='\d+'").unwrap();
    let domain = index.replace_all(&whole, "$1").replace("cpus='0-3'", "cpus='0-3,'");
    assert_ne!(domain, whole);
    check_clean(GB200, &domain);
    assert_eq!(run(GB200, &["--all", "--complete"], &domain).unwrap(), domain, "a second run");
    let root = "    <controller type='pci' model='pcie-root'/>\n";
    let base = PLAIN.replace("  </devices>", &format!("{root}  </devices>"));
    let domain = run(GB200, &["--all", "--complete"], &base).unwrap();
    check_clean(GB200, &domain);
    assert_eq!(domain.matches("'pcie-root'").count(), 1, "{domain}");
}

/// Arguments for QEMU that name cells are not renumbered.
#[test]
fn cells_in_arguments_keep_their_numbers() {
    let arguments = |values: &str| {
        let values: Vec<_> =
            values.split(' ').map(|value| format!("<qemu:arg value='{value}'/>")).collect();
        let values = values.concat();
        format!(
            "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>{values}</qemu:commandline></domain>"
        )
    };
    let whole = complete(GB200, &["--all"]);
    let initiator = "-object acpi-generic-initiator,id=gi0,pci-dev=ua-hostdev0,node=";
    for (values, problem) in [
        (&format!("{initiator}2")[..], Some("depend on the NUMA cells")),
        ("-numa hmat-lb,initiator=0,target=1", Some("depend on the NUMA cells")),
        ("-blockdev driver=file,node-name=disk0,filename=/x", None),
    ] {
        let domain = whole.replace("</domain>", &arguments(values));
        let args = ["--remove", "--region", "egm5", "--with", "all"];
        let refused = run(GB200, &args, &domain).err();
        assert_eq!(refused.is_some(), problem.is_some(), "{values}: {refused:?}");
        assert!(refused.unwrap_or_default().contains(problem.unwrap_or_default()), "{values}");
    }
    // Cells for a GPU's memory, which only the arguments name, are not used for a region.
    let socket = run(GB200, &["--region", "egm4", "--with", "hostdev,numa"], PLAIN).unwrap();
    let empty = |id| format!("      <cell id='{id}' memory='0' unit='KiB'/>\n    </numa>");
    let socket = (1..9).fold(socket, |text, id| text.replace("    </numa>", &empty(id)));
    let socket = socket.replace("</domain>", &arguments(&format!("{initiator}1")));
    let both = run(GB200, &["--region", "egm5", "--with", "hostdev,numa"], &socket).unwrap();
    let cells = Domain::parse(&both).unwrap().egm.into_iter().filter_map(|it| it.cell?.value);
    assert_eq!(cells.collect::<Vec<_>>(), [0, 0, 9, 9], "{both}");
}

#[test]
fn other_parts_of_a_domain_stay_as_they_were_chosen() {
    let whole = complete(GB200, &["--all"]);
    let remove = |args: &[&str], domain: &str| {
        run(GB200, &[&["--remove", "--with", "all"], args].concat(), domain).unwrap()
    };
    let all = ["--all", "--memory", "16GiB"];
    // Room for memory that is added later.
    let maximum =
        |unit: &str, size| format!("<maxMemory slots='16' unit='{unit}'>{size}</maxMemory>");
    let old = whole.split_once("<maxMemory").unwrap().1.split_once("</maxMemory>").unwrap().0;
    let old = format!("<maxMemory{old}</maxMemory>");
    let roomy = whole.replace(&old, &maximum("TiB", 4));
    assert!(remove(&["--region", "egm5"], &roomy).contains(&maximum("TiB", 4)));
    assert!(remove(&all, &roomy).contains(&maximum("TiB", 4)));
    let exact = whole.replace(&old, &old.replace("<maxMemory", "<maxMemory slots='16'"));
    assert!(remove(&all, &exact).contains(&maximum("KiB", 16 << 20)));
    // Memory backing that says more.
    let threads = "<allocation threads='16' mode='immediate'/>";
    for threads in [threads, "<allocation mode='immediate' threads='16'/>"] {
        let domain = whole.replace("<allocation mode='immediate'/>", threads);
        assert_ne!(domain, whole);
        assert!(remove(&all, &domain).contains(threads));
    }
    // A USB device needs no window for large PCI devices.
    let usb = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>";
    let domain = whole.replace("  </devices>", &format!("  {usb}</devices>"));
    let rest = remove(&all, &domain);
    assert!(rest.contains(usb) && !rest.contains("pcihole64"), "{rest}");
}

/// The memory of other cells and devices is part of the domain's.
#[test]
fn a_domain_gets_the_memory_that_is_asked_for() {
    let whole = run(GB200, &["--region", "egm4", "--with", "hostdev,numa"], PLAIN).unwrap();
    let own = "      <cell id='1' memory='4' unit='GiB'/>\n    </numa>";
    let whole = whole.replace("    </numa>", own);
    let remove = |memory| run(GB200, &["--remove", "--all", "--memory", memory], &whole);
    let domain = Domain::parse(&remove("16GiB").unwrap()).unwrap();
    let sizes =
        domain.cells.iter().map(|cell| cell.memory.as_ref().unwrap().value.unwrap().0 >> 30);
    assert_eq!(sizes.collect::<Vec<_>>(), [12, 4]);
    assert_eq!(domain.memory.unwrap().value, Some(Bytes(16 << 30)));
    let refused = remove("2GiB").unwrap_err();
    assert!(refused.contains("less than the 4 GiB of other cells"), "{refused}");
    // One region after the other: the NIC keeps the cell that is empty then.
    let whole = complete("gb200-two-nics", &["--all", "--device", "0010:01:00.0"]);
    let args = ["--remove", "--region", "egm5", "--with", "all"];
    let socket = run("gb200-two-nics", &args, &whole).unwrap();
    let args = ["--remove", "--all", "--with", "all", "--memory", "16GiB"];
    let rest = run("gb200-two-nics", &args, &socket).unwrap();
    let cells = Domain::parse(&rest).unwrap().cells.into_iter();
    let sizes = cells.map(|cell| cell.memory.unwrap().value.unwrap().0 >> 30);
    assert_eq!(sizes.collect::<Vec<_>>(), [8, 8]);
}

/// Taking EGM out does not depend on what was wrong with the rest.
#[test]
fn an_obsolete_element_does_not_prevent_removal() {
    let whole = complete(GB200, &["--all"]);
    let obsolete = "    <acpiEgmMemory><alias name='egm0'/></acpiEgmMemory>\n  </devices>";
    let domain = whole.replace("  </devices>", obsolete);
    let args = ["--remove", "--all", "--with", "all", "--memory", "16GiB"];
    assert!(run(GB200, &args, &domain).unwrap().contains("acpiEgmMemory"));
}

#[test]
fn a_second_run_takes_nothing_out() {
    let whole = complete(GB200, &["--all"]);
    let args = ["--remove", "--region", "egm5", "--with", "all"];
    let socket = run(GB200, &args, &whole).unwrap();
    assert_eq!(run(GB200, &args, &socket).unwrap(), socket);
}

#[test]
fn other_devices_keep_their_buses() {
    let nics = ["--all", "--device", "0010:01:00.0"];
    let whole = complete("gb200-two-nics", &nics);
    let args = ["--remove", "--all", "--memory", "8GiB", "--with", "all"];
    let rest = run("gb200-two-nics", &args, &whole).unwrap();
    let domain = Domain::parse(&rest).unwrap();
    assert_eq!((domain.hostdevs.len(), domain.iommus.len(), domain.cells.len()), (1, 1, 2));
    let memory = domain.cells.iter().map(|cell| cell.memory.as_ref().unwrap().value.unwrap().0);
    assert_eq!(memory.collect::<Vec<_>>(), [4 << 30, 4 << 30], "its bus is near to one of them");
    let args = ["--remove", "--device", "0010:01:00.0", "--with", "all"];
    let rest = run("gb200-two-nics", &args, &whole).unwrap();
    check_clean("gb200-two-nics", &rest);
    assert_eq!(rest, complete("gb200-two-nics", &["--all"]));
    // The memory of a domain without EGM is its own.
    let device = "    <hostdev mode='subsystem' type='pci' managed='yes'>\n      <source>\n        \
        <address domain='0x0010' bus='0x01' slot='0x00' function='0x0'/>\n      </source>\n    \
        </hostdev>\n";
    let plain = PLAIN.replace("  <memory", "  <maxMemory unit='GiB'>9</maxMemory>\n  <memory");
    let with_nic = plain.replace("  </devices>", &format!("{device}  </devices>"));
    assert_eq!(run("gb200-two-nics", &args, &with_nic).unwrap(), plain);
}

#[test]
fn the_memory_of_a_domain_without_egm_must_be_known() {
    let whole = complete(GB200, &["--all"]);
    let problem = run(GB200, &["--remove", "--all"], &whole).unwrap_err();
    assert!(problem.contains("as in --memory 16GiB"), "{problem}");
    let args = ["--remove", "--region", "egm4", "--memory", "16GiB"];
    let problem = run(GB200, &args, &whole).unwrap_err();
    assert!(problem.contains("2 EGM devices would be left"), "{problem}");
}

#[test]
fn a_domain_moves_to_another_region() {
    for (host, to) in [(GB200, vec!["egm5"]), ("gh200-quad", vec!["egm5", "egm6", "egm7"])] {
        let before = complete(host, &["--region", "egm4", "--size", "2GiB"]);
        let mut moved = before.clone();
        for region in to {
            moved = run(host, &["--move-to", region], &moved).unwrap();
            check_clean(host, &moved);
            let domain = Domain::parse(&moved).unwrap();
            let path = format!("/dev/{region}");
            assert!(domain.egm.iter().all(|it| it.path.as_ref().unwrap().text == path), "{moved}");
            // The same as if it had been put there in the first place.
            let direct = complete(host, &["--region", region, "--size", "2GiB"]);
            assert_eq!(moved, direct, "{host} {region}");
        }
        let policy = |node| {
            let policy = format!(
                "<numatune><memory mode='strict' nodeset='{node}'/><memnode cellid='0' mode='strict' \
                 nodeset='{node}'/></numatune>"
            );
            move |domain: &str| domain.replace("  <os ", &format!("  {policy}<os "))
        };
        let first = run(host, &["--move-to", "egm5"], &before).unwrap();
        let numatune = run(host, &["--move-to", "egm5"], &policy(0)(&before)).unwrap();
        assert_eq!(numatune, policy(1)(&first));
        let back = run(host, &["--move-to", "egm4"], &moved).unwrap();
        assert_eq!(back, before, "{host}");
        // Pinning is read as libvirt reads it.
        let first = Domain::parse(&before).unwrap().pins[0].cpus.text.parse::<u32>().unwrap();
        let spelt = before.replacen(
            &format!("cpuset='{first}'"),
            &format!("cpuset='{first} - {next},^{next}'", next = first + 1),
            1,
        );
        assert_ne!(spelt, before);
        assert_eq!(
            run(host, &["--move-to", "egm5"], &spelt).unwrap(),
            run(host, &["--move-to", "egm5"], &before).unwrap()
        );
    }
}

#[test]
fn a_region_that_does_not_do_is_refused() {
    let both = complete(GB200, &["--all"]);
    let one = complete(GB200, &["--region", "egm4"]);
    for (host, domain, to, expected) in [
        (GB200, both.as_str(), "egm5", "the domain already has EGM of egm5"),
        (GB200, &one, "egm9", "no region egm9"),
        (GB200, PLAIN, "egm5", "the domain has no EGM"),
        ("claims-vm", &one, "egm4", "already has EGM of egm4"),
    ] {
        let problem = run(host, &["--move-to", to], domain).unwrap_err();
        assert!(problem.contains(expected), "{expected}: {problem}");
    }
    let quad = complete("gh200-quad", &["--region", "egm4,egm5"]);
    let problem = run("gh200-quad", &["--move-to", "egm6"], &quad).unwrap_err();
    assert!(problem.contains("egm4 and egm5; say which one with --region"), "{problem}");
    let moved = run("gh200-quad", &["--move-to", "egm6", "--region", "egm5"], &quad).unwrap();
    check_clean("gh200-quad", &moved);
}

#[test]
fn a_region_may_be_named_by_a_link_of_udev() {
    const HOST: &str = "gb200-links";
    let (egm4, egm5) = ("/dev/grace-egm/by-node/0", "/dev/grace-egm/by-node/1");
    let domain = complete(HOST, &["--region", "egm4"]);
    assert_eq!(complete(HOST, &["--region", egm4]), domain);
    assert_eq!(complete(HOST, &["--region", &format!("{egm4},egm5")]), complete(HOST, &["--all"]));
    for [link, name] in [
        [&["--move-to", egm5][..], &["--move-to", "egm5"]],
        [&["--move-to", egm5, "--region", egm4], &["--move-to", "egm5", "--region", "egm4"]],
        [
            &["--remove", "--region", egm4, "--memory", "16GiB"],
            &["--remove", "--region", "egm4", "--memory", "16GiB"],
        ],
    ] {
        assert_eq!(
            run(HOST, link, &domain).unwrap(),
            run(HOST, name, &domain).unwrap(),
            "{link:?}"
        );
    }
    for option in ["--region", "--move-to"] {
        let problem = run(HOST, &[option, "/dev/grace-egm/by-node/2"], &domain).unwrap_err();
        assert!(problem.contains("by-node/2: not the device of a region; this host"), "{problem}");
    }
}

#[test]
fn what_neither_the_domain_nor_the_host_has_is_refused() {
    let host = "gb200-full-gpu-list";
    let domain = run(host, &["--region", "egm4", "--complete"], PLAIN).unwrap();
    for (args, problem) in [
        (["--region", "egm9"], "no region egm9; this host has egm4, egm5"),
        (["--gpu", "0055:01:00.0"], "no GPU 0055:01:00.0 on this host"),
    ] {
        let refused = run(host, &[&["--remove"], &args[..]].concat(), &domain).unwrap_err();
        assert!(refused.contains(problem), "{refused}");
    }
    let again = run(host, &["--remove", "--region", "egm5"], &domain).unwrap();
    assert_eq!(again, domain, "it may have been removed before");
    let args = ["--remove", "--all", "--memory", "0", "--domain", "-"];
    let output = fed(&mut stanza(host, &args), domain.as_bytes());
    let refused = text(&output.stderr);
    assert!(
        output.status.code() == Some(2) && refused.contains("a domain needs memory"),
        "{refused}"
    );
}
