//! The scripts in `examples`, run against recorded hosts.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::libvirt::{minimal, validates};
use crate::support::xmllint::can_run;
use crate::support::{self, stderr};

pub(crate) fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// A directory to be first in PATH: egm-probe on a recorded host, and a virsh that saves the
/// definitions that it is given.
pub(crate) struct Bin(tempfile::TempDir);

impl Bin {
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn of(machine: &str) -> Self {
        let bin = Self::empty();
        bin.script(
            "egm-probe",
            &format!(
                "exec '{}' --from '{}' \"$@\"",
                env!("CARGO_BIN_EXE_egm-probe"),
                support::machine(machine).display()
            ),
        );
        bin.script("virsh", "[ \"$1\" = define ] && cp \"$2\" \"$(dirname \"$0\")/defined.xml\"");
        bin
    }

    pub(crate) fn script(&self, name: &str, body: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn defined(&self) -> PathBuf {
        self.0.path().join("defined.xml")
    }

    pub(crate) fn run(&self, program: impl Into<OsString>, args: &[&str]) -> Output {
        self.command(program, args).output().unwrap()
    }

    pub(crate) fn command(&self, program: impl Into<OsString>, args: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(program.into());
        command
            .args(args)
            .env("PATH", format!("{}:{path}", self.0.path().display()))
            .env("HOME", self.0.path())
            .env("LC_ALL", "C.UTF-8");
        command
    }
}

#[test]
fn a_tray_is_defined_by_the_shell_script() {
    if !support::has(&["jq"]) || !can_run(&["xmllint"]) {
        return;
    }
    let bin = Bin::of("gb200-full-gpu-list");
    let script = examples().join("define-tray.sh");
    let output = bin.run(&script, &[&minimal(), "--vcpus", "120"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "0008:01:00.0  228864 MiB of egm4, guest node 0\n\
         0009:01:00.0  228864 MiB of egm4, guest node 0\n\
         0018:01:00.0  228864 MiB of egm5, guest node 1\n\
         0019:01:00.0  228864 MiB of egm5, guest node 1\n\
         915456 MiB in all, 120 virtual CPUs\n"
    );
    assert!(validates(&bin.defined()));

    let bin = Bin::of("claims-vm");
    let other = bin.0.path().join("vm2.xml");
    fs::write(&other, fs::read_to_string(minimal()).unwrap().replace("vm1", "vm2")).unwrap();
    let output = bin.run(&script, &[other.to_str().unwrap()]);
    assert!(!output.status.success() && stderr(&output).contains("egm4 is in use by vm1[4242]"));
    assert!(!bin.defined().exists(), "nothing is defined where a region is in use");
}

#[test]
fn a_definition_is_written_by_the_ansible_tasks() {
    if !support::has(&["ansible-playbook"]) || !can_run(&["xmllint"]) {
        return;
    }
    let bin = Bin::of("gb200-full-gpu-list");
    let definition = bin.0.path().join("vm1.xml");
    let tasks = format!(
        "{{ include_tasks: {}, vars: {{ egm_base: {}, egm_definition: {}, egm_gpus: GPUS, \
         egm_options: ['--vcpus', '72'] }} }}",
        examples().join("ansible/egm-vm.yml").display(),
        minimal(),
        definition.display()
    );
    let one = tasks.replace("GPUS", "['0009:01:00.0']");
    let tray = "['0008:01:00.0', '0009:01:00.0', '0018:01:00.0', '0019:01:00.0']";
    let tray = tasks.replace("GPUS", tray);
    // A refused run writes nothing, and a second run changes nothing.
    let text = format!(
        "- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - block: [{one}]
      rescue: [{{ stat: {{ path: {definition} }}, register: refused }}]
    - {{ assert: {{ that: not refused.stat.exists }} }}
    - {tray}
    - {{ debug: {{ msg: written }} }}
    - {tray}
",
        definition = definition.display()
    );
    let playbook = bin.0.path().join("play.yml");
    fs::write(&playbook, text).unwrap();
    let output = bin.run("ansible-playbook", &["-i", "localhost,", playbook.to_str().unwrap()]);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{stdout}{}", stderr(&output));
    assert!(
        stdout.contains("GPU 0008:01:00.0 of egm4 is not selected"),
        "one GPU of two: {stdout}"
    );
    assert!(stdout.contains("changed=1 ") && stdout.contains("rescued=1 "), "{stdout}");
    let (first, second) = stdout.split_once("\"msg\": \"written\"").unwrap();
    assert!(first.contains("changed: [localhost]"), "{stdout}");
    assert!(!second.contains("changed: [localhost]"), "{stdout}");
    assert!(validates(&definition));
    let checked = bin.run("egm-probe", &["validate", "--strict", definition.to_str().unwrap()]);
    assert!(checked.status.success(), "{checked:?}");
}
