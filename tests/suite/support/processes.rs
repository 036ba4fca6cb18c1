//! Processes and virtual machines on a made-up machine.

use std::fmt::Write;

use super::machines::{MAJOR, Machine, gb200};
use super::tree::Tree;

const GIB: u64 = 1 << 30;
const REGION: u64 = 457_728 << 20;

/// How a process has a region.
enum Hold {
    /// Mapped: the path that maps shows, offset and length.
    Mapped(&'static str, u64, u64),
    /// Open, and perhaps not mapped.
    Open(&'static str),
}

/// Every machine on which somebody has a region, or is to have one.
pub fn all() -> Vec<(&'static str, Tree)> {
    vec![
        ("claims-vm", with(|tree| vm(tree, 4242, "vm1", &whole("/dev/egm4")))),
        ("claims-two-pieces", with(two_pieces)),
        ("claims-fd-only", with(|tree| vm(tree, 4242, "vm1", &[Hold::Open("/dev/egm4")]))),
        ("claims-two-holders", with(two_holders)),
        ("claims-hostile", with(hostile)),
        ("claims-one-vm-twice", with(one_vm_twice)),
        ("claims-other-names", with(other_names)),
        ("claims-defined", with(defined)),
        ("claims-running-unseen", with(running_unseen)),
        ("claims-running-seen", with(running_seen)),
        ("claims-broken-xml", with(broken_xml)),
        ("claims-odd-processes", with(odd_processes)),
        ("claims-no-proc", without_proc()),
        ("leases", with(leases)),
        ("leases-broken", with(broken_leases)),
    ]
}

fn with(add: impl Fn(&mut Tree)) -> Tree {
    let mut tree = gb200().gpu_list();
    add(&mut tree);
    tree
}

/// Nothing is known of processes, but libvirt has a domain running.
fn without_proc() -> Tree {
    let mut machine: Machine = gb200();
    machine.tree.remove_all("proc");
    let mut tree = machine.gpu_list();
    status(&mut tree, "vm1", 4242, &[("/dev/egm4", "457728", "MiB")]);
    tree
}

/// Both regions are reserved for vm1, until the year 9999. A lease of a region that does not exist and
/// an expired one make no difference, nor does a key of a later version.
fn leases(tree: &mut Tree) {
    let text = "{\"schema\":\"egm-probe.leases/1\",\"leases\":[\
        {\"regions\":[\"egm4\",\"egm5\"],\"for\":\"vm1\",\"expires\":\"9999-12-31T23:59:59Z\"},\
        {\"regions\":[\"egm9\"],\"for\":\"vm1\",\"expires\":\"9999-12-31T23:59:59Z\",\"later\":1},\
        {\"regions\":[\"egm4\"],\"for\":\"vm2\",\"expires\":\"2001-09-09T01:46:40Z\"}]}\n";
    tree.file("run/egm-probe/leases.json", text);
    tree.file("run/egm-probe/notes.txt", "not a lease\n");
}

/// The file has no leases in it: any region may be reserved.
fn broken_leases(tree: &mut Tree) {
    tree.file("run/egm-probe/leases.json", "{\"schema\":\"egm-probe.leases/1\"}\n");
}

fn whole(path: &'static str) -> [Hold; 2] {
    [Hold::Mapped(path, 0, REGION), Hold::Open(path)]
}

/// 8 GiB of egm5 in two pieces, 2 GiB apart, with the file closed: only the mappings are left.
fn two_pieces(tree: &mut Tree) {
    let pieces = [
        Hold::Mapped("/dev/egm5", 6 * GIB, 4 * GIB),
        Hold::Mapped("/dev/egm5", 0, 3 * GIB),
        Hold::Mapped("/dev/egm5", 2 * GIB, 2 * GIB),
    ];
    vm(tree, 4242, "vm1", &pieces);
}

/// Two machines share the memory of egm4, as the older drivers let them.
fn two_holders(tree: &mut Tree) {
    vm(tree, 4242, "vm1", &[Hold::Mapped("/dev/egm4", 0, 8 * GIB), Hold::Open("/dev/egm4")]);
    vm(tree, 4343, "vm2", &[Hold::Mapped("/dev/egm4", 4 * GIB, 8 * GIB)]);
}

/// Names that would paint a terminal; a user's status files that claim another one's process, and
/// a region, for themselves; a process of which nothing was recorded that tells; odd names in /proc.
fn hostile(tree: &mut Tree) {
    vm(tree, 7, "a\x1b[31mRED\n egm4: fake", &[Hold::Mapped("/dev/egm4", 0, GIB)]);
    vm(tree, 8, &"long".repeat(100), &[Hold::Mapped("/dev/egm4", 0, GIB)]);
    tree.file("proc/9/comm", "mute\n");
    for name in ["007", "+7", "7x", "99999999999"] {
        tree.directory(&format!("proc/{name}"));
    }
    let passwd = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n";
    tree.file("etc/passwd", passwd);
    for (name, pid) in [("evil", 7), ("ghost", 999)] {
        let file = format!("run/user/1000/libvirt/qemu/run/{name}.xml");
        status(tree, name, pid, &[("/dev/egm4", "1", "GiB"), ("/dev/egm5", "1", "GiB")]);
        tree.rename(&format!("run/libvirt/qemu/{name}.xml"), &file);
    }
    // A file where the node should be hides nobody.
    tree.file("dev/egm5", "");
    tree.raw_link("proc/8/fd/5", "/dev/egm5");
}

/// A machine that has split itself in two processes is one holder.
fn one_vm_twice(tree: &mut Tree) {
    vm(tree, 4242, "vm1", &[Hold::Mapped("/dev/egm4", 0, 8 * GIB), Hold::Open("/dev/egm4")]);
    vm(tree, 4243, "vm1", &[Hold::Mapped("/dev/egm4", 0, 8 * GIB)]);
}

/// A container's own node, a node that was renamed, one that was deleted; and a file that only
/// has the name of one.
fn other_names(tree: &mut Tree) {
    process(
        tree,
        100,
        "container",
        &["/usr/bin/qemu-system-aarch64"],
        107,
        &[Hold::Mapped("/dev/memory", 0, GIB)],
    );
    process(
        tree,
        101,
        "deleted",
        &["/usr/bin/deleted"],
        107,
        &[Hold::Mapped("/dev/egm5 (deleted)", 0, GIB)],
    );
    // Not recorded: then the name is all there is.
    tree.remove_all("proc/101/map_files");
    process(tree, 102, "liar", &["/usr/bin/liar"], 107, &[]);
    let line = format!("7f0000000000-7f0040000000 rw-s 00000000 fe:00 77{:20}/dev/egm4\n", "");
    tree.file("proc/102/maps", line);
    tree.file("proc/102/map_files/7f0000000000-7f0040000000", "");
}

/// vm1 and vm2 take turns; the user's vm3 has egm5, too.
fn defined(tree: &mut Tree) {
    let memory = [("/dev/egm4", "228864", "MiB"), ("/dev/egm4", "228864", "MiB")];
    definition(tree, "etc/libvirt/qemu/vm1.xml", "vm1", &memory);
    definition(tree, "etc/libvirt/qemu/vm2.xml", "vm2", &memory[..1]);
    definition(tree, "etc/libvirt/qemu/other.xml", "other", &[("/dev/shm/x", "1", "GiB")]);
    tree.file("etc/libvirt/qemu/networks/default.xml", "<network><name>default</name></network>");
    tree.file("etc/libvirt/qemu/notes.txt", "not XML\n");
    let passwd = "root:x:0:0:root:/root:/bin/bash\nuser:x:1000:1000::/home/user:/bin/bash\n";
    tree.file("etc/passwd", passwd);
    tree.directory("run/user/1000");
    let file = "home/user/.config/libvirt/qemu/vm3.xml";
    definition(tree, file, "vm3", &[("/dev/egm5", "457728", "MiB")]);
}

/// vm1 runs by its status file, and its process cannot be seen.
fn running_unseen(tree: &mut Tree) {
    definition(tree, "etc/libvirt/qemu/vm1.xml", "vm1", &[("/dev/egm4", "457728", "MiB")]);
    status(tree, "vm1", 4242, &[("/dev/egm4", "8", "GiB")]);
}

/// The same with its process: one claim, with the domain's name from the file.
fn running_seen(tree: &mut Tree) {
    running_unseen(tree);
    let holds = [Hold::Mapped("/dev/egm4", 0, 8 * GIB), Hold::Open("/dev/egm4")];
    process(tree, 4242, "qemu-system-aar", &["/usr/bin/qemu-system-aarch64", "-S"], 107, &holds);
}

fn broken_xml(tree: &mut Tree) {
    let bomb = "<!DOCTYPE domain [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>\
        <domain><name>&b;&b;&b;</name></domain>";
    let many = "<a/>".repeat(210_000);
    for (name, xml) in [
        ("01-empty", ""),
        ("02-cut", "<domain type='kvm'>\n  <name>vm</name>\n  <devices>\n    <memory mod"),
        ("03-mismatched", "<domain>\n  <name>vm</domain>\n</name>"),
        ("04-entities", bomb),
        (
            "05-external",
            "<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain><name>x</name></domain>",
        ),
        ("06-no-domain", "<network><name>x</name></network>"),
        ("07-no-name", "<domain>\n  <devices/>\n</domain>"),
        ("08-namespace", "<domain><name>vm</name><qemu:commandline/></domain>"),
        ("09-control", "<domain><name>v\u{1}m</name></domain>"),
        ("10-many", &format!("<domain><name>vm</name>{many}</domain>")),
        ("11-not-xml", "\u{1b}[31mroot:x:0:0\n"),
    ] {
        tree.file(&format!("etc/libvirt/qemu/{name}.xml"), xml);
    }
    tree.file("etc/libvirt/qemu/12-bytes.xml", b"\xff\xfe<\0d\0");
    definition(tree, "etc/libvirt/qemu/whole.xml", "whole", &[("/dev/egm4", "1", "GiB")]);
}

/// Zombies, threads of the kernel and processes that are going: nothing to warn of.
fn odd_processes(tree: &mut Tree) {
    for (pid, name, state, flags) in
        [(2, "kthreadd", "S", 0x0020_8040), (77, "a) (b", "Z", 0x0040_000c)]
    {
        tree.file(
            &format!("proc/{pid}/stat"),
            format!("{pid} ({name}) {state} 0 0 0 0 -1 {flags} 0\n"),
        );
        tree.file(&format!("proc/{pid}/maps"), "");
        tree.directory(&format!("proc/{pid}/fd"));
    }
    // Gone between the listing and the reading.
    tree.directory("proc/78");
    // A file where its files should be, and one whose maps are none.
    tree.file("proc/79/fd", "");
    tree.file("proc/79/maps", "junk\n\n7f00-7f01\n7f00-7f01 rw-s 0 00:09 9 /dev/egm4 and more\n");
    // Many mappings, of which one in the middle is the region.
    let mut maps = String::new();
    for number in 0..65_530_u64 {
        let start = 0x7f00_0000_0000 + number * 0x2000;
        let end = start + 0x1000;
        let file = if number == 33_333 { "00:09 210" } else { "fe:00 1234" };
        let path = if number == 33_333 { "/dev/egm4" } else { "/usr/lib/x.so" };
        writeln!(maps, "{start:x}-{end:x} rw-s 00000000 {file} {path}").unwrap();
    }
    tree.file("proc/80/maps", maps);
    tree.file("proc/80/comm", "many\n");
    tree.directory("proc/80/fd");
}

/// A virtual machine as libvirt starts it.
fn vm(tree: &mut Tree, pid: u32, name: &str, holds: &[Hold]) {
    let guest = format!("guest={name},debug-threads=on");
    let arguments = ["/usr/bin/qemu-system-aarch64", "-name", &guest, "-S"];
    process(tree, pid, "qemu-system-aar", &arguments, 107, holds);
}

fn process(tree: &mut Tree, pid: u32, comm: &str, arguments: &[&str], uid: u32, holds: &[Hold]) {
    let proc = format!("proc/{pid}");
    tree.file(&format!("{proc}/comm"), format!("{comm}\n"));
    tree.file(&format!("{proc}/cmdline"), arguments.join("\0") + "\0");
    tree.file(
        &format!("{proc}/status"),
        format!("Name:\t{comm}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
    );
    tree.file(&format!("{proc}/stat"), format!("{pid} ({comm}) S 1 1 1 0 -1 4194560 0\n"));
    tree.file(&format!("{proc}/cgroup"), "0::/machine.slice\n");
    tree.directory(&format!("{proc}/fd"));
    let program = arguments.first().unwrap_or(&"");
    let mut maps = format!("00400000-00452000 r-xp 00000000 fe:00 325843{:20}{program}\n", "");
    let mut start = 0x7f00_0000_0000_u64;
    for (number, hold) in holds.iter().enumerate() {
        match hold {
            Hold::Mapped(path, offset, length) => {
                let end = start + length;
                let file = format!("00:09 {pid}{number}");
                writeln!(maps, "{start:x}-{end:x} rw-s {offset:08x} {file:30} {path}").unwrap();
                let file = format!("{proc}/map_files/{start:x}-{end:x}");
                // The name lies for some; the number does not.
                let minor = if path.contains("egm5") { 5 } else { 4 };
                tree.device(&file, (MAJOR, minor), 0o660, (0, 36));
                start = end + 0x1000_0000;
            }
            Hold::Open(path) => tree.raw_link(&format!("{proc}/fd/1{number}"), path),
        }
    }
    maps += "7ffed55e2000-7ffed5603000 rw-p 00000000 00:00 0                          [stack]\n";
    tree.file(&format!("{proc}/maps"), maps);
    tree.raw_link(&format!("{proc}/fd/0"), "/dev/null");
    tree.raw_link(&format!("{proc}/fd/9"), "socket:[12345]");
}

/// The processes that every host has.
pub fn add_init(tree: &mut Tree) {
    process(tree, 1, "systemd", &["/usr/lib/systemd/systemd"], 0, &[]);
}

fn memory_devices(memory: &[(&str, &str, &str)]) -> String {
    let mut devices = String::new();
    for (path, size, unit) in memory {
        let source = format!("<source><path>{path}</path></source>");
        let target = format!("<target><size unit='{unit}'>{size}</size><node>0</node></target>");
        writeln!(devices, "    <memory model='egm' access='shared'>{source}{target}</memory>")
            .unwrap();
    }
    devices
}

fn definition(tree: &mut Tree, file: &str, name: &str, memory: &[(&str, &str, &str)]) {
    let devices = memory_devices(memory);
    tree.file(
        file,
        format!("<domain type='kvm'>\n  <name>{name}</name>\n  <devices>\n{devices}  </devices>\n</domain>\n"),
    );
}

fn status(tree: &mut Tree, name: &str, pid: u32, memory: &[(&str, &str, &str)]) {
    let devices = memory_devices(memory);
    tree.file(
        &format!("run/libvirt/qemu/{name}.xml"),
        format!(
            "<domstatus state='running' reason='booted' pid='{pid}'>\n  <domain type='kvm' id='1'>\n    \
             <name>{name}</name>\n  <devices>\n{devices}  </devices>\n  </domain>\n</domstatus>\n"
        ),
    );
}
