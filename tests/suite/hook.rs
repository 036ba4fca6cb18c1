//! `examples/libvirt-hook`, called as libvirt calls it, against recorded hosts.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::examples::{Bin, examples};
use crate::live::extract;
use crate::support::{self, stderr};

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

/// A complete guest with all regions of a GB200, as libvirt passes it to the hook.
fn domain(name: &str) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    support::domains::grace().replace("<name>grace</name>", &format!("<name>{name}</name>"))
}

/// The hook with an egm-probe in PATH that runs these commands, and a logger. Both record their calls.
struct Hook(Bin);

impl Hook {
    fn new(commands: &str) -> Self {
        let bin = Bin::empty();
        let record = "printf '%s\\n' \"$*\" >>\"$(dirname \"$0\")";
        bin.script("egm-probe", &format!("{record}/calls\"\n{commands}"));
        bin.script("logger", &format!("{record}/log\""));
        Self(bin)
    }

    /// On a recorded host, where nothing can be reserved.
    fn on(machine: &str) -> Self {
        let machine = support::machine(machine);
        let program = format!("exec '{PROGRAM}' --from '{}' \"$@\"", machine.display());
        Self::new(&format!("case $1 in reserve) exit 0 ;; esac\n{program}"))
    }

    /// On a host in a directory.
    fn at(host: &Path) -> Self {
        Self::new(&format!("exec '{PROGRAM}' --sysroot '{}' \"$@\"", host.display()))
    }

    fn call(&self, args: &[&str], xml: &str) -> Output {
        let mut command = self.0.command(examples().join("libvirt-hook"), args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A hook that has nothing to do does not read it, which libvirt ignores.
        let _ = child.stdin.take().unwrap().write_all(xml.as_bytes());
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.is_empty(), "libvirt may take it for a domain: {output:?}");
        output
    }

    fn prepare(&self, name: &str) -> Output {
        self.call(&[name, "prepare", "begin", "-"], &domain(name))
    }

    fn recorded(&self, file: &str) -> String {
        fs::read_to_string(self.0.path().join(file)).unwrap_or_default()
    }
}

/// The standard error and the exit status.
fn answer(output: &Output) -> (String, i32) {
    (stderr(output), output.status.code().unwrap())
}

const NAMES: [&str; 4] = ["vm1", "my vm", "it's \"$(exit 3)\" `x` \\n & <vm>", "-x; exit 3"];

#[test]
fn a_domain_with_available_regions_starts() {
    for name in NAMES {
        let hook = Hook::on("gb200-full-gpu-list");
        assert_eq!(answer(&hook.prepare(name)), (String::new(), 0), "{name}");
        let calls = hook.recorded("calls");
        let reserve = format!("\nreserve --for={name} --ttl 30m /dev/egm4 /dev/egm5\n");
        assert!(calls.starts_with("validate --start ") && calls.ends_with(&reserve), "{calls}");
    }
    // libvirt wrote the XML, so it is spelled right.
    for (dialect, xml) in support::domains::spellings() {
        let args = ["grace", "prepare", "begin", "-"];
        let output = Hook::on("gb200-full-gpu-list").call(&args, &xml);
        assert_eq!(answer(&output), (String::new(), 0), "{dialect}");
    }
    // The domain's own process and reservation are not in its way; other definitions only warn.
    for machine in ["claims-vm", "leases", "claims-defined"] {
        assert_eq!(answer(&Hook::on(machine).prepare("vm1")), (String::new(), 0), "{machine}");
    }
}

#[test]
fn a_domain_whose_region_is_not_available_is_refused_with_the_reason() {
    let repair = "reservations are unknown until the file is repaired or removed\n";
    for (machine, reason) in [
        ("claims-vm", "error[EGM108]: egm4 is in use by vm1[4242]\n"),
        (
            "leases",
            "error[EGM114]: egm4 is reserved for vm1 until 9999-12-31T23:59:59Z\n  \
             help: `egm-probe release` ends a reservation\n\
             error[EGM114]: egm5 is reserved for vm1 until 9999-12-31T23:59:59Z\n  \
             help: `egm-probe release` ends a reservation\n",
        ),
        (
            "node-missing",
            "error[EGM112]: /dev/egm5: device node missing; udevd or devtmpfs should have created it\n  \
             help: run `egm-probe doctor`\n",
        ),
        ("leases-broken", repair),
    ] {
        let hook = Hook::on(machine);
        let (error, code) = answer(&hook.prepare("vm2"));
        let is_it = if reason == repair { error.contains(reason) } else { error == reason };
        assert!(is_it && code == 1, "{machine}: {code}: {error}");
        assert_eq!(hook.recorded("log"), "", "libvirt logs the reason");
    }
}

#[test]
fn of_two_domains_that_start_at_once_one_gets_a_region() {
    let host = extract("gb200-full-gpu-list");
    let hook = Hook::at(host.path());
    assert_eq!(answer(&hook.prepare("vm1")), (String::new(), 0));
    let (error, code) = answer(&hook.prepare("vm2"));
    assert!(error.contains("error[EGM114]: egm4 is reserved for vm1") && code == 1, "{error}");
    // Both had been checked before one of them reserved it.
    let checked = "case $1 in validate) exit 0 ;; esac";
    let late = Hook::new(&format!(
        "{checked}\nexec '{PROGRAM}' --sysroot '{}' \"$@\"",
        host.path().display()
    ));
    let (error, code) = answer(&late.prepare("vm2"));
    assert!(error.contains("egm4 is reserved for vm1 until ") && code == 1, "{error}");
    hook.call(&["vm1", "release", "end", "-"], &domain("vm1"));
    assert_eq!(answer(&hook.prepare("vm2")), (String::new(), 0));
}

#[test]
fn a_domain_waits_while_a_region_is_being_opened() {
    let opening = support::machine("claims-opening");
    let free = support::machine("gb200-full-gpu-list");
    let commands = |times: u32| {
        let count = "$(wc -l <\"$(dirname \"$0\")/calls\")";
        format!(
            "case $1 in reserve) exit 0 ;; esac\n[ \"{count}\" -gt {times} ] || exec '{PROGRAM}' --from '{}' \"$@\"\n\
             exec '{PROGRAM}' --from '{}' \"$@\"",
            opening.display(),
            free.display()
        )
    };
    let hook = Hook::new(&commands(3));
    hook.0.script("sleep", "");
    assert_eq!(answer(&hook.prepare("vm1")), (String::new(), 0));
    assert_eq!(hook.recorded("calls").matches("validate").count(), 4);
    let hook = Hook::new(&commands(1000));
    hook.0.script("sleep", "");
    let (error, code) = answer(&hook.prepare("vm1"));
    assert!(error.starts_with("error[EGM115]: ") && code == 1, "{error}");
    assert_eq!(hook.recorded("calls").lines().count(), 151);
}

#[test]
fn the_hook_has_nothing_to_do_with_other_operations_and_domains() {
    let hook = Hook::on("claims-vm");
    for operation in [
        "prepare end",
        "start begin",
        "started begin",
        "stopped end",
        "reconnect begin",
        "migrate begin",
        "restore begin",
        "attach begin",
        "release begin",
        "",
    ] {
        let args: Vec<_> = ["vm2"].into_iter().chain(operation.split(' ')).chain(["-"]).collect();
        assert_eq!(answer(&hook.call(&args, &domain("vm2"))), (String::new(), 0), "{operation}");
    }
    assert_eq!(answer(&hook.call(&[], "")), (String::new(), 0));
    let other = "<domain><name>vm2</name><title>model=&apos;egm&apos;</title></domain>";
    for operation in [["vm2", "prepare", "begin", "-"], ["vm2", "release", "end", "-"]] {
        assert_eq!(answer(&hook.call(&operation, other)), (String::new(), 0));
    }
    assert_eq!(hook.recorded("calls"), "", "egm-probe was run");
}

#[test]
fn a_domain_that_stops_gives_its_reservation_back() {
    let host = extract("gb200-full-gpu-list");
    let leases = || fs::read_to_string(host.path().join("run/egm-probe/leases.json")).unwrap();
    let hook = Hook::at(host.path());
    let release = |name: &str| hook.call(&[name, "release", "end", "-"], &domain(name));
    for name in NAMES {
        let of_name = format!("--for={name}");
        for (region, owner) in [("egm4", of_name.as_str()), ("egm5", "--for=vm9")] {
            let output = hook.0.command("egm-probe", &["reserve", region, owner]).output().unwrap();
            assert!(output.status.success(), "{}", stderr(&output));
        }
        assert!(leases().contains("egm4"), "{name}");
        assert_eq!(answer(&release(name)), (String::new(), 0), "{name}");
        assert!(!leases().contains("egm4") && leases().contains("egm5"), "{name}: {}", leases());
        // Nothing is reserved any more.
        assert_eq!(answer(&release(name)), (String::new(), 0), "{name}");
    }
    fs::write(host.path().join("run/egm-probe/leases.json"), "damaged").unwrap();
    let (error, code) = answer(&release("vm1"));
    assert!(
        error.starts_with("egm-probe: vm1: reservation not released: ") && code == 0,
        "{error}"
    );
    assert!(hook.recorded("log").contains("vm1: reservation not released: "), "{error}");
}

#[test]
fn a_domain_starts_if_egm_probe_fails() {
    for (commands, reason) in [
        ("echo no such option >&2; exit 2", "(exit status 2): no such option\n"),
        ("exit 4", "(exit status 4): \n"),
        ("kill -9 $$", "(exit status 137): \n"),
        ("exec /no/such/program", "(exit status 127): "),
    ] {
        let hook = Hook::new(commands);
        let (error, code) = answer(&hook.prepare("my vm"));
        let start = "egm-probe: my vm: starts without a check of its EGM regions ";
        assert!(error.contains(&format!("{start}{reason}")) && code == 0, "{commands}: {error}");
        assert!(hook.recorded("log").contains("my vm: starts without a check"), "{commands}");
    }
    let hook = Hook::new("");
    fs::remove_file(hook.0.path().join("egm-probe")).unwrap();
    let (error, code) = answer(&hook.call(&["vm1", "prepare", "begin", "-"], &domain("vm1")));
    assert!(error.contains("(exit status 127)") && code == 0, "{error}");
    // Not well-formed: libvirt decides.
    let hook = Hook::on("claims-vm");
    let (error, code) = answer(&hook.call(&["vm1", "prepare", "begin", "-"], "model='egm'"));
    assert!(error.contains("(exit status 4)") && code == 0, "{error}");
}
