//! Captures: a recorded host gives the same results as the host itself, and private data is not
//! recorded.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use egm_probe::sysroot::Sysroot;
use flate2::read::GzDecoder;

use crate::holders::holder_program;
use crate::live::{can, can_overlay, can_strace, extract, has_udev};
use crate::support::tree::{Tree, gzip};
use crate::support::{fixtures, has, machine, machines};

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn egm_probe(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().unwrap()
}

/// Standard output of a successful run.
fn printed(args: &[&str]) -> Vec<u8> {
    let output = egm_probe(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    output.stdout
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Records a root in a file.
fn capture(root: &[&str], file: &Path, options: &[&str]) -> Vec<u8> {
    let output = egm_probe(&[root, &["capture"], options, &[text(file)]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(!stderr.contains("does not reproduce the host"), "{root:?}: {stderr}");
    fs::read(file).unwrap()
}

/// The tar within a capture.
fn unpacked(capture: &[u8]) -> Vec<u8> {
    let mut tar = Vec::new();
    GzDecoder::new(capture).read_to_end(&mut tar).unwrap();
    tar
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn without_claims_nothing_is_said_of_holders() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar.gz");
    for name in machines() {
        let original = machine(&name);
        let capture = capture(&["--from", text(&original)], &file, &[]);
        let list = |file: &Path, more: &[&str]| {
            let output = egm_probe(&[&["--from", text(file), "list", "--json"], more].concat());
            (output.status.code(), String::from_utf8(output.stdout).unwrap())
        };
        let (code, shown) = list(&file, &[]);
        assert!(shown.starts_with('{'), "{name}: {shown}");
        assert_eq!((code, shown), list(&original, &["--no-occupancy"]), "{name}");
        let tree = Tree::read(&file);
        let names = tree.names();
        let below =
            ["proc", "etc/libvirt/qemu/", "run/libvirt", "run/user", "run/egm-probe", "home"];
        let is_claim =
            |name: &str| below.iter().any(|below| name.starts_with(below)) && !is_setting(name);
        assert!(!names.iter().any(|name| is_claim(name)), "{name}: {names:?}");
        assert!(contains(&unpacked(&capture), "\"claims\": null"), "{name}");
    }
}

/// Without claims, nothing is known of domains, which is not that there are none.
#[test]
fn without_claims_the_checks_of_domains_are_skipped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar.gz");
    let host = fixtures().join("doctor/D24");
    capture(&["--from", text(&host)], &file, &[]);
    let shown = String::from_utf8(egm_probe(&["--from", text(&file), "doctor"]).stdout).unwrap();
    for code in ["D23", "D24", "D25", "D26"] {
        assert!(shown.contains(&format!("SKIP ({code}: not in the capture)")), "{code}: {shown}");
    }
}

/// Whether a file is one of the kernel's settings, or a directory on the way to them.
fn is_setting(name: &str) -> bool {
    name.starts_with("proc/sys/kernel/") || ["proc", "proc/sys", "proc/sys/kernel"].contains(&name)
}

/// A machine with secrets in every possible place.
fn indiscreet() -> Tree {
    let mut tree = Tree::read(&machine("claims-running-seen"));
    let secret = |tree: &mut Tree, path: &str| {
        let mut text = tree.content(path);
        text.push_str("SECRET=hunter2\n");
        tree.file(path, text);
    };
    for path in ["proc/4242/status", "etc/passwd", "etc/group"] {
        secret(&mut tree, path);
    }
    let arguments = "/usr/bin/qemu-system-aarch64\0-object\0secret,id=x,data=SECRET\0-SECRET\0";
    tree.file("proc/4242/cmdline", arguments);
    tree.file("proc/4242/environ", "SECRET=hunter2\0");
    let maps = tree.content("proc/4242/maps");
    tree.file("proc/4242/maps", format!("{maps}5000-6000 r--p 00000000 fe:00 9 /SECRET/lib.so\n"));
    tree.raw_link("proc/4242/fd/77", "/SECRET/file");
    tree.file("proc/77/cmdline", "other\0--password\0SECRET\0");
    tree.file("proc/77/maps", "5000-6000 r--p 00000000 fe:00 9 /SECRET/lib.so\n");
    tree.file("proc/77/fd/3", "");
    tree.file("etc/hostname", "SECRET\n");
    tree.file("proc/sys/kernel/hostname", "SECRET\n");
    tree.file("proc/cmdline", "SECRET\n");
    tree.file("sys/class/dmi/id/product_serial", "SECRET\n");
    tree.file("sys/devices/pci0008:00/0008:00:00.0/0008:01:00.0/vpd", "SECRET\n");
    let passwd = tree.content("etc/passwd");
    tree.file("etc/passwd", format!("{passwd}SECRET:x:4711:4711:Mr SECRET:/home/SECRET:/bin/sh\n"));
    let xml = tree.content("etc/libvirt/qemu/vm1.xml");
    let insecure = xml.replace(
        "<devices>",
        "<!-- SECRET --><devices>SECRET<disk type='network'><auth username='SECRET'><secret \
         uuid='SECRET'/></auth></disk><graphics type='vnc' passwd='SECRET'/>",
    );
    assert_ne!(xml, insecure);
    tree.file("etc/libvirt/qemu/vm1.xml", &insecure);
    tree.file("etc/libvirt/qemu/other.xml", insecure.replace("vm1", "other"));
    tree.file("etc/libvirt/qemu/broken.xml", "<domain><graphics passwd='SECRET'/>\n");
    let status = tree.content("run/libvirt/qemu/vm1.xml");
    let insecure =
        status.replace("<domain ", "<qemuDriverData><a secret='SECRET'/></qemuDriverData><domain ");
    assert_ne!(status, insecure);
    tree.file("run/libvirt/qemu/vm1.xml", insecure);
    // Virtual machines without EGM, and users who are only logged in.
    let other = "<domain><name>SECRET</name><devices><memory model='nvdimm'><source>\
                 <path>/SECRET</path></source></memory></devices></domain>";
    tree.file("etc/libvirt/qemu/SECRET.xml", other);
    tree.raw_link("SECRET", "srv/SECRET");
    tree.file("srv/SECRET", "");
    tree.file("run/libvirt/qemu/SECRET.xml", format!("<domstatus pid='1'>{other}</domstatus>"));
    tree.file("home/SECRET/.config/libvirt/qemu/SECRET.xml", other);
    tree.directory("run/user/4711");
    tree.file("etc/libvirt/qemu/entity.xml", "<domain><graphics passwd='&SECRET;'/></domain>");
    tree.file("etc/libvirt/secrets/x.xml", "<secret>SECRET</secret>");
    tree.file(
        "etc/libvirt/qemu.conf",
        "# SECRET\nvnc_password = \"SECRET\"\nvnc_listen = [\n  \"SECRET\"\n]\nuser = \"root\"\n\
         SECRET = SECRET\n",
    );
    tree.file("var/lib/kubelet/config.yaml", "token: SECRET\ncpuManagerPolicy: static\n");
    tree.file("etc/containerd/config.toml", "password = \"SECRET\"\n");
    tree.file("etc/containerd/conf.d/SECRET.toml", "password = \"SECRET\"\n");
    tree.file(
        "etc/udev/rules.d/70-egm.rules",
        "# SECRET\nSUBSYSTEM==\"egm\", ENV{SECRET_KEY}==\"SECRET\", RUN+=\"/SECRET\", MODE=\"0660\"\n",
    );
    tree.file(
        "etc/udev/rules.d/SECRET.rules",
        "KERNEL==\"sd*\", RUN+=\"/SECRET\", MODE=\"0660\"\n",
    );
    tree.file("sys/module/apparmor/parameters/enabled", "Y\n");
    tree.file(
        "etc/apparmor.d/abstractions/libvirt-qemu",
        "# SECRET\n/SECRET rw,\n/dev/egm* rw, # SECRET\nprofile SECRET {\n  /dev/egm5 r,\n}\n",
    );
    tree.file("run/udev/data/c510:4", "S:grace-egm/by-node/0\nE:ID_SERIAL=SECRET\n");
    tree
}

#[test]
fn private_data_is_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (original, file) = (folder.path().join("host.tar.gz"), folder.path().join("x.tar.gz"));
    let tree = indiscreet();
    fs::write(&original, gzip(&tree.tar())).unwrap();
    let taken = unpacked(&capture(&["--from", text(&original)], &file, &["--with-claims"]));
    for word in ["SECRET", "hunter2"] {
        assert!(contains(&tree.tar(), word));
        let taken = String::from_utf8_lossy(&taken).replace('\0', "");
        let lines: Vec<_> = taken.lines().filter(|line| line.contains(word)).collect();
        assert!(lines.is_empty(), "{lines:#?}");
    }
    let list = |file: &Path| printed(&["--from", text(file), "list", "--json"]);
    let list = [&original, &file].map(|file| String::from_utf8(list(file)).unwrap());
    assert_eq!(list[0], list[1]);
    assert!(!list[0].contains("SECRET"), "nor does the list quote it: {}", list[0]);
    assert!(list[0].contains("\"vm1\"") && list[0].contains("broken.xml"), "{}", list[0]);
    // The program's name is recorded; other processes are not.
    assert!(contains(&taken, "/qemu-system-aarch64\0"));
    assert!(!contains(&taken, "proc/77"));
}

/// A modified machine, from a directory and from its capture.
fn is_same_as_its_capture(what: &str, change: impl Fn(&mut Tree)) {
    let mut tree = Tree::read(&machine("claims-running-seen"));
    change(&mut tree);
    let folder = tempfile::tempdir().unwrap();
    let [original, first, second] =
        ["host.tar.gz", "first.tar.gz", "second.tar.gz"].map(|name| folder.path().join(name));
    fs::write(&original, gzip(&tree.tar())).unwrap();
    let once = capture(&["--from", text(&original)], &first, &["--with-claims"]);
    let twice = capture(&["--from", text(&first)], &second, &["--with-claims"]);
    let list = |file: &Path| {
        String::from_utf8(printed(&["--from", text(file), "list", "--json"])).unwrap()
    };
    let plain = list(&machine("claims-running-seen"));
    assert_ne!(list(&original), plain, "{what}: changes nothing");
    assert_eq!(list(&first), list(&original), "{what}");
    assert!(once == twice, "{what}: a capture of its capture has other bytes");
}

fn definition(tree: &mut Tree, path: &str, inner: &str) {
    let xml = format!(
        "<domain xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><name>other</name>{inner}</domain>"
    );
    tree.file(path, xml);
}

#[test]
fn unusual_holders_and_definitions_are_preserved() {
    let defined = "etc/libvirt/qemu/other.xml";
    is_same_as_its_capture("a link to a definition", |tree| tree.raw_link(defined, "vm1.xml"));
    is_same_as_its_capture("addresses of several lengths", |tree| {
        tree.file(
            "proc/4242/maps",
            "80000000-80200000 rw-s 00000000 00:55 77 /dev/other\n\
             7f0000000000-7f0000200000 rw-s 10000000 00:55 77 /dev/other\n",
        );
        tree.device("proc/4242/map_files/80000000-80200000", (510, 4), 0o600, (0, 0));
    });
    is_same_as_its_capture("a path through a directory and out again", |tree| {
        tree.directory("dev/shm");
        let path = "/dev/shm/../egm5";
        definition(
            tree,
            defined,
            &format!("<memoryBacking><source>{path}</source></memoryBacking>"),
        );
    });
    is_same_as_its_capture("a link through a directory and out again", |tree| {
        let passwd = tree.content("etc/passwd").replace("root", "toor");
        tree.file("etc/other", passwd);
        tree.directory("usr/share");
        tree.raw_link("etc/passwd", "../usr/share/../../etc/other");
    });
    is_same_as_its_capture("a home through a directory and out again", |tree| {
        tree.file("etc/passwd", "u:x:1000:1000::/home/x/../u:/bin/sh\n");
        tree.directory("home/x");
        tree.directory("run/user/1000");
        let file = "home/u/.config/libvirt/qemu/other.xml";
        definition(tree, file, "<memoryBacking><source>/dev/egm5</source></memoryBacking>");
    });
    is_same_as_its_capture("a comment in a path", |tree| {
        let source = "<source>/dev/<!-- c -->egm5<?x y?></source>";
        definition(tree, defined, &format!("<memoryBacking>{source}</memoryBacking>"));
    });
    is_same_as_its_capture("an option and its value apart", |tree| {
        let inner = "<q:commandline><q:arg value='-mem-path'/></q:commandline>\
                     <q:commandline><q:arg value='/dev/egm5'/></q:commandline>";
        definition(tree, defined, inner);
    });
    is_same_as_its_capture("one that runs without EGM, and is defined with it", |tree| {
        definition(tree, defined, "<memoryBacking><source>/dev/egm5</source></memoryBacking>");
        definition(
            tree,
            "etc/libvirt/qemu/third.xml",
            "<memoryBacking><source>/dev/egm5</source></memoryBacking>",
        );
        let status = "<domstatus pid='7'><domain><name>other</name></domain></domstatus>";
        tree.file("run/libvirt/qemu/other.xml", status);
        let third = tree.content("etc/libvirt/qemu/third.xml").replace("other", "third");
        tree.file("etc/libvirt/qemu/third.xml", third);
    });
    is_same_as_its_capture("a user's machine that runs, and holds nothing yet", |tree| {
        tree.file("etc/passwd", "u:x:1000:1000::/home/u:/bin/sh\n");
        tree.file("proc/77/status", "Uid:\t1000\t1000\t1000\t1000\n");
        tree.file("proc/77/maps", "");
        tree.directory("proc/77/fd");
        let domain = "<domain><name>own</name><memoryBacking><source>/dev/egm5</source></memoryBacking></domain>";
        let status = format!("<domstatus pid='77'>{domain}</domstatus>");
        tree.file("run/user/1000/libvirt/qemu/run/own.xml", status);
    });
    is_same_as_its_capture("a lease beside one that has expired", |tree| {
        let both = [("egm5", "2001-09-09T01:46:40Z"), ("egm5", "9999-12-31T23:59:59Z")];
        tree.file("run/egm-probe/leases.json", leases(&both));
    });
    is_same_as_its_capture("a damaged file of leases", |tree| {
        tree.file("run/egm-probe/leases.json", "{\"schema\":");
    });
    is_same_as_its_capture("a process that writes what it does", |tree| {
        tree.file("proc/4242/cmdline", "qemu: of SECRET\0");
        tree.file("proc/4242/comm", "qemu\n");
        tree.remove("run/libvirt/qemu/vm1.xml");
    });
}

/// The script of a namespace with a machine in place of the host, a real holder of egm4, and few
/// other processes.
fn in_place(machine: &Path, script: &str) -> Output {
    let setup = format!(
        "set -e
        mount --make-rprivate /
        mount -t proc proc /proc
        mount -t overlay o -o nodev,lowerdir={0}/sys:/sys /sys
        mount -t tmpfs tmpfs /dev
        mount -t tmpfs tmpfs /run
        mknod -m 0666 /dev/null c 1 3
        mknod -m 0640 /dev/egm4 c 1 5
        mknod -m 0600 /dev/egm5 c 1 5
        chown 0:1 /dev/egm4
        mkdir -p /run/libvirt
        [ ! -d {0}/run/libvirt/qemu ] || mount --bind {0}/run/libvirt /run/libvirt
        if [ -d {0}/etc/libvirt ] && [ -d /etc/libvirt ]; then mount --bind {0}/etc/libvirt /etc/libvirt; fi
        mkfifo /run/orders
        {1} <>/run/orders >/run/answers &
        holder=$!
        printf 'open /dev/egm4\\nmap 16777216 8388608\\n' >/run/orders
        while [ \"$(grep -c ok /run/answers)\" -lt 2 ]; do sleep 0.01; done
        {script}
        kill $holder",
        machine.display(),
        holder_program().display(),
    );
    Command::new("unshare").args(["-m", "-p", "-f", "sh", "-c", &setup]).output().unwrap()
}

#[test]
fn a_running_host_gives_the_same_output_from_its_capture() {
    let machines = [
        "gb200-full-gpu-list",
        "gb200-full-standalone",
        "gb200-just-made",
        "gb200-aux-per-gpu",
        "claims-defined",
        "claims-running-unseen",
        "claims-broken-xml",
        "everything-broken",
        "gb300-egm-off",
    ];
    for machine in machines {
        let host = extract(machine);
        let nodes = "mknod /run/x c 1 5";
        if !can_overlay(host.path())
            || !can(
                "nodes and a PID namespace",
                &["unshare", "-mpf", "sh", "-c", &format!("mount -t tmpfs tmpfs /run && {nodes}")],
            )
        {
            return;
        }
        let number = host.path().join("sys/devices/virtual/egm/egm4/dev");
        if number.exists() {
            fs::write(&number, "1:5\n").unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        let script = format!(
            "cd {}
            {PROGRAM} list --json >before.json 2>before
            {PROGRAM} show --json >show.json 2>/dev/null || true
            {PROGRAM} capture --with-claims x.tar.gz 2>said
            {PROGRAM} capture --with-claims - >y.tar.gz 2>/dev/null
            {PROGRAM} capture z.tar.gz 2>/dev/null
            {PROGRAM} list --json --no-occupancy >without.json 2>/dev/null
            {PROGRAM} list --json >after.json 2>/dev/null",
            folder.path().display()
        );
        let output = in_place(host.path(), &script);
        assert!(output.status.success(), "{machine}: {output:?}");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let replayed = |args: &[&str]| String::from_utf8(egm_probe(args).stdout).unwrap();
        let live = read("before.json");
        assert_eq!(live, read("after.json"), "{machine}: the host itself has changed");
        assert_eq!(replayed(&["--from", &file("x.tar.gz"), "list", "--json"]), live, "{machine}");
        let show = replayed(&["--from", &file("x.tar.gz"), "show", "--json"]);
        assert_eq!(show, read("show.json"), "{machine}");
        let without = replayed(&["--from", &file("z.tar.gz"), "list", "--json"]);
        assert_eq!(without, read("without.json"), "{machine}");
        let bytes = |name: &str| fs::read(file(name)).unwrap();
        assert!(bytes("x.tar.gz") == bytes("y.tar.gz"), "{machine}: not the same bytes twice");
        assert!(!read("said").contains("another host"), "{machine}: {}", read("said"));
        if number.exists() && machine != "everything-broken" {
            assert!(live.contains("\"via\": \"private\""), "{machine}: no holder: {live}");
            assert!(live.contains("PID namespace"), "{machine}: {live}");
        }
        assert!(
            machine != "gb200-just-made" || live.contains("incomplete after 5 reads"),
            "{live}"
        );
        assert!(
            machine != "claims-defined"
                || !Path::new("/etc/libvirt").exists()
                || live.contains("\"vm2\"")
        );
    }
}

/// An unprivileged user sees their own process only by the inode of its file, under another name.
#[test]
fn the_capture_of_an_unprivileged_user_gives_the_same_output() {
    let host = extract("gb200-full-gpu-list");
    if !can_overlay(host.path()) || !can("setpriv", &["setpriv", "--version"]) {
        return;
    }
    fs::write(host.path().join("sys/devices/virtual/egm/egm4/dev"), "1:5\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for open in [host.path(), folder.path()] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
    }
    fs::copy(PROGRAM, folder.path().join("egm-probe")).unwrap();
    fs::copy(holder_program(), folder.path().join("holder")).unwrap();
    let script = format!(
        "cd {}
        chmod 0666 /dev/egm4
        ln /dev/egm4 /dev/other
        mkfifo -m 0666 orders
        : >answers; chmod 0666 answers
        setpriv --reuid=65534 --regid=65534 --clear-groups ./holder <>orders >answers &
        second=$!
        printf 'open /dev/other\\nmap 4096 4096\\nclose\\n' >orders
        while [ \"$(grep -c ok answers)\" -lt 3 ]; do sleep 0.01; done
        as='setpriv --reuid=65534 --regid=65534 --clear-groups ./egm-probe'
        $as list --json >live.json 2>/dev/null
        $as capture --with-claims x.tar.gz
        kill $second",
        folder.path().display()
    );
    let output = in_place(host.path(), &script);
    assert!(output.status.success(), "{output:?}");
    let live = fs::read_to_string(folder.path().join("live.json")).unwrap();
    let file = folder.path().join("x.tar.gz");
    let replayed = printed(&["--from", text(&file), "list", "--json"]);
    assert_eq!(String::from_utf8(replayed).unwrap(), live);
    for seen in ["\"partial\"", "\"via\": \"private\"", "could not be examined"] {
        assert!(live.contains(seen), "{seen}: {live}");
    }
}

#[test]
fn the_names_that_udev_gave_are_in_the_capture() {
    if !has_udev() || !can("umockdev", &["umockdev-run", "--version"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar.gz");
    let mocked = |args: &[&str]| {
        let mut command = Command::new("umockdev-run");
        command.arg("--device").arg(fixtures().join("gb200.umockdev")).args(["--", PROGRAM]);
        command.args(args).output().unwrap()
    };
    let live = mocked(&["show", "--json", "--no-occupancy"]);
    assert!(mocked(&["capture", text(&file)]).status.success());
    let shown = String::from_utf8(printed(&["--from", text(&file), "show", "--json"])).unwrap();
    assert_eq!(shown, String::from_utf8(live.stdout).unwrap());
    assert!(shown.contains("/dev/grace-egm/by-node/0"), "{shown}");
}

#[test]
fn unreadable_files_stay_unreadable_in_the_capture() {
    let host = extract("gb200-full-standalone");
    let root = text(host.path());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar.gz");
    for (path, call, error) in [
        ("sys/devices/virtual/egm/egm4/egm_size", "read", "EIO"),
        ("sys/devices/virtual/egm/egm4/egm_size", "openat", "EACCES"),
        ("sys/devices/virtual/egm/egm4/uevent", "openat", "ENODEV"),
        ("sys/class/egm", "openat", "EACCES"),
        ("sys/devices/virtual/egm/egm5", "openat", "ESTALE"),
        ("sys/devices/system/node/online", "openat", "EIO"),
        ("sys/devices/pci0008:00/0008:00:00.0/0008:01:00.0/numa_node", "read", "EPERM"),
        ("proc", "openat", "EACCES"),
        ("sys/devices/virtual/egm/egm4/dev", "stat,newfstatat,statx", "EIO"),
    ] {
        let path = host.path().join(path);
        let inject = ["-qq", "-f", "-o", "/dev/null", "-P", text(&path)];
        let rule = format!("inject={call}:error={error}");
        if !can_strace() {
            return;
        }
        let strace = |args: &[&str]| {
            let mut command = Command::new("strace");
            command.args(inject).args(["-e", &rule, PROGRAM, "--sysroot", root]).args(args);
            command.output().unwrap()
        };
        let live = strace(&["list", "--json"]);
        let output = strace(&["capture", "--with-claims", text(&file)]);
        assert!(output.status.success(), "{output:?}");
        let replayed = egm_probe(&["--from", text(&file), "list", "--json"]);
        let shown = |output: &Output| String::from_utf8(output.stdout.clone()).unwrap();
        assert_eq!(shown(&replayed), shown(&live), "{rule} {}", path.display());
        let healthy = egm_probe(&["--sysroot", root, "list", "--json"]);
        assert_ne!(shown(&healthy), shown(&live), "{rule} {}: does nothing", path.display());
    }
}

#[test]
fn links_and_other_files_are_recorded_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (root, file) = (folder.path().join("root"), folder.path().join("x.tar.gz"));
    let devices = root.join("sys/devices/virtual/egm");
    fs::create_dir_all(devices.join("egm4")).unwrap();
    fs::create_dir_all(root.join("sys/class/egm")).unwrap();
    for region in ["egm4", "egm5"] {
        let target = format!("../../devices/virtual/egm/{region}");
        symlink(target, root.join("sys/class/egm").join(region)).unwrap();
    }
    fs::write(devices.join("egm5"), "").unwrap();
    let targets = [".//.././x/".to_owned(), "./".repeat(50), "./".repeat(51), "x//".repeat(700)];
    for (number, target) in targets.iter().enumerate() {
        symlink(target, devices.join(format!("egm4/000{number}:01:00.0"))).unwrap();
    }
    capture(&["--sysroot", text(&root)], &file, &[]);
    let shown = |option: &str, root: &Path| {
        let output = egm_probe(&[option, text(root), "show", "egm4", "egm5"]);
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let here = shown("--sysroot", &root);
    assert_eq!(shown("--from", &file), here);
    assert!(here.contains("/egm5: Not a directory") && here.contains(".//.././x/"), "{here}");
}

/// The file of leases for x, from their regions and expiry times.
fn leases(leases: &[(&str, &str)]) -> String {
    let lease = |(region, expires): &(&str, &str)| {
        format!("{{\"regions\":[\"{region}\"],\"for\":\"x\",\"expires\":\"{expires}\"}}")
    };
    let leases = leases.iter().map(lease).collect::<Vec<_>>().join(",");
    format!("{{\"schema\":\"egm-probe.leases/1\",\"leases\":[{leases}]}}\n")
}

#[test]
fn acls_are_preserved_in_the_capture() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar.gz");
    let host = fixtures().join("doctor/D11-acl");
    capture(&["--from", host.to_str().unwrap()], &file, &[]);
    let root = Sysroot::capture(&file).unwrap();
    let acl = root.acl("/dev/egm4").unwrap().unwrap().to_string();
    assert_eq!(acl, "user::rw-,user:1000:rw-,group::rw-,mask::rw-,other::---");
    assert_eq!(root.stat("/dev/egm4").unwrap().mode, 0o660);
}

#[test]
fn reservations_are_preserved_in_the_capture() {
    let host = extract("gb200-full-gpu-list");
    let root = text(host.path());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar.gz");
    printed(&["--sysroot", root, "reserve", "egm4", "--for", "vm1", "--ttl", "1min"]);
    printed(&["--sysroot", root, "reserve", "egm5", "--for", "vm2", "--ttl", "1h"]);
    let list = ["list", "--json"];
    let live = printed(&[&["--sysroot", root], &list[..]].concat());
    let first = capture(&["--sysroot", root], &file, &["--with-claims"]);
    let second = capture(&["--sysroot", root], &file, &["--with-claims"]);
    assert!(first == second, "the time of day is in it");
    let replayed = printed(&[&["--from", text(&file)], &list[..]].concat());
    assert_eq!(String::from_utf8(replayed), String::from_utf8(live));

    // As if it had been recorded long ago, two seconds before the first of them ended.
    let mut tree = Tree::read(&file);
    let long_ago = [("egm4", "1970-01-01T00:00:17Z"), ("egm5", "1970-01-01T01:00:00Z")];
    tree.file("run/egm-probe/leases.json", leases(&long_ago));
    let about = tree.content("capture.json");
    let mut states = |moment: u32| {
        let start = about.find("\"moment\": ").unwrap() + "\"moment\": ".len();
        let end = start + about[start..].find('\n').unwrap();
        assert!(about[start..end].parse::<u64>().is_ok_and(|it| it > 1_700_000_000), "{about}");
        tree.file("capture.json", format!("{}{moment}{}", &about[..start], &about[end..]));
        fs::write(&file, tree.tar()).unwrap();
        printed(&["--from", text(&file), "list", "-nr", "-o", "DEVICE,STATE"])
    };
    assert_eq!(states(15), b"egm4 reserved\negm5 reserved\n");
    assert_eq!(states(18), b"egm4 free\negm5 reserved\n");

    // Of those that have ended the end of the last one is the moment: not that of the reader's clock.
    let ended = [("egm4", "1970-01-01T00:00:17Z"), ("egm5", "1970-01-01T00:00:16Z")];
    fs::write(host.path().join("run/egm-probe/leases.json"), leases(&ended)).unwrap();
    let taken = unpacked(&capture(&["--sysroot", root], &file, &["--with-claims"]));
    assert!(contains(&taken, "\"moment\": 17\n"), "{}", String::from_utf8_lossy(&taken));
}

#[test]
fn a_capture_is_written_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let original = machine("claims-vm");
    let root = ["--from", text(&original), "capture"];
    let to = |file: &str| {
        let path = folder.path().join(file);
        let output = egm_probe(&[&root[..], &[text(&path)]].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let file = folder.path().join("x.tar.gz");
    assert_eq!(to("x.tar.gz"), (Some(0), String::new()));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, "something longer than a capture".repeat(10_000)).unwrap();
    assert_eq!(to("x.tar.gz").0, Some(0));
    assert!(fs::read(&file).unwrap() == whole, "what was there is replaced");
    assert_eq!(printed(&[&root[..], &["-"]].concat()), whole);
    fs::create_dir(folder.path().join("directory")).unwrap();
    symlink("nowhere", folder.path().join("dangling")).unwrap();
    nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for (name, said) in [
        ("directory", "not a regular file"),
        ("dangling", "dangling symbolic link"),
        ("fifo", "not a regular file"),
        ("missing/x.tar.gz", "does not exist"),
    ] {
        let (code, stderr) = to(name);
        assert_eq!(code, Some(4), "{name}: {stderr}");
        assert!(stderr.contains(said) && stderr.contains(name), "{stderr}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4, "nothing is left over");
    // A closed pipe and a terminal are refused.
    let shell = |script: &str| {
        let output = Command::new("sh").args(["-c", script]).env("P", PROGRAM).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let from = format!("\"$P\" --from {}", original.display());
    let said = shell(&format!("{{ {from} capture -; echo $? >&2; }} | true"));
    assert!(said.contains("capture incomplete") && said.ends_with("4\n"), "{said}");
    if has(&["script"]) {
        let said = shell(&format!("script -qec '{from} capture -' /dev/null </dev/null; echo $?"));
        assert!(said.contains("to a terminal") && said.ends_with("2\n"), "{said:?}");
    }
    // As the umask has it.
    shell(&format!("umask 077; {from} capture {}", folder.path().join("private").display()));
    let mode = fs::metadata(folder.path().join("private")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    if nix::unistd::geteuid().is_root() {
        let (victim, trap) = (folder.path().join("victim"), folder.path().join("trap"));
        fs::write(&victim, "mine").unwrap();
        symlink("victim", &trap).unwrap();
        std::os::unix::fs::lchown(&trap, Some(65534), None).unwrap();
        assert!(to("trap").1.contains("symbolic link owned by another user"));
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
    }
    for args in [&["capture"][..], &["capture", "--with-claims", "--no-occupancy", "x"]] {
        assert_eq!(egm_probe(args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn hostile_text_in_a_capture_is_escaped() {
    let refusal = |about: &str| {
        let mut tree = Tree::read(&machine("claims-vm"));
        tree.file("capture.json", about);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.tar.gz");
        fs::write(&file, gzip(&tree.tar())).unwrap();
        let output = egm_probe(&["--from", text(&file), "list", "--json"]);
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap(),
        )
    };
    let of = |rest: &str| {
        format!("{{\"schema\":\"egm-probe.capture/1\",\"program\":\"x\",\"live\":false{rest}}}")
    };
    for (about, said) in [
        ("", "invalid capture.json: EOF while parsing"),
        ("[]", "invalid capture.json:"),
        (
            "{\"schema\":\"egm-probe.capture/2\",\"program\":\"\",\"live\":true,\"claims\":null}",
            "expected egm-probe.capture/1",
        ),
        (&of(",\"claims\":{\"unread\":-1}"), "invalid capture.json:"),
        (&"[".repeat(100_000), "invalid capture.json:"),
    ] {
        let (code, shown) = refusal(about);
        assert_eq!(code, Some(4), "{shown}");
        assert!(shown.contains(said), "{shown}");
    }
    let names: Vec<String> = (0..1_100_000).map(|number| format!("\"{number:x}\"")).collect();
    let many = of(&format!(",\"claims\":null,\"names\":{{\"/x\":[{}]}}", names.join(",")));
    let (code, shown) = refusal(&many);
    assert!(code == Some(4) && shown.contains("more than 1048576 names"), "{shown}");
    let (code, shown) =
        refusal(&of(",\"claims\":null,\"errors\":{\"/sys/class/egm\":{\"list\":0}}"));
    assert!(code == Some(0) && shown.contains("invalid errno 0"), "{shown}");
    let (code, shown) = refusal(&of(
        ",\"claims\":null,\"later\":1,\"errors\":{\"/sys/class/egm\":{\"list\":\"\\u001b[31mred\"}}",
    ));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("\"regions\": []") && !shown.contains('\u{1b}'), "{shown}");
    let unread = "4294967295";
    let (code, shown) = refusal(&of(&format!(
        ",\"claims\":{{\"unread\":[{unread}],\"hidden\":null,\"unsettled\":true}},\"names\":{{\"/proc\":[\"..\",\"1\",\"a/b\"]}},\
         \"inodes\":{{\"/dev/egm4\":{{\"major\":4294967295,\"minor\":0,\"inode\":0}}}},\"moment\":0"
    )));
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("\"occupancy\": \"partial\"") && shown.contains(unread), "{shown}");
}
