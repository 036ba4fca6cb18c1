//! `stanza --format qemu-args`: whole lists of arguments, and QEMU itself with their memory part.

use std::fs;

use egm_probe::domain::Domain;
use serde_json::Value;

use crate::libvirt::run_qemu;
use crate::stanza::{fed, replaced, stanza, text};
use crate::support;
use crate::support::xmllint::can_run;

/// A domain with both GPUs of egm4 in one cell, the second one first.
const DOMAIN: &str = "<domain type='kvm'>
  <name>vm1</name>
  <maxMemory unit='KiB'>16777216</maxMemory>
  <memory unit='KiB'>16777216</memory>
  <memoryBacking>
    <source type='file'/>
    <access mode='shared'/>
    <allocation mode='immediate'/>
  </memoryBacking>
  <vcpu>4</vcpu>
  <os firmware='efi'>
    <type arch='aarch64' machine='virt'>hvm</type>
  </os>
  <features>
    <acpi/>
  </features>
  <cpu>
    <numa>
      <cell id='0' cpus='0-3' memory='16777216' unit='KiB'/>
      <cell id='1' memory='0' unit='KiB'/>
      <cell id='2' memory='0' unit='KiB'/>
      <cell id='3' memory='0' unit='KiB'/>
    </numa>
  </cpu>
  <devices>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0009' bus='0x01' slot='0x00' function='0x0'/></source>
      <alias name='ua-hostdev1'/>
      <acpi nodeset='3'/>
    </hostdev>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0008' bus='0x01' slot='0x00' function='0x0'/></source>
      <alias name='ua-hostdev0'/>
      <acpi nodeset='1-2'/>
    </hostdev>
    <memory model='egm' access='shared'>
      <source><path>/dev/egm4</path></source>
      <target><size unit='KiB'>8388608</size><node>0</node><pciDev>ua-hostdev0</pciDev></target>
    </memory>
    <memory model='egm' access='shared'>
      <source><path>/dev/egm4</path></source>
      <target><size unit='KiB'>8388608</size><node>0</node><pciDev>ua-hostdev1</pciDev></target>
    </memory>
  </devices>
</domain>
";

/// The arguments of that domain, one option with its value per line.
const ARGUMENTS: &str = r#"
-m size=16777216k,maxmem=16777216k
-smp 4,sockets=4,cores=1,threads=1
-object {"qom-type":"memory-backend-file","id":"memegm0","mem-path":"/dev/egm4","share":true,"prealloc":true,"size":17179869184}
-object acpi-egm-memory,id=egm0,pci-dev=ua-hostdev0,node=0
-object acpi-egm-memory,id=egm1,pci-dev=ua-hostdev1,node=0
-numa node,nodeid=0,cpus=0-3,memdev=memegm0
-numa node,nodeid=1
-numa node,nodeid=2
-numa node,nodeid=3
-device {"driver":"vfio-pci","host":"0009:01:00.0","id":"ua-hostdev1"}
-object {"qom-type":"acpi-generic-initiator","id":"gi0","pci-dev":"ua-hostdev1","node":3}
-device {"driver":"vfio-pci","host":"0008:01:00.0","id":"ua-hostdev0"}
-object {"qom-type":"acpi-generic-initiator","id":"gi1","pci-dev":"ua-hostdev0","node":1}
-object {"qom-type":"acpi-generic-initiator","id":"gi2","pci-dev":"ua-hostdev0","node":2}
"#;

/// The arguments of a domain, an option and its value each.
fn arguments(domain: &str, args: &[&str]) -> Vec<(String, String)> {
    let args = [&["--region", "egm4", "--format", "qemu-args", "--domain", "-"], args].concat();
    let output = fed(&mut stanza("gb200-full-gpu-list", &args), domain.as_bytes());
    assert!(output.status.success(), "{}\n{domain}", text(&output.stderr));
    let lines = text(&output.stdout);
    let words: Vec<_> = lines.lines().map(str::to_owned).collect();
    words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

const ALL: [&str; 4] = ["--size", "8GiB", "--with", "hostdev,numa"];

/// Texts and their replacements.
type Parts<'a> = &'a [(&'a str, &'a str)];

/// The first list changes the domain, the second the expected arguments.
fn check(domain: Parts<'_>, expected: Parts<'_>) {
    let written = arguments(&replaced(DOMAIN, domain), &ALL);
    let written: Vec<_> =
        written.iter().map(|(option, value)| format!("{option} {value}")).collect();
    assert_eq!(written.join("\n"), replaced(ARGUMENTS.trim(), expected), "{domain:?}");
}

#[test]
fn memory_and_cpus_match_libvirt() {
    let numatune = |policies: &str| format!("<vcpu>4</vcpu><numatune>{policies}</numatune>");
    let context = |nodes: &str| {
        format!(
            "-object {{\"qom-type\":\"thread-context\",\"id\":\"tc-memegm0\",\"node-affinity\":{nodes}}}\n\
             -object {{\"qom-type\":\"memory-backend-file\""
        )
    };
    let bound = |nodes: &str, policy: &str| {
        format!(
            "\"size\":17179869184,\"host-nodes\":{nodes},\"policy\":\"{policy}\",\
             \"prealloc-context\":\"tc-memegm0\"}}"
        )
    };
    let backend = "-object {\"qom-type\":\"memory-backend-file\"";
    let size = "\"size\":17179869184}";
    check(&[], &[]);

    // -m and -smp
    let maximum = "<maxMemory unit='KiB'>16777216";
    check(
        // 20 GB is 19531250 KiB, which libvirt rounds up to whole MiB.
        &[(maximum, "<maxMemory slots='2' unit='GB'>20")],
        &[("k,maxmem=16777216k", "k,slots=2,maxmem=19531776k")],
    );
    // Raised to the memory.
    check(&[(&format!("{maximum}</maxMemory>"), "")], &[]);
    check(
        &[("<numa>", "<topology sockets='1' cores='2' threads='2'/><numa>")],
        &[("sockets=4,cores=1,threads=1", "sockets=1,dies=1,clusters=1,cores=2,threads=2")],
    );
    check(
        &[
            ("<vcpu>4", "<vcpu current='1'>4"),
            ("<numa>", "<topology sockets='1' dies='2' clusters='1' cores='2' threads='1'/><numa>"),
        ],
        &[(
            "4,sockets=4,cores=1,threads=1",
            "1,maxcpus=4,sockets=1,dies=2,clusters=1,cores=2,threads=1",
        )],
    );

    // <numatune>
    for (policies, nodes, policy) in [
        ("<memory mode='strict' nodeset='0'/>", "[0]", "bind"),
        ("<memory nodeset='0-1,3'/>", "[0,1,3]", "bind"),
        ("<memory mode='preferred' nodeset='1'/>", "[1]", "preferred"),
        ("<memory mode='interleave' nodeset='0-1'/>", "[0,1]", "interleave"),
        ("<memnode cellid='0' mode='strict' nodeset='1'/>", "[1]", "bind"),
        ("<memory mode='interleave' nodeset='0'/><memnode cellid='0' nodeset='1'/>", "[1]", "bind"),
        (
            "<memory mode='preferred' nodeset='0'/><memnode cellid='1' mode='strict' nodeset='1'/>",
            "[0]",
            "preferred",
        ),
    ] {
        let (context, bound) = (context(nodes), bound(nodes, policy));
        check(&[("<vcpu>4</vcpu>", &numatune(policies))], &[(backend, &context), (size, &bound)]);
    }
    check(
        &[("<vcpu>4</vcpu>", &numatune("<memory mode='restrictive' nodeset='0'/>"))],
        &[
            (backend, &context("[0]")),
            (size, &replaced(size, &[("}", ",\"prealloc-context\":\"tc-memegm0\"}")])),
        ],
    );
    // Nodes chosen by numad, and cells of other regions, have no effect.
    for policies in [
        "<memory mode='strict' placement='auto' nodeset='0'/>",
        "<memnode cellid='1' mode='strict' nodeset='0'/>",
    ] {
        check(&[("<vcpu>4</vcpu>", &numatune(policies))], &[]);
    }

    // <allocation>
    check(
        &[("mode='immediate'/>", "mode='immediate' threads='4'/>")],
        &[("\"prealloc\":true,", "\"prealloc\":true,\"prealloc-threads\":4,")],
    );
}

#[test]
fn gpus_match_libvirt() {
    // <rom>
    for (rom, expected) in
        [("<rom bar='off'/>", ",\"rombar\":0}"), ("<rom bar='on'/>", ",\"rombar\":1}")]
    {
        let alias = "<alias name='ua-hostdev0'/>";
        check(
            &[(alias, &format!("{alias}{rom}"))],
            &[("\"id\":\"ua-hostdev0\"}", &format!("\"id\":\"ua-hostdev0\"{expected}"))],
        );
    }
    // iommufd
    let object = "-object {\"qom-type\":\"iommufd\",\"id\":\"iommufd0\"}\n";
    let device = "-device {\"driver\":\"vfio-pci\",\"host\":\"0009:01:00.0\"";
    let (first, second) = ("\"id\":\"ua-hostdev1\"}", "\"id\":\"ua-hostdev0\"}");
    let of = |id: &str| replaced(id, &[("}", ",\"iommufd\":\"iommufd0\"}")]);
    let alias = "<alias name='ua-hostdev0'/>";
    let enabled = ("<devices>", "<iommufd enabled='yes'/><devices>");
    check(
        &[(alias, &format!("<driver iommufd='yes'/><rom bar='off'/>{alias}"))],
        &[
            (device, &format!("{object}{device}")),
            (second, &replaced(&of(second), &[("}", ",\"rombar\":0}")])),
        ],
    );
    check(
        &[enabled],
        &[(device, &format!("{object}{device}")), (first, &of(first)), (second, &of(second))],
    );
    check(
        &[enabled, (alias, &format!("<driver iommufd='no'/>{alias}"))],
        &[(device, &format!("{object}{device}")), (first, &of(first))],
    );
    check(&[("<devices>", "<iommufd enabled='no'/><devices>")], &[]);
}

/// libvirt replaces an alias that does not begin with `ua-` by a number of its own, of which network
/// interfaces have the first ones.
#[test]
fn egm_is_for_devices_that_are_there() {
    let args = ["--complete", "--all", "--vcpus=8", "--name=vm1"];
    let output = stanza("gb200-full-gpu-list", &args).output().unwrap();
    let all = text(&output.stdout);
    let alias = Domain::parse(&all).unwrap().hostdevs[3].alias.as_ref().unwrap().text.clone();
    let interface = "<devices><interface type='hostdev'><source>\
        <address type='pci' domain='0x0002' bus='1' slot='0' function='1'/></source></interface>";
    let domain = replaced(&all, &[("<devices>", interface)]).replace(&alias, "hostdev1");
    let arguments = arguments(&domain, &["--with", "hostdev"]);
    let ids: Vec<_> = arguments
        .iter()
        .filter(|(option, _)| option == "-device")
        .filter_map(|(_, device)| {
            let device: Value = serde_json::from_str(device).ok()?;
            (device["driver"] == "vfio-pci").then(|| device["id"].as_str().unwrap().to_owned())
        })
        .collect();
    assert!(ids.contains(&"hostdev1".into()), "{ids:?}");
    for (_, object) in arguments.iter().filter(|(_, it)| it.starts_with("acpi-egm-memory")) {
        let gpu = object.split("pci-dev=").nth(1).unwrap().split(',').next().unwrap();
        assert!(ids.contains(&gpu.to_owned()), "{gpu}: {ids:?}");
    }
}

/// QEMU without EGM and generic initiators accepts everything else, with a file as the region.
#[test]
fn qemu_starts_with_a_memory_policy() {
    if !can_run(&["qemu-system-aarch64"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let domain = replaced(
        DOMAIN,
        &[
            ("<maxMemory unit='KiB'>16777216", "<maxMemory unit='MiB' slots='2'>8"),
            ("16777216", "4096"),
            ("memory='16777216'", "memory='4096'"),
            ("8388608", "2048"),
            ("8388608", "2048"),
            ("mode='immediate'", "mode='immediate' threads='2'"),
            (
                "<vcpu>4</vcpu>",
                "<vcpu current='2'>4</vcpu><numatune><memory nodeset='0'/></numatune>",
            ),
            ("<numa>", "<topology sockets='1' cores='4' threads='1'/><numa>"),
        ],
    );
    let arguments = arguments(&domain, &["--size", "2MiB", "--with", "numa"]);
    let pairs = arguments.iter().map(|(option, value)| (option.as_str(), value.as_str()));
    let shown = match run_qemu(pairs, directory.path()) {
        Err(error) if error.contains("cannot bind memory to host NUMA nodes") => {
            support::skip("mbind is not permitted here");
            return;
        }
        shown => shown.unwrap(),
    };
    for part in ["size:  4194304", "prealloc: true", "policy: bind", "host nodes: 0"] {
        assert!(shown.contains(part), "{part:?} is not in\n{shown}");
    }
    assert_eq!(fs::metadata(directory.path().join("egm4")).unwrap().len(), 4 << 20);
}
