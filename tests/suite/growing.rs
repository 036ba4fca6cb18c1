//! `stanza --complete` on a domain that has EGM: what is grown step by step is as good as what is made
//! at once.

use std::collections::BTreeMap;

use egm_probe::domain::Domain;
use egm_probe::plan::Plan;
use egm_probe::report::Report;
use egm_probe::sysroot::Sysroot;
use regex::Regex;

use crate::removal::{PLAIN, run};
use crate::stanza::{fed, stanza, text};
use crate::support::{machine, machines};
use crate::whole_guest::{check_numbers, codes};

const GB200: &str = "gb200-full-gpu-list";

/// The GPUs of each region of a host, in order.
fn regions(host: &str) -> Vec<Vec<String>> {
    let report = Report::read(&Sysroot::capture(&machine(host)).unwrap(), Plan::NEEDS);
    let regions = report.host.regions.iter();
    let gpus = regions.map(|it| it.gpus.iter().map(|gpu| gpu.address.to_string()).collect());
    gpus.filter(|gpus: &Vec<String>| !gpus.is_empty()).collect()
}

/// Orders in which the GPUs of a host can be added, one list for each step.
fn orders(regions: &[Vec<String>]) -> Vec<Vec<Vec<String>>> {
    let backwards: Vec<_> = regions.iter().rev().cloned().collect();
    let single: Vec<_> = regions.iter().flatten().map(|gpu| vec![gpu.clone()]).collect();
    let first_of_each = (0..4).map(|nth| {
        regions.iter().rev().filter_map(|gpus| gpus.get(nth).cloned()).collect::<Vec<_>>()
    });
    let first_of_each: Vec<_> = first_of_each.filter(|gpus| !gpus.is_empty()).collect();
    vec![regions.to_vec(), single, backwards, first_of_each]
}

fn add(host: &str, gpus: &[String], domain: &str) -> Result<String, String> {
    run(host, &["--gpu", &gpus.join(","), "--complete", "--force"], domain)
}

#[test]
fn a_domain_grows_to_what_is_made_at_once() {
    let mut hosts = 0;
    for host in machines() {
        let regions = regions(&host);
        let base = PLAIN.replace("<vcpu>8", "<vcpu>12");
        if regions.len() < 2 {
            continue;
        }
        let Ok(at_once) = add(&host, &regions.concat(), &base) else { continue };
        let expected = codes(&host, &at_once);
        for (position, order) in orders(&regions).iter().enumerate() {
            let mut domain = base.clone();
            for gpus in order {
                domain = add(&host, gpus, &domain).unwrap();
            }
            assert_eq!(codes(&host, &domain), expected, "{host} {order:?}: {domain}");
            check_numbers(&Domain::parse(&domain).unwrap());
            // The first orders are those of the addresses.
            assert!(position > 1 || domain == at_once, "{host} {order:?}: {domain}");
            assert_eq!(add(&host, &regions.concat(), &domain).unwrap(), domain, "a second run");
        }
        hosts += 1;
    }
    eprintln!("{hosts} hosts");
    assert!(hosts > 15, "{hosts}");
}

#[test]
fn a_region_that_was_taken_out_comes_back() {
    for host in [GB200, "gh200-quad", "gb300-gpu-list", "gb200-gpu-list"] {
        let regions = regions(host);
        for vcpus in [8, 9, 3] {
            let base = PLAIN.replace("<vcpu>8", &format!("<vcpu>{vcpus}"));
            let at_once = add(host, &regions.concat(), &base).unwrap();
            let expected = codes(host, &at_once);
            let mut domain = at_once.clone();
            for gpus in &regions {
                let gpus = gpus.join(",");
                let args = ["--remove", "--gpu", &gpus, "--with", "all"];
                domain = run(host, &args, &domain).unwrap();
                let smaller = Domain::parse(&domain).unwrap();
                assert_eq!(smaller.cells.len() % 8, regions.len() - 1, "{host}: {domain}");
                assert!(!codes(host, &domain).contains("EGM111"), "{host}: {domain}");
                assert!(
                    !domain.contains("<vcpupin") || smaller.pins.len() == vcpus,
                    "{host}: {domain}"
                );
                domain = add(host, &[gpus], &domain).unwrap();
                assert_eq!(codes(host, &domain), expected, "{host} {vcpus}: {domain}");
            }
            assert_eq!(parts(&domain), parts(&at_once), "{host} {vcpus}: {domain}");
        }
    }
}

#[test]
fn numbers_of_its_own_are_kept_or_refused() {
    let regions = regions(GB200);
    let one = add(GB200, &regions[0], PLAIN).unwrap();
    for (old, new, problem) in [
        ("cpuset='71'", "cpuset='20'", "virtual CPU 4 moves to another guest NUMA node"),
        // The same CPUs in another order.
        (
            "cpuset='70'/>\n    <vcpupin vcpu='7' cpuset='71'",
            "cpuset='71'/>\n    <vcpupin vcpu='7' cpuset='70'",
            "virtual CPU 4 moves to another guest NUMA node",
        ),
        ("cpus='0-7'", "cpus='0-3'", "assigns its virtual CPUs to NUMA nodes in its own way"),
    ] {
        let domain = one.replace(old, new);
        assert_ne!(domain, one);
        let refused = add(GB200, &regions[1], &domain).unwrap_err();
        assert!(refused.contains(problem) && refused.contains("--replace"), "{refused}");
        let args = ["--gpu", &regions[1].join(","), "--complete", "--replace"];
        let domain = run(GB200, &args, &domain).unwrap();
        assert!(codes(GB200, &domain).is_empty(), "{domain}");
        let domain = Domain::parse(&domain).unwrap();
        assert_eq!(
            (domain.cells[0].cpus.as_ref().unwrap().text.as_str(), domain.pins.len()),
            ("0-3", 8)
        );
    }
    // Whatever names a cell is renumbered, and cells without a number get one.
    let first = "  <numatune>\n    <memnode cellid='8' mode='preferred' nodeset='0'/>\n  </numatune>\n  <os ";
    let named = one.replace("<cell id='5' ", "<cell ").replacen("  <os ", first, 1);
    let grown = add(GB200, &regions[1], &named).unwrap();
    assert!(grown.contains("<memnode cellid='9' "), "{grown}");
    assert!(grown.contains("<cell memory='0' unit='KiB' id='6'>"), "{grown}");
    // GPUs' cells before and after a region's: each row of new numbers is named.
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let trade = |text: String, name: &str| {
        let end = if name == "<node>" { '<' } else { '\'' };
        let [one, last] = ["1", "33"].map(|cell| format!("{name}{cell}{end}"));
        text.replace(&one, "\0").replace(&last, &one).replace('\0', &last)
    };
    let traded = ["<cell id='", "<sibling id='", "<node>"].into_iter().fold(all, trade);
    let traded = traded.replace("nodeset='26-33'", "nodeset='1,26-32'");
    let args = ["--all", "--complete", "--replace", "--domain", "-"];
    let output = fed(&mut stanza(GB200, &args), traded.as_bytes());
    let stderr = text(&output.stderr);
    assert_eq!(stderr, "egm-probe: note: guest NUMA nodes 1-32 become 2-33, 33 become 1\n");
    // The same cells without numbers, which get new ones where they are.
    let counted = Regex::new(r"(<cell) id='\d+'").unwrap();
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let mut lines: Vec<_> = all.split_inclusive("\n      </cell>\n").collect();
    assert_eq!(lines.len(), 35, "{all}");
    let second = lines.remove(1);
    lines.insert(9, second);
    let trade = |text: String, (from, to): (u32, u32)| {
        let spellings = [("<sibling id='", '\''), ("<node>", '<')];
        spellings.into_iter().fold(text, |text, (name, end)| {
            text.replace(&format!("{name}{from}{end}"), &format!("{name}\0{to}{end}"))
        })
    };
    let behind = (2..10).map(|old| (old, old - 1)).chain([(1, 9)]).fold(lines.concat(), trade);
    let behind = behind.replace('\0', "").replace("nodeset='2-9'", "nodeset='1-8'");
    let behind = counted.replace_all(&behind, "$1");
    let output = fed(&mut stanza(GB200, &args), behind.as_bytes());
    assert!(codes(GB200, &text(&output.stdout)).is_empty(), "{}", text(&output.stderr));
    let argument = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n    \
                    <qemu:arg value='-device'/>\n    <qemu:arg value='pxb-pcie,id=x,bus_nr=200,numa_node=0'/>\n  \
                    </qemu:commandline>\n</domain>";
    let refused = add(GB200, &regions[1], &one.replace("</domain>", argument)).unwrap_err();
    assert!(refused.contains("<qemu:commandline> depend on the NUMA cells"), "{refused}");
}

#[test]
fn the_topology_follows_the_virtual_cpus() {
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let more = ["--all", "--complete", "--vcpus", "16"];
    let base = PLAIN.replace("<vcpu>8", "<vcpu>16");
    assert_eq!(run(GB200, &more, &all).unwrap(), run(GB200, &more, &base).unwrap());
    let threads = "sockets='1' cores='4' threads='2'";
    let own = all.replace("sockets='2' dies='1' clusters='1' cores='4' threads='1'", threads);
    let refused = run(GB200, &more, &own).unwrap_err();
    assert!(refused.contains("EGM018") && refused.contains("try --replace"), "{refused}");
    let replaced = run(GB200, &[&more[..], &["--replace"]].concat(), &own).unwrap();
    assert!(codes(GB200, &replaced).is_empty(), "{replaced}");
}

#[test]
fn virtual_cpus_edited_by_hand_are_distributed_anew_on_request() {
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    for vcpus in ["4", "12"] {
        let base = |domain: &str| domain.replace("<vcpu>8", &format!("<vcpu>{vcpus}"));
        let edited = base(&all);
        let refused = run(GB200, &["--all", "--complete"], &edited).unwrap_err();
        assert!(refused.contains("try --replace"), "{refused}");
        let replaced = run(GB200, &["--all", "--complete", "--replace"], &edited).unwrap();
        let at_once = run(GB200, &["--all", "--complete"], &base(PLAIN)).unwrap();
        assert_eq!(replaced, at_once);
    }
    let refused = run(GB200, &["--all", "--with", "numa", "--vcpus", "12"], &all).unwrap_err();
    assert!(refused.contains("EGM018") && refused.contains("try --with machine, "), "{refused}");
    let own = all.replace("cores='4' threads='1'", "cores='2' threads='2'");
    let refused = run(GB200, &["--all", "--with", "numa", "--vcpus", "12"], &own).unwrap_err();
    assert!(refused.contains("try --with machine --replace, "), "{refused}");
}

/// The threads of QEMU have their CPUs for themselves, as long as there are enough.
#[test]
fn virtual_cpus_avoid_the_cpus_of_other_threads() {
    let tune = "  <cputune>\n    <emulatorpin cpuset='70-71'/>\n    <iothreadpin iothread='1' \
                cpuset='69'/>\n  </cputune>\n  <os ";
    let base = PLAIN.replacen("  <os ", tune, 1);
    let args = ["--region", "egm4", "--complete"];
    let domain = run(GB200, &args, &base).unwrap();
    let pins = Domain::parse(&domain).unwrap().pins.into_iter().map(|pin| pin.cpus.text);
    let expected: Vec<_> = (61..69).map(|cpu| cpu.to_string()).collect();
    assert_eq!(pins.collect::<Vec<_>>(), expected);
    assert_eq!(run(GB200, &args, &domain).unwrap(), domain, "a second run");
    let both = run(GB200, &["--all", "--complete"], &domain).unwrap();
    assert!(codes(GB200, &both).is_empty(), "{both}");
    let crowded = base.replace("cpuset='69'", "cpuset='0-69'");
    let pins = Domain::parse(&run(GB200, &args, &crowded).unwrap()).unwrap().pins;
    assert_eq!(pins[7].cpus.text, "71");
}

#[test]
fn parts_that_are_right_are_not_replaced() {
    let args = ["--region", "egm4", "--complete", "--replace"];
    let domain = run(GB200, &args, PLAIN).unwrap();
    let own = "sockets='1' dies='2' clusters='2' cores='2' threads='1'/>";
    let start = domain.find("<topology ").unwrap() + "<topology ".len();
    let end = start + domain[start..].find("/>").unwrap() + 2;
    let other = format!("{}{own}{}", &domain[..start], &domain[end..]);
    assert_eq!(run(GB200, &args, &other).unwrap(), other);
    // But a wrong function of a port is.
    let wrong = domain.replace(
        "slot='0x00' function='0x0'/>\n    </hostdev>",
        "slot='0x00' function='0x1'/>\n    </hostdev>",
    );
    assert_ne!(wrong, domain);
    assert_eq!(run(GB200, &args, &wrong).unwrap(), domain);
}

#[test]
fn an_override_follows_the_alias_of_its_device() {
    let args = ["--region", "egm4", "--complete"];
    let domain = run(GB200, &args, PLAIN).unwrap();
    let with = |alias: &str| {
        let property =
            "<qemu:frontend><qemu:property name='x-a' type='string' value='b'/></qemu:frontend>";
        let overriding = format!(
            "<qemu:override xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><qemu:device \
             alias='{alias}'>{property}</qemu:device></qemu:override></domain>"
        );
        domain.replace("ua-hostdev0", alias).replace("</domain>", &overriding)
    };
    // libvirt does not keep this alias.
    assert_eq!(run(GB200, &args, &with("hostdev0")).unwrap(), with("ua-hostdev0"));
}

/// Buses that have nothing to do with the GPUs make the rules about buses apply.
#[test]
fn the_part_that_writes_buses_is_named() {
    let bus = "    <controller type='pci' index='0' model='pcie-root'/>\n    <controller type='pci' \
               index='1' model='pcie-expander-bus'><target busNr='100'><node>0</node></target>\
               </controller>\n  </devices>";
    let domain = PLAIN.replace("  </devices>", bus);
    let args = ["--all", "--with", "hostdev,numa,machine"];
    let refused = run(GB200, &args, &domain).unwrap_err();
    assert!(refused.contains("try --with pci"), "{refused}");
}

#[test]
fn pins_on_another_socket_are_warned_of_whatever_is_written() {
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let args = ["--all", "--with", "numa,machine", "--vcpus", "12", "--domain", "-"];
    let output = fed(&mut stanza(GB200, &args), all.as_bytes());
    let stderr = text(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("virtual CPUs 4-5 run on CPUs such as "),
        "{stderr}"
    );
    assert!(stderr.contains("(EGM111)"), "{stderr}");
    let refused = run(GB200, &[&args[..5], &["--strict"]].concat(), &all).unwrap_err();
    assert!(refused.contains("(EGM111)"), "{refused}");
    let pinned = run(GB200, &["--all", "--complete", "--vcpus", "12", "--strict"], &all).unwrap();
    assert!(codes(GB200, &pinned).is_empty(), "{pinned}");
}

#[test]
fn a_hole_becomes_a_power_of_two() {
    let args = ["--all", "--complete"];
    let all = run(GB200, &args, PLAIN).unwrap();
    let hole = |tib: u64| format!("<pcihole64 unit='KiB'>{}</pcihole64>", tib << 30);
    for (own, expected) in [(1, 4), (3, 4), (4, 4), (5, 8), (8, 8)] {
        let grown = run(GB200, &args, &all.replace(&hole(4), &hole(own))).unwrap();
        assert_eq!(grown, all.replace(&hole(4), &hole(expected)), "{own} TiB");
    }
}

#[test]
fn what_names_a_missing_virtual_cpu_is_an_error() {
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let scheduled = "<vcpusched vcpus='0-7' scheduler='fifo' priority='1'/></cputune>";
    let scheduled = all.replace("</cputune>", scheduled);
    assert!(codes(GB200, &scheduled).is_empty());
    let fewer = run(GB200, &["--all", "--complete", "--vcpus", "4"], &scheduled).unwrap_err();
    assert!(fewer.contains("virtual CPU 4 is out of range (the domain has 4 virtual"), "{fewer}");
    let many = codes(GB200, &all.replace(">8</vcpu>", ">513</vcpu>"));
    assert!(many.contains("EGM017"), "{many:?}");
}

#[test]
fn a_full_bus_is_refused_once() {
    let device = |slot: u32| {
        format!(
            "<interface type='user'><address type='pci' domain='0' bus='0' slot='{slot}' \
             function='0'/></interface>"
        )
    };
    let devices: String = (1..31).map(device).collect();
    let full = PLAIN.replace("</devices>", &format!("{devices}</devices>"));
    let refused = run(GB200, &["--all", "--complete"], &full).unwrap_err();
    let expected = "the domain has no free slot on pcie.0 for the PCI controllers of the devices";
    assert_eq!(refused, format!("egm-probe: {expected}\n"));
}

#[test]
fn cells_of_a_deleted_device_are_used_again() {
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let own = "      <acpi nodeset='10-17'/>\n";
    let start = all[..all.find(own).unwrap()].rfind("    <hostdev").unwrap();
    let end = start + all[start..].find("    </hostdev>\n").unwrap() + "    </hostdev>\n".len();
    let no_device = format!("{}{}", &all[..start], &all[end..]);
    let no_cells = all.replace(own, "");
    let seven = all.replace("10-17", "10-16");
    let whole: &[&str] = &["--all", "--complete"];
    let replace: &[&str] = &["--all", "--complete", "--replace"];
    for (args, domain) in [(whole, &no_cells), (replace, &no_cells), (replace, &seven)] {
        assert_ne!(*domain, all);
        assert_eq!(run(GB200, args, domain).unwrap(), all);
    }
    assert_eq!(run(GB200, whole, &seven).unwrap(), seven, "only with --replace");
    let grown = run(GB200, whole, &no_device).unwrap();
    assert_eq!(parts(&grown), parts(&all));
    assert!(grown.contains(own) && codes(GB200, &grown).is_empty(), "{grown}");
    let chosen = run(GB200, &[replace, &["--guest-node", "egm5=12"]].concat(), &no_cells).unwrap();
    assert!(chosen.contains("nodeset='34-41'"), "cell 12 is that of a region: {chosen}");

    let remove = ["--remove", "--all", "--with", "all", "--memory", "16GiB"];
    let rest = run(GB200, &remove, &all).unwrap();
    assert_eq!(run(GB200, &remove, &no_cells).unwrap(), rest);
    let rest = Domain::parse(&run(GB200, &remove, &no_device).unwrap()).unwrap();
    assert_eq!(rest.cells.len(), 2);
    let remove = ["--remove", "--region", "egm5", "--with", "all"];
    let rest = Domain::parse(&run(GB200, &remove, &no_cells).unwrap()).unwrap();
    assert_eq!(rest.cells.len(), 17, "eight may be those of the GPU that is left");
}

#[test]
fn a_region_that_is_added_gets_no_cell_of_a_deleted_device() {
    let regions = regions(GB200);
    let one = add(GB200, &regions[0], PLAIN).unwrap();
    let no_cells = one.replace("      <acpi nodeset='9-16'/>\n", "");
    assert_ne!(no_cells, one);
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    assert_eq!(add(GB200, &regions.concat(), &no_cells).unwrap(), all);
    // The first EGM device is in the cell of the other region.
    let (before, devices) = all.split_at(all.find("<memory model='egm'").unwrap());
    let wrong = format!("{before}{}", devices.replacen("<node>0<", "<node>1<", 1));
    assert_ne!(wrong, all);
    assert_eq!(run(GB200, &["--all", "--complete"], &wrong).unwrap(), all);
}

#[test]
fn messages_name_the_option_that_helps() {
    let output = stanza(GB200, &["--all", "--complete", "base.xml"]).output().unwrap();
    assert!(text(&output.stderr).contains("tip: use `--domain base.xml`"), "{output:?}");
    let args = ["--remove", "--all", "--complete", "--domain", "base.xml"];
    let output = stanza(GB200, &args).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("use --with all to take out what it adds"), "{output:?}");
    let refused = run(GB200, &["--all"], PLAIN).unwrap_err();
    assert!(refused.contains("or --complete, which writes a whole Grace guest"), "{refused}");
    let all = run(GB200, &["--all", "--complete"], PLAIN).unwrap();
    let args = ["--remove", "--gpu", "0018:01:00.0,0019:01:00.0", "--with", "all"];
    let refused = run("gh200-quad", &args, &all).unwrap_err();
    assert!(refused.contains("if the domain is from another host, run this there"), "{refused}");
    let no_cpus = PLAIN.replace("  <vcpu>8</vcpu>\n", "");
    let output = stanza(GB200, &["--all", "--complete", "--strict", "--domain", "-"]);
    let output = fed(&mut { output }, no_cpus.as_bytes());
    assert!(text(&output.stderr).contains("the domain has no <vcpu>"), "{output:?}");
    let more = all.replace("<vcpu>8", "<vcpu>16").replace("    <topology", "    <!-- topology");
    let more = more.replace("threads='1'/>", "threads='1' -->");
    assert!(codes(GB200, &more).contains("EGM032"), "virtual CPUs in no cell: {more}");
}

/// The number of lines with each tag.
fn parts(domain: &str) -> BTreeMap<&str, usize> {
    let mut parts = BTreeMap::new();
    for line in domain.lines() {
        let tag = line.trim_start().split([' ', '>']).next().unwrap_or_default();
        *parts.entry(tag).or_default() += 1;
    }
    parts
}
