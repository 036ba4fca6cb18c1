//! The rules file below a root: written, saved and removed; interrupted, refused, verified.

use crate::live::{can, can_strace};
use crate::support::{self, stderr};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");
const RULES: &str = "/etc/udev/rules.d/60-egm.rules";

fn udev(args: &[&str]) -> Output {
    Command::new(PROGRAM).arg("udev").args(args).output().unwrap()
}

/// Every rule that is shipped or can be made passes systemd's own check; one that is broken does not.
#[test]
fn udevadm_verify_passes_every_rule() {
    if !can("udevadm", &["udevadm", "--version"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/udevadm-verify");
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("udevadm-verify");
    let verify =
        |files: &[PathBuf]| Command::new(&script).arg(&cache).args(files).output().unwrap();
    let mut files = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("udev-rules/60-egm.rules")];
    for (number, args) in [
        &[][..],
        &["--group", "disk", "--mode", "0600", "--user", "root"],
        &["--selinux", "system_u:object_r:svirt_image_t:s0:c1,c2"],
        &["--user", "0", "--group", "0"],
    ]
    .iter()
    .enumerate()
    {
        let printed = udev(&[&["print"], *args].concat());
        assert!(printed.status.success(), "{printed:?}");
        let path = folder.path().join(format!("{number}.rules"));
        fs::write(&path, printed.stdout).unwrap();
        files.push(path);
    }
    let output = verify(&files);
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    if !output.status.success() && !text.contains("Fail:") {
        support::skip(&format!("no udevadm that can verify: {}", text.trim()));
        return;
    }
    assert!(output.status.success() && text.contains("Success: 5"), "{text}");

    let broken = folder.path().join("broken.rules");
    let shipped = fs::read_to_string(&files[0]).unwrap();
    fs::write(&broken, shipped.replace("GROUP=\"kvm\"", "GROUP==\"kvm\"")).unwrap();
    assert!(!verify(&[broken]).status.success(), "the check is ineffective");
}

/// A root with a rules directory, optionally with a rules file.
fn root_with(rules: Option<&str>) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("etc/udev/rules.d");
    fs::create_dir_all(&directory).unwrap();
    if let Some(rules) = rules {
        fs::write(directory.join("60-egm.rules"), rules).unwrap();
    }
    root
}

fn rules_of(root: &Path) -> PathBuf {
    root.join("etc/udev/rules.d/60-egm.rules")
}

fn backup_of(root: &Path) -> PathBuf {
    root.join("etc/udev/rules.d/60-egm.rules.orig")
}

/// Paths and contents of everything below a directory.
fn everything(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            found.push((
                path.clone(),
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes(),
            ));
        } else if path.is_dir() {
            found.extend(everything(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_packager_s_root_gets_the_file_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_str().unwrap();
    let output = udev(&["install", "--root", path]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(everything(root.path()).len(), 1);
    let rules = fs::read_to_string(rules_of(root.path())).unwrap();
    assert!(rules.contains(r#"PROGRAM=="egm-probe udev links %k""#), "{rules}");
    let printed = String::from_utf8(udev(&["print"]).stdout).unwrap();
    assert!(rules.ends_with(&printed) && rules.lines().count() == printed.lines().count() + 1);
    let mode = fs::metadata(rules_of(root.path())).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    assert!(
        stderr(&output).contains("group kvm: not checked (/etc/group is missing"),
        "{output:?}"
    );
    assert!(udev(&["uninstall", "--root", path]).status.success());
    assert!(everything(root.path()).is_empty());
}

#[test]
fn invalid_and_unsafe_settings_are_refused_without_changes() {
    let root = root_with(Some("# an administrator's\n"));
    fs::write(root.path().join("etc/group"), "root:x:0:\nkvm:x:36:\npeople:x:1000:\n").unwrap();
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let file = root.path().join("etc/group");
    let before = everything(root.path());
    let path = root.path().to_str().unwrap();
    for (args, code, word) in [
        (&[][..], 1, "not written by `egm-probe udev install` (--force saves it"),
        (&["--dry-run"], 1, "not written by `egm-probe udev install` (--force saves it"),
        (&["--group", "nosuch"], 1, "group nosuch: missing on this system"),
        (&["--user", "nosuch"], 1, "user nosuch: missing on this system"),
        (&["--group", "4711"], 1, "group 4711: no group of this system has this number"),
        (&["--mode", "0666"], 1, "mode 0666: gives every process access"),
        (&["--mode", "0664"], 1, "mode 0664: gives every process access"),
        (&["--mode", "9999"], 2, "a mode in octal digits"),
        (&["--mode", "4660"], 2, "a mode in octal digits"),
        (&["--group", "036"], 2, "the name of a user or group"),
        (&["--group", "65535"], 2, "the name of a user or group"),
        (&["--group", "kvm\", RUN+=\"x"], 2, "the name of a user or group"),
        (&["--group", "kvm\nRUN+=\"x\""], 2, "the name of a user or group"),
        (&["--selinux", "a:b:c\""], 2, "an SELinux context"),
        (&["--root", file.to_str().unwrap()], 4, "not a directory"),
        (&["--root", "/nonexistent"], 4, "No such file or directory"),
    ] {
        let mut all = vec!["install"];
        if !args.contains(&"--root") {
            all.extend(["--root", path]);
        }
        let output = udev(&[&all, args].concat());
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(word), "{args:?}: {output:?}");
        assert_eq!(everything(root.path()), before, "{args:?}");
    }
    let forced =
        udev(&["install", "--root", path, "--group", "nosuch", "--mode", "0666", "--force"]);
    assert!(forced.status.success(), "{forced:?}");
    let rules = fs::read_to_string(rules_of(root.path())).unwrap();
    assert!(rules.contains(r#"GROUP="nosuch", MODE="0666""#), "{rules}");
    let people = udev(&["install", "--root", path, "--group", "people"]);
    assert!(stderr(&people).contains("is not the number of a system group"), "{people:?}");
}

#[test]
fn planted_links_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    for (at, target, word) in [
        ("etc/udev/rules.d/60-egm.rules", victim.as_path(), "symbolic link to"),
        ("etc/udev/rules.d/60-egm.rules", Path::new("/dev/null"), "disables these rules"),
        ("etc/udev/rules.d/60-egm.rules", Path::new("nowhere"), "symbolic link to nowhere"),
        ("etc/udev/rules.d", outside.path(), "which is outside"),
        ("etc/udev", outside.path(), "which is outside"),
        ("etc", outside.path(), "which is outside"),
    ] {
        let root = root_with(None);
        let at = root.path().join(at);
        if at.exists() {
            fs::remove_dir_all(&at).unwrap();
        }
        symlink(target, &at).unwrap();
        let before = (everything(root.path()), everything(outside.path()));
        for command in ["install", "uninstall"] {
            let output = udev(&[command, "--root", root.path().to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(1), "{command} {at:?}: {output:?}");
            assert!(stderr(&output).contains(word), "{command} {at:?}: {output:?}");
            assert_eq!((everything(root.path()), everything(outside.path())), before);
        }
    }
}

#[test]
fn write_errors_are_reported_and_change_nothing() {
    let root = root_with(Some("# an administrator's\n"));
    let path = root.path().to_str().unwrap();
    let before = everything(root.path());
    let probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    if !can("a mount namespace", &probe) || !can_strace() {
        return;
    }
    let read_only = format!(
        "mount --make-rprivate / && mount --bind {path} {path} && mount -o remount,ro,bind {path} && \
         exec {PROGRAM} udev install --force --root {path}"
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &read_only]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(stderr(&output).contains("Read-only file system"), "{output:?}");
    assert_eq!(everything(root.path()), before);

    for (call, error) in [
        ("link,linkat", "EPERM"),
        ("fsync", "EIO"),
        ("write", "ENOSPC"),
        ("rename,renameat,renameat2", "EIO"),
    ] {
        let output = Command::new("strace")
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("inject={call}:error={error}:when=1"),
            ])
            .args([PROGRAM, "udev", "install", "--force", "--root", path])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(4), "{call}: {output:?}");
        let left: Vec<_> = everything(root.path())
            .into_iter()
            // A hard link to the file, which the next run uses.
            .filter(|(path, _)| !path.to_string_lossy().ends_with(".orig"))
            .collect();
        assert_eq!(left, before, "{call}");
    }
}

#[test]
fn without_root_or_udevd_the_running_system_is_left_alone() {
    let probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    // Its directory may be root's alone.
    let other = ["setpriv", "--reuid", "65534", "--clear-groups", PROGRAM, "--version"];
    if !can("a mount namespace", &probe) || !can("the program for another user", &other) {
        return;
    }
    let run = |setup: &str, arguments: &str| {
        let script = format!(
            "mount --make-rprivate /; mkdir -p /run/udev /etc/udev; mount -t tmpfs tmpfs /run/udev; \
             mount -t tmpfs tmpfs /etc/udev; {setup} {PROGRAM} udev {arguments}; code=$?; \
             find /etc/udev -type f; exit $code"
        );
        Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap()
    };
    for (setup, arguments, code, word) in [
        ("", "install", 4, "udevd: not running"),
        ("PATH=/nonexistent", "install", 4, "udevadm: missing in PATH"),
        ("setpriv --reuid 65534 --clear-groups", "install", 4, "only root can change"),
        ("setpriv --reuid 65534 --clear-groups", "uninstall", 4, "only root can change"),
        ("", "--sysroot / install", 2, "--sysroot and --from: not supported"),
        ("", "--from /dev/null uninstall", 2, "--sysroot and --from: not supported"),
        ("", "--sysroot / refresh", 2, "--sysroot and --from: not supported"),
    ] {
        let output = run(setup, arguments);
        assert_eq!(output.status.code(), Some(code), "{setup}: {output:?}");
        assert!(stderr(&output).contains(word), "{setup}: {output:?}");
        assert!(output.stdout.is_empty(), "{setup}: {output:?}");
    }
    let output = run("", "install --no-reload --group root");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with(&format!("{RULES}\n")));
}

/// If it is killed, it leaves the old file or the new one.
#[test]
fn a_killed_install_leaves_the_old_or_the_new_rules() {
    if !can_strace() {
        return;
    }
    let old = "# an administrator's\n";
    let whole = root_with(Some(old));
    let path = whole.path().to_str().unwrap();
    assert!(udev(&["install", "--force", "--root", path]).status.success());
    let new = fs::read(rules_of(whole.path())).unwrap();
    let calls =
        "openat,write,fsync,fchmod,rename,renameat,renameat2,link,linkat,unlink,flock,close";
    let mut seen = (0, 0);
    for nth in 1.. {
        let root = root_with(Some(old));
        let path = root.path().to_str().unwrap();
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("inject={calls}:signal=KILL:when={nth}"))
            .args([PROGRAM, "udev", "install", "--force", "--root", path])
            .output()
            .unwrap();
        let found = fs::read(rules_of(root.path())).unwrap();
        assert!(found == old.as_bytes() || found == new, "after {nth} calls: {found:?}");
        if found == new {
            seen.1 += 1;
        } else {
            seen.0 += 1;
        }
        // The next run succeeds, and the administrator's file is not lost.
        let again = udev(&["install", "--force", "--root", path]);
        assert!(again.status.success(), "after {nth} calls: {again:?}");
        let mut names: Vec<_> = everything(root.path())
            .iter()
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["60-egm.rules", "60-egm.rules.orig"], "after {nth} calls");
        assert_eq!(fs::read_to_string(backup_of(root.path())).unwrap(), old);
        if output.status.success() {
            break;
        }
        assert!(nth < 500, "it never succeeded");
    }
    assert!(seen.0 > 10 && seen.1 > 0, "it was killed before and after: {seen:?}");
}

/// The same without strace, at random times.
#[test]
fn an_install_killed_at_random_leaves_the_old_or_the_new_rules() {
    let root = root_with(None);
    let path = root.path().to_str().unwrap();
    let written = |group: &str| {
        assert!(udev(&["install", "--root", path, "--group", group]).status.success());
        fs::read(rules_of(root.path())).unwrap()
    };
    let disk = written("disk");
    let started = Instant::now();
    let kvm = written("kvm");
    let whole = started.elapsed();
    assert_ne!(disk, kvm);
    let mut seen = [0, 0];
    for round in 0..200 {
        let group = if round % 2 == 0 { "disk" } else { "kvm" };
        let mut child = Command::new(PROGRAM)
            .args(["udev", "install", "--root", path, "--group", group])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Up to twice the time of a whole one.
        thread::sleep(whole * round / 100);
        child.kill().unwrap();
        child.wait().unwrap();
        let found = fs::read(rules_of(root.path())).unwrap();
        let text = String::from_utf8_lossy(&found);
        assert!(found == kvm || found == disk, "round {round}: {text}");
        seen[usize::from(found == kvm)] += 1;
    }
    assert!(seen.iter().all(|seen| *seen > 5), "both were found: {seen:?}");
}

/// Only numbers from sysfs get into a path.
#[test]
fn links_contain_only_numbers() {
    let allowed = |link: &str| {
        let rest =
            link.strip_prefix("grace-egm/by-node/").or(link.strip_prefix("grace-egm/by-gpu/"));
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_hexdigit() || ":.".contains(c)))
    };
    let mut seen = 0;
    for machine in support::machines() {
        for region in ["egm0", "egm4", "egm5", "egm10"] {
            let output = Command::new(PROGRAM)
                .arg("--from")
                .arg(support::machine(&machine))
                .args(["udev", "links", region])
                .output()
                .unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(output.status.code(), Some(i32::from(printed.is_empty())), "{machine}");
            assert!(printed.lines().count() <= 1, "{machine}: {printed}");
            for link in printed.split_whitespace() {
                assert!(allowed(link), "{machine}: {link}");
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
    for name in ["egm", "egm4;reboot", "../egm4", "--help4", "egm4 x", "4"] {
        let output = udev(&["links", "--", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}

#[test]
fn special_and_large_files_are_refused_at_once() {
    let fifo: fn(&Path) = |path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let makers = [
        ("not a regular file", fifo),
        ("not a regular file", |path| fs::create_dir(path).unwrap()),
        ("larger than 1 MiB", |path| fs::write(path, vec![b'#'; (1 << 20) + 1]).unwrap()),
    ];
    for (word, make) in makers {
        let root = root_with(None);
        make(&rules_of(root.path()));
        for command in ["install", "uninstall"] {
            let args = ["10", PROGRAM, "udev", command, "--root", root.path().to_str().unwrap()];
            let output = Command::new("timeout").args(args).output().unwrap();
            assert_eq!(output.status.code(), Some(4), "{command}: {output:?}");
            assert!(stderr(&output).contains(word), "{command}: {output:?}");
        }
        let root = root_with(Some("# an administrator's\n"));
        make(&backup_of(root.path()));
        let root = root.path().to_str().unwrap();
        let args = ["10", PROGRAM, "udev", "install", "--force", "--root", root];
        let output = Command::new("timeout").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(stderr(&output).contains("60-egm.rules.orig: already exists"), "{output:?}");
    }
}

/// `--force` saves another's file once, unchanged, and overwrites no earlier copy.
#[test]
fn another_s_file_is_saved_and_an_earlier_copy_is_not_overwritten() {
    let root = root_with(Some("# A\n"));
    let path = root.path().to_str().unwrap();
    let (file, backup) = (rules_of(root.path()), backup_of(root.path()));
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        std::os::unix::fs::chown(&file, Some(1000), Some(1001)).unwrap();
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(udev(&["install", "--force", "--root", path]).status.success());
    let saved = fs::metadata(&backup).unwrap();
    assert_eq!(fs::read_to_string(&backup).unwrap(), "# A\n");
    assert_eq!(saved.permissions().mode() & 0o777, 0o600);
    assert!(!is_root || (saved.uid(), saved.gid()) == (1000, 1001));

    fs::write(&file, "# B\n").unwrap();
    let before = everything(root.path());
    for command in
        [&["install", "--force"][..], &["install", "--force", "--dry-run"], &["uninstall"]]
    {
        let output = udev(&[command, &["--root", path]].concat());
        assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
        assert_eq!(everything(root.path()), before, "{command:?}");
    }
    fs::remove_file(&file).unwrap();
    for command in ["install", "uninstall"] {
        let output = udev(&[command, "--root", path]);
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(everything(root.path()), [(backup, b"# A\n".to_vec())]);
}

/// The program recognises its own file by the first line.
#[test]
fn an_edited_own_file_is_shown_and_overwritten() {
    let root = root_with(None);
    let path = root.path().to_str().unwrap();
    let file = rules_of(root.path());
    assert!(udev(&["install", "--root", path]).status.success());
    let written = fs::read_to_string(&file).unwrap();
    let edited = written.replace("0660", "0600");
    fs::write(&file, &edited).unwrap();
    let output = udev(&["install", "--root", path, "--dry-run"]);
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("MODE=\"0600\"\n+") && shown.contains("MODE=\"0660\"\n"), "{shown}");
    assert!(udev(&["install", "--root", path]).status.success());
    assert_eq!(everything(root.path()), [(file.clone(), written.into_bytes())]);

    let (_marker, rest) = edited.split_once('\n').unwrap();
    fs::write(&file, rest).unwrap();
    for command in ["install", "uninstall"] {
        assert_eq!(udev(&[command, "--root", path]).status.code(), Some(1), "{command}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), rest);
}

#[test]
fn a_dry_run_shows_the_difference_and_changes_nothing() {
    let root = root_with(Some("# an administrator's\n"));
    let path = root.path().to_str().unwrap();
    let before = everything(root.path());
    let output = udev(&["install", "--force", "--root", path, "--dry-run"]);
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("-# an administrator's\n+# Written by"), "{shown}");
    assert!(stderr(&output).contains("60-egm.rules.orig: copy of the replaced file"), "{output:?}");
    let output = udev(&["install", "--force", "--root", path, "--dry-run", "--json"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&document["dry_run"], &document["changed"]), (&true.into(), &true.into()));
    assert!(document["backup"].as_str().unwrap().ends_with("60-egm.rules.orig"));
    assert_eq!(everything(root.path()), before);
    assert!(udev(&["install", "--force", "--root", path]).status.success());
    let output = udev(&["install", "--root", path, "--dry-run"]);
    assert!(
        output.stdout.is_empty() && stderr(&output).contains("nothing would change"),
        "{output:?}"
    );
}

/// Concurrent processes wait for each other, but not forever.
#[test]
fn only_one_process_at_a_time_changes_the_rules() {
    let root = root_with(None);
    let directory = fs::File::open(root.path().join("etc/udev/rules.d")).unwrap();
    let lock = Flock::lock(directory, FlockArg::LockExclusive).unwrap();
    let mut waiting = Command::new(PROGRAM)
        .args(["udev", "install", "--root", root.path().to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    thread::sleep(Duration::from_millis(500));
    assert!(everything(root.path()).is_empty(), "written past the lock");
    assert!(waiting.try_wait().unwrap().is_none(), "it does not wait");
    drop(lock);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(everything(root.path()).len(), 1);
}

/// A program that udev runs as root must not be writable by other users.
#[test]
fn rules_run_only_a_program_that_only_root_can_change() {
    let probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"];
    if !can("a mount namespace", &probe) {
        return;
    }
    let script = format!(
        "set -e; mount --make-rprivate /; mkdir -p /etc/udev; mount -t tmpfs -o mode=0755 tmpfs /etc/udev
        mount -t tmpfs tmpfs /usr/lib/udev; mount -t tmpfs -o mode=0755 tmpfs /mnt
        mkdir -m 0755 /mnt/root; mkdir -m 0777 /mnt/all
        for place in root all; do
            cp {PROGRAM} /mnt/$place/egm-probe
            /mnt/$place/egm-probe udev install --no-reload --group root 2>&1
            grep -o 'PROGRAM==\"[^ ]*' {RULES}
        done"
    );
    let output = Command::new("unshare").args(["-m", "sh", "-c", &script]).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{printed} {output:?}");
    let programs: Vec<_> = printed.lines().filter(|line| line.starts_with("PROGRAM")).collect();
    assert_eq!(programs, ["PROGRAM==\"/mnt/root/egm-probe", "PROGRAM==\"egm-probe"], "{printed}");
    assert!(printed.contains("its path is writable by non-root users"), "{printed}");
}

#[test]
fn other_files_in_the_directory_are_kept() {
    let root = root_with(None);
    let path = root.path().to_str().unwrap();
    for name in [".60-egm.rules.swp", ".60-egm.rules.x", "60-egm.rules.orig"] {
        fs::write(rules_of(root.path()).with_file_name(name), "precious").unwrap();
    }
    let before = everything(root.path());
    for command in ["uninstall", "install", "uninstall"] {
        assert!(udev(&[command, "--root", path]).status.success(), "{command}");
    }
    assert_eq!(everything(root.path()), before);
}
