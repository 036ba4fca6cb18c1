//! `stanza --in-place`: no change of a file is lost, and none is made in part.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::Duration;

use egm_probe::domain::Domain;

use crate::stanza::{fixture, stanza, text};

/// Two small domains are enough: a run then takes a few milliseconds.
const PAIRS: usize = 100;
const KILLED: u64 = 200;

/// Starts a run that adds the GPUs of a region to a domain.
fn add(region: &str, file: &Path) -> Child {
    let with = ["--region", region, "--with", "hostdev,numa,machine", "--in-place", "--domain"];
    let mut command = stanza("gb200-full-gpu-list", &with);
    command.arg(file).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn succeed(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn concurrent_runs_keep_the_changes_of_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.xml");
    for pair in 0..PAIRS {
        fs::write(&file, fixture("domains/minimal.xml")).unwrap();
        let both = [add("egm4", &file), add("egm5", &file)];
        both.into_iter().for_each(succeed);
        let domain = Domain::parse(&fs::read_to_string(&file).unwrap()).unwrap();
        let paths = domain.egm.iter().map(|device| device.path.as_ref().unwrap().text.as_str());
        let mut paths: Vec<_> = paths.collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/dev/egm4", "/dev/egm4", "/dev/egm5", "/dev/egm5"], "pair {pair}");
    }
}

#[test]
fn a_killed_run_leaves_the_old_or_the_new_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.xml");
    let old = fixture("domains/minimal.xml");
    fs::write(&file, &old).unwrap();
    succeed(add("egm4", &file));
    let new = fs::read_to_string(&file).unwrap();
    let started = std::time::Instant::now();
    fs::write(&file, &old).unwrap();
    succeed(add("egm4", &file));
    let whole = u64::try_from(started.elapsed().as_micros()).unwrap();
    // Pseudo-random, so that runs are reproducible.
    let mut seed: u64 = 1;
    let mut written = 0;
    for run in 0..KILLED {
        fs::write(&file, &old).unwrap();
        let mut child = add("egm4", &file);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        sleep(Duration::from_micros((seed >> 33) % whole));
        child.kill().unwrap();
        child.wait().unwrap();
        let found = fs::read_to_string(&file).unwrap();
        assert!(found == old || found == new, "run {run}: {found}");
        written += usize::from(found == new);
    }
    println!("{written} of {KILLED} files were written before the signal");
    // As a run leaves it that is killed between writing and renaming.
    fs::write(directory.path().join(".egm-probe-edit-123456"), "<dom").unwrap();
    let other = directory.path().join(".egm-probe-123456");
    fs::write(&other, "of another command, which may be running").unwrap();
    succeed(add("egm4", &file));
    let mut left = names(directory.path());
    left.sort_unstable();
    assert_eq!(left, [".egm-probe-123456", "vm.xml"], "only what is its own is removed");
}

#[test]
fn a_file_with_a_second_hard_link_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let [file, second] = ["vm.xml", "second.xml"].map(|name| directory.path().join(name));
    fs::write(&file, fixture("domains/minimal.xml")).unwrap();
    fs::hard_link(&file, &second).unwrap();
    let output = add("egm4", &file).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("has 2 hard links, and the others would keep"), "{stderr}");
    assert_eq!(fs::read(&file).unwrap(), fs::read(&second).unwrap());
    fs::remove_file(second).unwrap();
    succeed(add("egm4", &file));
}

#[test]
fn a_locked_directory_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vm.xml");
    let old = fixture("domains/minimal.xml");
    fs::write(&file, &old).unwrap();
    let lock = File::open(directory.path()).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let mut child = add("egm4", &file);
    sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    assert_eq!(fs::read_to_string(&file).unwrap(), old);
    drop(lock);
    succeed(child);
}

#[test]
fn a_definition_that_libvirt_has_read_must_be_defined_again() {
    let directory = tempfile::tempdir().unwrap();
    for (of_libvirt, is_warned) in
        [("etc/libvirt/qemu", true), (".config/libvirt/qemu", true), ("etc/libvirt", false)]
    {
        let of_libvirt = directory.path().join(of_libvirt);
        fs::create_dir_all(&of_libvirt).unwrap();
        let (file, link) = (of_libvirt.join("vm.xml"), directory.path().join("link"));
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&file, &link).unwrap();
        fs::write(&file, fixture("domains/minimal.xml")).unwrap();
        for is_changed in [true, false] {
            let output = add("egm4", &link).wait_with_output().unwrap();
            let warning = format!("run `virsh define {}`\n", file.display());
            let stderr = text(&output.stderr);
            assert_eq!(stderr.contains(&warning), is_warned && is_changed, "{stderr}");
        }
    }
}
