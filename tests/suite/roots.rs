//! The roots that a host can be read from: refused inputs, and equal results from all roots.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::live::extract;
use crate::support;
use crate::support::tree::{Tree, gzip};
use egm_probe::host::{Host, Needs};
use egm_probe::plan::Plan;
use egm_probe::report::Report;
use egm_probe::sysroot::{FileKind, Sysroot};
use egm_probe::values::DeviceNumber;
use tar::{Builder, EntryType, Header};

/// The reason why an archive was refused.
fn refusal(archive: &[u8]) -> String {
    Sysroot::from_tar(archive).expect_err("the archive was accepted").to_string()
}

/// The header of an entry owned by root and without content.
fn header(kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// An archive of one entry whose name is written unchanged.
fn entry(name: &[u8], kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = header(kind);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn an_entry_that_leads_out_of_the_archive_is_refused() {
    for name in ["../etc/passwd", "sys/../../etc/passwd", "/../x", "sys/.."] {
        let why = refusal(&entry(name.as_bytes(), EntryType::Regular, 0));
        assert!(why.contains("leads out of the archive"), "{name}: {why}");
    }
}

#[test]
fn invalid_names_are_refused_with_their_entry() {
    let link = entry(b"sys/class/egm/egm4", EntryType::Symlink, 0);
    let why = "entry sys/class/egm/egm4: link without a target";
    assert!(refusal(&link).contains(why), "{}", refusal(&link));
    for (kind, why) in [
        (EntryType::GNULongName, "path contains a NUL byte"),
        (EntryType::GNULongLink, "link target contains a NUL byte"),
    ] {
        let name = b"sys/x\0y\0";
        let mut tar = entry(b"././@LongLink", kind, name.len() as u64);
        tar.extend(name);
        tar.resize(1024, 0);
        tar.extend(entry(b"sys/z", EntryType::Symlink, 0));
        assert!(refusal(&tar).contains(why), "{}", refusal(&tar));
    }
}

#[test]
fn a_directory_without_a_host_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("root/sys/class")).unwrap();
    let file = support::machine("gb200-gpu-list");
    for (root, code, why) in [
        (folder.path().to_owned(), 4, "contains neither sys/ nor proc/"),
        (folder.path().join("root/sys"), 4, "contains neither sys/ nor proc/"),
        (folder.path().join("root"), 0, "no EGM region"),
        (file, 4, "not a directory (use --from to read a capture)"),
    ] {
        for command in [&["list"][..], &["validate", "examples/base.xml"]] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
            let output = program.arg("--sysroot").arg(&root).args(command).output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(code), "{root:?} {command:?}: {stderr}");
            assert!(stderr.contains(why), "{stderr}");
            assert!(code == 0 || stderr.contains(root.to_str().unwrap()), "{stderr}");
        }
    }
}

#[test]
fn absolute_and_relative_paths_are_the_same() {
    for name in ["/sys/class/egm/egm4", "./sys/class/egm/egm4", "sys//class/egm/egm4"] {
        let tar = [entry(name.as_bytes(), EntryType::Regular, 0), vec![0; 1024]].concat();
        let root = Sysroot::from_tar(&tar[..]).unwrap();
        assert_eq!(root.entries("/sys/class/egm").unwrap(), ["egm4"], "{name}");
    }
}

#[test]
fn links_never_lead_out_of_a_root() {
    let mut tree = Tree::default();
    tree.raw_link("sys/out", "../../../../etc");
    tree.raw_link("sys/absolute", "/etc/passwd");
    tree.raw_link("sys/loop", "loop");
    tree.raw_link("sys/a", "b/x");
    tree.raw_link("sys/b", "a/x");
    tree.file("etc/passwd", "of the root\n");
    let archive = Sysroot::from_tar(&tree.tar()[..]).unwrap();

    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("sys")).unwrap();
    fs::create_dir_all(folder.path().join("etc")).unwrap();
    fs::write(folder.path().join("etc/passwd"), "of the root\n").unwrap();
    for (name, target) in [
        ("out", "../../../../etc"),
        ("absolute", "/etc/passwd"),
        ("loop", "loop"),
        ("a", "b/x"),
        ("b", "a/x"),
    ] {
        symlink(target, folder.path().join("sys").join(name)).unwrap();
    }
    let directory = Sysroot::directory(folder.path()).unwrap();

    for root in [archive, directory] {
        assert_eq!(root.read_text("/sys/out/passwd").unwrap(), "of the root\n");
        assert_eq!(root.read_text("/sys/absolute").unwrap(), "of the root\n");
        for path in ["/sys/loop", "/sys/a", "/sys/b"] {
            let why = root.read_text(path).unwrap_err().to_string();
            assert_eq!(why, format!("{path}: Too many levels of symbolic links"));
        }
        assert_eq!(root.read_link("/sys/absolute").unwrap(), Path::new("/etc/passwd"));
        assert!(
            root.read_link("/etc/passwd").unwrap_err().to_string().contains("not a symbolic link")
        );
        assert!(root.stat("/etc/passwd/x").unwrap_err().is_absent());
    }
}

#[test]
fn an_archive_has_a_size_limit() {
    // 300 MiB of zeros are 300 KiB compressed. A gzip file may have several members: each file is
    // a header and 100 times the same one.
    let zeros = gzip(&vec![0; 1 << 20]);
    let file = |name: &str| {
        [gzip(&entry(name.as_bytes(), EntryType::Regular, 100 << 20)), zeros.repeat(100)].concat()
    };
    let bomb = [file("sys/a"), file("sys/b"), file("sys/c")].concat();
    assert!(bomb.len() < 1 << 20);
    assert!(refusal(&bomb).contains("larger than 256 MiB"));

    // A sparse file of 8 GiB, which takes no space in the archive.
    let mut header = header(EntryType::GNUSparse);
    header.set_path("sys/sparse").unwrap();
    let gnu = header.as_gnu_mut().unwrap();
    // 8 GiB in octal; the file is one hole up to an empty part at its end.
    gnu.realsize.copy_from_slice(b"100000000000");
    gnu.sparse[0].offset.copy_from_slice(b"100000000000");
    gnu.sparse[0].numbytes.copy_from_slice(b"00000000000\0");
    gnu.set_is_extended(false);
    header.set_cksum();
    let mut sparse = header.as_bytes().to_vec();
    sparse.extend([0; 1024]);
    assert!(refusal(&sparse).contains("larger than 256 MiB"), "{}", refusal(&sparse));

    // A file whose size in the header exceeds the archive.
    let mut short = entry(b"sys/x", EntryType::Regular, 1 << 40);
    short.extend([0; 512]);
    assert!(!refusal(&short).is_empty());
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let good = fs::read(support::machine("gb200-gpu-list")).unwrap();
    for (what, bytes) in [
        ("empty", &b""[..]),
        ("text", b"root:x:0:0:root:/root:/bin/bash\n\x1b[31m"),
        ("cut off", &good[..good.len() / 2]),
        ("only the magic", &good[..2]),
        ("zeros", &[0; 2048]),
        ("xz", b"\xfd7zXZ\0\0\x04"),
        ("without its end mark", &Tree::default_with("sys/x").tar()[..1024]),
        ("a wrong check sum", &{
            let mut gzip = good.clone();
            let at = gzip.len() - 6;
            gzip[at] ^= 1;
            gzip
        }),
        ("trailing data", &[&good[..], b"more"].concat()),
        ("a folder with the host in it", &Tree::default_with("host/sys/x").tar()),
        ("a file below a file", &{
            let mut both = entry(b"sys", EntryType::Regular, 0);
            both.extend(entry(b"sys/class", EntryType::Regular, 0));
            both
        }),
    ] {
        let why = refusal(bytes);
        assert!(why.starts_with("-: ") && why.ends_with("proc/, ..)"), "{what}: {why}");
        assert!(!why.contains(['\n', '\x1b']), "{what}: {why:?}");
    }
}

/// A host with one region and one GPU, of few files.
fn small() -> Tree {
    let mut tree = Tree::default();
    let (gpu, node) = ("sys/devices/pci0009:00/0009:01:00.0", "sys/devices/system/node");
    tree.link("sys/bus/pci/devices/0009:01:00.0", gpu);
    for (name, text) in [("vendor", "0x10de\n"), ("class", "0x030200\n"), ("numa_node", "0\n")] {
        tree.file(&format!("{gpu}/{name}"), text);
    }
    tree.link("sys/class/egm/egm4", "sys/devices/virtual/egm/egm4");
    for (name, text) in
        [("dev", "510:4\n"), ("egm_size", "0x6fc0000000\n"), ("gpu_devices", "0009:01:00.0\n")]
    {
        tree.file(&format!("sys/devices/virtual/egm/egm4/{name}"), text);
    }
    for (name, text) in [("online", "0\n"), ("node0/distance", "10\n"), ("node0/cpulist", "0-71\n")]
    {
        tree.file(&format!("{node}/{name}"), text);
    }
    tree.device("dev/egm4", (510, 4), 0o600, (0, 0));
    tree
}

/// tar takes the size of an attribute for a page, and fills the rest with zeros.
#[test]
fn attributes_in_an_archive_of_tar_have_their_values() {
    let file = "sys/devices/system/cpu/online";
    let output = Command::new("tar").args(["-C", "/", "-cf", "-", file]).output().unwrap();
    let root = Sysroot::from_tar(&output.stdout[..]).unwrap();
    let value = fs::read_to_string(Path::new("/").join(file)).unwrap();
    assert_eq!(root.read_text(Path::new("/").join(file)).unwrap(), value);
    // Files below other directories and binary ones may end in zeros.
    let mut tree = Tree::default();
    tree.file("proc/1/cmdline", "a\0\0");
    tree.file("sys/binary", "a\0b\0\0");
    let root = Sysroot::from_tar(&tree.tar()[..]).unwrap();
    assert_eq!(root.read_text("/proc/1/cmdline").unwrap(), "a\0\0");
    assert_eq!(root.read_text("/sys/binary").unwrap(), "a\0b\0\0");
}

#[test]
fn flipped_bits_do_not_make_the_reader_panic() {
    let tar = small().tar();
    let host = Host::read(&Sysroot::from_tar(&tar[..]).unwrap(), Needs::all());
    assert_eq!(host.regions[0].gpus.len(), 1, "{:?}", host.regions);
    let mut damaged = tar.clone();
    // Every byte of some headers, and one in a thousand of the rest.
    for position in (0..2048).chain((2048..tar.len()).step_by(251)) {
        for flip in [0x01, 0x80, 0xff] {
            damaged[position] = tar[position] ^ flip;
            if position < 2048 {
                // Four headers: with a wrong check sum no field of theirs would be read.
                let block = position / 512 * 512..position / 512 * 512 + 512;
                let mut header = Header::from_byte_slice(&damaged[block.clone()]).clone();
                header.set_cksum();
                damaged[block].copy_from_slice(header.as_bytes());
            }
            if let Ok(root) = Sysroot::from_tar(&damaged[..]) {
                let _ = Host::read(&root, Needs::all());
            }
        }
        damaged.copy_from_slice(&tar);
        if let Ok(root) = Sysroot::from_tar(&tar[..position]) {
            let _ = Host::read(&root, Needs::all());
        }
    }
}

#[test]
fn device_nodes_in_an_archive_are_read_but_not_created() {
    let root = Sysroot::capture(&support::machine("gb200-full-gpu-list")).unwrap();
    let stat = root.stat("/dev/egm4").unwrap();
    assert_eq!(stat.kind, FileKind::CharDevice(DeviceNumber { major: 510, minor: 4 }));
    assert_eq!((stat.mode, stat.uid, stat.gid), (0o660, 0, 36));
    let why = root.read("/dev/egm4", 1).unwrap_err().to_string();
    assert_eq!(why, "/dev/egm4: not a regular file");
}

#[test]
fn depth_and_length_of_paths_are_limited() {
    let deep = |depth: usize| {
        let mut tree = Tree::default();
        tree.file(&format!("sys/{}f", "d/".repeat(depth)), "deep\n");
        tree.tar()
    };
    let root = Sysroot::from_tar(&deep(62)[..]).unwrap();
    assert_eq!(root.read_text(format!("/sys/{}f", "d/".repeat(62))).unwrap(), "deep\n");
    assert!(refusal(&deep(63)).contains("deeper than 64 directories"));

    // Links that each lead deeper: 40 of them are followed, 64 directories are entered.
    let mut tree = Tree::default();
    tree.raw_link("sys/down", &format!("{}x", "d/".repeat(60)));
    tree.raw_link("sys/updown", &format!("{}{}", "d/".repeat(60), "../".repeat(60)));
    tree.directory(&format!("sys{}", "/d".repeat(60)));
    tree.raw_link(&format!("sys{}/x", "/d".repeat(60)), "e/f/g/h/i");
    let root = Sysroot::from_tar(&tree.tar()[..]).unwrap();
    assert!(root.stat("/sys/down").is_err());
    assert_eq!(root.entries("/sys/updown").unwrap(), root.entries("/sys").unwrap());
    assert!(
        refusal(&{
            let mut tree = Tree::default();
            tree.raw_link("sys/long", &"a/".repeat(100_000));
            tree.tar()
        })
        .contains("longer than 4096 bytes")
    );
}

#[test]
fn hard_links_are_other_names_of_the_same_file() {
    let mut tar = Builder::new(Vec::new());
    let mut add = |path: &str, kind: EntryType, target: &str| {
        let mut header = header(kind);
        if target.is_empty() {
            tar.append_data(&mut header, path, &b""[..]).unwrap();
        } else {
            tar.append_link(&mut header, path, target).unwrap();
        }
    };
    add("sys/bus/drivers/vfio-pci", EntryType::Directory, "");
    add("sys/a/driver", EntryType::Symlink, "../bus/drivers/vfio-pci");
    add("sys/b/driver", EntryType::Link, "sys/a/driver");
    let root = Sysroot::from_tar(&tar.into_inner().unwrap()[..]).unwrap();
    let target = Path::new("../bus/drivers/vfio-pci");
    assert_eq!(root.read_link("/sys/b/driver").unwrap(), target);

    for (target, why) in
        [("sys/none", "hard link to a missing file"), ("sys", "hard link to a directory")]
    {
        let mut tar = Builder::new(Vec::new());
        for (path, kind) in [("sys/a", EntryType::Directory), ("sys/b", EntryType::Link)] {
            let mut header = header(kind);
            tar.append_link(&mut header, path, target).unwrap();
        }
        let why_not = refusal(&tar.into_inner().unwrap());
        assert!(why_not.contains(why), "{why_not}");
    }
}

#[test]
fn a_device_is_not_opened_as_an_archive() {
    let Ok(nodes) = tempfile::tempdir() else { return };
    let node = nodes.path().join("egm4");
    let made = Command::new("mknod").arg(&node).args(["c", "1", "5"]).status();
    if !made.is_ok_and(|status| status.success()) {
        support::skip("making device nodes needs root");
        return;
    }
    // To open this one would read zeros for ever; to open the real one clears it.
    let why = Sysroot::capture(&node).unwrap_err().to_string();
    assert_eq!(why, format!("{}: not a regular file", node.display()));
}

#[test]
fn an_unsearchable_root_is_an_error() {
    use std::os::unix::fs::PermissionsExt;
    if !support::has(&["setpriv"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let closed = folder.path().join("closed");
    fs::create_dir_all(closed.join("sys/class/egm")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new("setpriv");
    // The program itself may be in a directory that other users cannot access.
    let program = folder.path().join("egm-probe");
    fs::copy(env!("CARGO_BIN_EXE_egm-probe"), &program).unwrap();
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    let output = command.args(["list", "--sysroot"]).arg(&closed).output().unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    if String::from_utf8_lossy(&output.stderr).contains("setpriv") {
        support::skip("changing the user needs root");
        return;
    }
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("Permission denied"));
}

/// A small archive with very many names takes neither long nor much memory.
#[test]
fn excessive_numbers_are_limited() {
    let lines: Vec<_> = (0..1000).map(|n| format!("{n:04x}:01:00.0")).collect();
    let mut tree = Tree::default();
    for number in 0..600 {
        tree.raw_link(&format!("sys/class/egm/egm{number}"), "../../devices/virtual/egm/egm0");
    }
    tree.file("sys/devices/virtual/egm/egm0/gpu_devices", lines.join("\n"));
    for number in 0..3000 {
        let path = format!("sys/bus/pci/devices/{number:04x}:02:00.0");
        tree.file(&format!("{path}/vendor"), "0x10de\n");
        tree.file(&format!("{path}/class"), "0x030200\n");
    }
    let start = Instant::now();
    let root = Sysroot::from_tar(&tree.tar()[..]).unwrap();
    let host = Host::read(&root, Needs::all());
    assert_eq!(host.regions.len(), 256);
    assert!(host.regions.iter().all(|region| region.gpus.len() == 64));
    let warnings: Vec<_> = host.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings.iter().any(|warning| warning.starts_with("found 600 regions")));
    // It takes less than a second.
    assert!(start.elapsed() < Duration::from_secs(60), "took {:?}", start.elapsed());
}

#[test]
fn an_archive_can_come_through_a_pipe() {
    let archive = gzip(&Tree::read(&support::machine("gh200-full")).tar());
    let mut child = Command::new(env!("CARGO_BIN_EXE_egm-probe"))
        .args(["--from", "-", "list", "-n", "-o", "DEVICE"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&archive).unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"egm4\n");
}

/// A user may link a definition to a file that only root may read, whose words warnings would show.
#[test]
fn links_in_a_users_libvirt_directory_are_not_followed() {
    let folder = extract("claims-defined");
    let directory = folder.path().join("home/user/.config/libvirt/qemu");
    fs::rename(directory.join("vm3.xml"), folder.path().join("secret.xml")).unwrap();
    symlink("/secret.xml", directory.join("vm3.xml")).unwrap();
    let root = Sysroot::directory(folder.path()).unwrap();
    let report = Report::read(&root, Plan::NEEDS);
    let egm5 = report.claims.of(&"egm5".parse().unwrap());
    assert!(egm5.is_empty(), "{egm5:?}");
    let warnings: Vec<_> = report.warnings().map(ToString::to_string).collect();
    let is_refused = |warning: &String| warning.contains("vm3.xml: Too many levels of symbolic");
    assert!(warnings.iter().any(is_refused), "{warnings:?}");
}

/// A directory with these lines in its `nodes`, and one file.
fn directory_with(nodes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("host/sys")).unwrap();
    fs::write(folder.path().join("host/sys/x"), "x\n").unwrap();
    fs::write(folder.path().join("host/nodes"), nodes).unwrap();
    folder
}

#[test]
fn nodes_give_a_directory_what_version_control_drops() {
    let nodes = "# A comment.\n\n/dev/egm4 char 510:4 0660 0 36\n/dev/pipe fifo\n/sys/x file - 0600 7 8\n\
         /sys/a\\040b dir\n  /dev/null char 1:3\n";
    let folder = directory_with(nodes);
    let host = folder.path().join("host");
    fs::create_dir(folder.path().join("other")).unwrap();
    let later = "base ../host\n/dev/null absent\n/dev/egm4 char 510:4 0600\n";
    fs::write(folder.path().join("other/nodes"), later).unwrap();

    let root = Sysroot::capture(&host).unwrap();
    let egm4 = root.stat("/dev/egm4").unwrap();
    assert_eq!(egm4.kind, FileKind::CharDevice(DeviceNumber { major: 510, minor: 4 }));
    assert_eq!((egm4.mode, egm4.uid, egm4.gid), (0o660, 0, 36));
    assert_eq!(root.stat("/dev/pipe").unwrap().kind, FileKind::Other);
    let file = root.stat("/sys/x").unwrap();
    assert_eq!((file.mode, file.uid, file.gid), (0o600, 7, 8));
    assert_eq!(root.entries("/sys").unwrap(), ["a b", "x"]);
    assert_eq!(root.entries("/dev").unwrap(), ["egm4", "null", "pipe"]);

    let root = Sysroot::capture(&folder.path().join("other")).unwrap();
    assert_eq!(root.entries("/dev").unwrap(), ["egm4", "pipe"]);
    assert_eq!(root.stat("/dev/egm4").unwrap().mode, 0o600);
    assert_eq!(root.read_text("/sys/x").unwrap(), "x\n");
}

/// The binary form of [`ACL`]: the number 10 is that of a newline.
fn acl_with_a_newline() -> Vec<u8> {
    let entries =
        [(1, 6, u32::MAX), (2, 6, 10), (4, 0, u32::MAX), (0x10, 6, u32::MAX), (0x20, 0, u32::MAX)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permission, id) in entries {
        bytes.extend([tag, 0, permission, 0]);
        bytes.extend(u32::to_le_bytes(id));
    }
    bytes
}

const ACL: &str = "user::rw-,user:10:rw-,group::---,mask::rw-,other::---";

#[test]
fn acls_are_read_from_archives() {
    let lines = ACL.replace(',', "\n") + "\n";
    let binary = acl_with_a_newline();
    let mut tar = Builder::new(Vec::new());
    let add = |tar: &mut Builder<Vec<u8>>, path: &str, records: &[(&str, &[u8])]| {
        tar.append_pax_extensions(records.iter().copied()).unwrap();
        let mut header = header(EntryType::Char);
        header.set_mode(0o660);
        header.set_device_major(510).unwrap();
        header.set_device_minor(4).unwrap();
        header.set_cksum();
        tar.append_data(&mut header, path, &b""[..]).unwrap();
    };
    add(&mut tar, "dev/text", &[("SCHILY.acl.access", lines.as_bytes())]);
    add(&mut tar, "dev/commas", &[("mtime", b"1.5"), ("SCHILY.acl.access", ACL.as_bytes())]);
    add(
        &mut tar,
        &format!("dev/{}", "binary/".repeat(40)),
        &[("SCHILY.xattr.system.posix_acl_access", &binary)],
    );
    add(&mut tar, "dev/none", &[("SCHILY.xattr.user.x", b"a\nb")]);
    let root = Sysroot::from_tar(&tar.into_inner().unwrap()[..]).unwrap();
    for path in ["text", "commas", &"binary/".repeat(40)] {
        let acl = root.acl(format!("/dev/{path}")).unwrap().expect(path);
        assert_eq!(acl.to_string(), ACL, "{path}");
    }
    assert_eq!(root.acl("/dev/none").unwrap(), None);
    assert!(root.acl("/dev/missing").is_err());

    let mut tar = Builder::new(Vec::new());
    add(&mut tar, "dev/egm4", &[("SCHILY.acl.access", b"user:1:wr-")]);
    let why = refusal(&tar.into_inner().unwrap());
    assert!(why.contains("entry dev/egm4: invalid ACL: invalid entry user:1:wr-"), "{why}");
}

#[test]
fn acls_are_read_from_files() {
    let folder =
        directory_with("/dev/egm4 char 510:4 0600 0 36 user:10:rw-,group::---,mask::rw-\n");
    let root = Sysroot::capture(&folder.path().join("host")).unwrap();
    assert_eq!(root.acl("/dev/egm4").unwrap().unwrap().to_string(), ACL);
    assert_eq!(root.stat("/dev/egm4").unwrap().mode, 0o660, "the mode has the mask");

    let (file, name) = (folder.path().join("host/sys/x"), "system.posix_acl_access");
    let set =
        rustix::fs::setxattr(&file, name, &acl_with_a_newline(), rustix::fs::XattrFlags::empty());
    if set.is_err() {
        support::skip("this file system has no ACLs");
        return;
    }
    symlink("/sys/x", folder.path().join("host/sys/link")).unwrap();
    let root = Sysroot::directory(&folder.path().join("host")).unwrap();
    for path in ["/sys/x", "/sys/link"] {
        assert_eq!(root.acl(path).unwrap().unwrap().to_string(), ACL);
    }
    assert_eq!(root.acl("/sys").unwrap(), None);
}

#[test]
fn bad_nodes_are_refused_with_their_line() {
    for (nodes, why) in [
        ("dev/egm4 char 510:4\n", "line 1: neither `base PATH` nor a path that begins with /"),
        ("# x\n/dev/egm4\n", "line 2: no type after the path"),
        ("/dev/egm4 device\n", "line 1: device is not char, block, fifo, dir, file or absent"),
        ("/dev/egm4 char\n", "line 1: a character device without its number"),
        ("/dev/egm4 char 510\n", "line 1: 510 is not major:minor"),
        ("/dev/egm4 char 510:4 0o660\n", "line 1: 0o660 is not an octal mode"),
        ("/dev/egm4 char 510:4 17777\n", "line 1: 17777 is not an octal mode"),
        ("/dev/egm4 char 510:4 0660 root\n", "line 1: root is not a numeric id"),
        ("/dev/egm4 char 510:4 0660 0 0 u:x:r\n", "line 1: invalid ACL: invalid entry u:x:r"),
        ("/dev/egm4 char 510:4 0660 0 0 - x\n", "line 1: more than path, type, number,"),
        ("/../x dir\n", "line 1: entry /../x: path leads out of the archive"),
        ("/sys/x/y dir\n", "line 1: the parent is not a directory"),
        ("/sys/y absent\n", "line 1: sys/y is not in the directory, nor in its base"),
        ("/sys/y file\n", "line 1: /sys/y is not in the directory, nor in its base"),
        ("base ../host\n", "line 1: more than 8 bases one upon the other"),
        ("base ../none\n", "none: No such file or directory"),
        ("base sys/x\n", "x: cannot be read as an archive"),
        ("\u{0}\n", "line 1: neither"),
    ] {
        let folder = directory_with(nodes);
        let error = Sysroot::capture(&folder.path().join("host")).unwrap_err().to_string();
        let is_placed = error.starts_with(folder.path().to_str().unwrap());
        assert!(is_placed && error.contains(why), "{nodes:?}: {error}");
    }
    let folder = directory_with("");
    fs::write(folder.path().join("host/nodes"), b"\xff\n").unwrap();
    let error = Sysroot::capture(&folder.path().join("host")).unwrap_err().to_string();
    assert!(error.ends_with("host/nodes: is not UTF-8"), "{error}");
}

#[test]
fn a_directory_without_nodes_is_a_root() {
    let folder = extract("gh200-full");
    let list = |option: &str, folder: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_egm-probe"));
        command.arg(option).arg(folder).arg("list").output().unwrap()
    };
    let (from, below) = (list("--from", folder.path()), list("--sysroot", folder.path()));
    assert_eq!((from.status.code(), from.stdout), (Some(0), below.stdout));
    let empty = tempfile::tempdir().unwrap();
    let refused = list("--from", empty.path());
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
}
