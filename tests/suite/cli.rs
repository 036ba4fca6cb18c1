//! Terminals, closed pipes, full disks, usage errors.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Output, Stdio};

use crate::stanza::text;
use crate::support;

const PROGRAM: &str = env!("CARGO_BIN_EXE_egm-probe");

fn gb200(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--from").arg(support::machine("gb200-full-gpu-list")).args(args);
    command
}

#[test]
fn a_closed_pipe_ends_the_program_quietly() {
    let stanza = ["stanza", "--all"];
    for args in
        [&["list"][..], &["list", "--json"], &["show"], &stanza, &["list", "-H"], &["--help"]]
    {
        let mut child = gb200(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((stderr.as_str(), child.wait().unwrap().code()), ("", Some(0)), "{args:?}");
    }
}

/// The answer of these is their exit status: 128 and SIGPIPE, as shells have it, if it is not known.
#[test]
fn a_check_with_a_closed_pipe_does_not_succeed() {
    let domain = support::fixtures().join("domains/good/gb200-full-gpu-list/tray.xml");
    for (host, args, expected) in [
        ("gb200-full-gpu-list", &["validate", domain.to_str().unwrap()][..], 141),
        ("gb200-full-gpu-list", &["udev", "status"], 141),
        ("doctor/D11", &["doctor"], 1),
    ] {
        let mut command = Command::new(PROGRAM);
        command.arg("--from").arg(support::machine(host)).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{args:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    for args in
        [&["list"][..], &["list", "--json"], &["show"], &["stanza", "--all"], &["list", "-H"]]
    {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = gb200(args).stdout(full).output().unwrap();
        assert_eq!(
            text(&output.stderr),
            "egm-probe: cannot write the output: No space left on device\n",
            "{args:?}"
        );
        assert_eq!(output.status.code(), Some(4), "{args:?}");
    }
}

#[test]
fn output_to_a_closed_or_read_only_descriptor_is_an_error() {
    let run = |redirection: &str, args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$@\" {redirection}"), "sh", PROGRAM]);
        command.arg("--from").arg(support::machine("gb200-full-gpu-list")).args(args);
        let output = command.output().unwrap();
        (text(&output.stderr), output.status.code())
    };
    let error = "egm-probe: cannot write the output: Bad file descriptor\n";
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["stanza", "--region", "egm4"],
        &["--version"],
        &["--help"],
    ] {
        for redirection in [">&-", ">&- <&-", "1</dev/null"] {
            assert_eq!(run(redirection, args), (error.into(), Some(4)), "{args:?} {redirection}");
        }
    }
    for args in [&["list"][..], &["stanza", "--region", "egm4"], &["--version"], &["--help"]] {
        for redirection in [">/dev/null", "1<>/dev/null", ">>/dev/null"] {
            assert_eq!(run(redirection, args), (String::new(), Some(0)), "{args:?} {redirection}");
        }
    }
    // Nothing is written.
    assert_eq!(run(">&-", &["watch", "--until", "free", "egm4"]), (String::new(), Some(0)));
}

/// Runs the program on a terminal of so many columns; `None` if there is no terminal to be had.
fn on_terminal(columns: u16, args: &str, environment: &[(&str, &str)]) -> Option<String> {
    if !support::has(&["script", "stty"]) {
        return None;
    }
    let script = format!("stty rows 24 cols {columns}; exec {PROGRAM} {args}");
    let output: Output = Command::new("script")
        .args(["-qec", &script, "/dev/null"])
        .env_remove("NO_COLOR")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(text(&output.stdout).replace("\r\n", "\n"))
}

fn terminal(columns: u16, args: &str, environment: &[(&str, &str)]) -> Option<String> {
    let archive = support::machine("gb200-full-gpu-list");
    on_terminal(columns, &format!("--from {} {args}", archive.display()), environment)
}

#[test]
fn a_table_fits_the_terminal_without_truncating_values() {
    for columns in [200, 80, 70, 62] {
        let Some(shown) = terminal(columns, "list --color never", &[]) else { return };
        let widest = shown.lines().map(str::len).max().unwrap();
        assert!(widest <= usize::from(columns), "{widest} of {columns}:\n{shown}");
    }
    let narrow = "\
DEVICE  NODE     SIZE     FREE  STATE  GPUS           OWNER
egm4       0  447 GiB  447 GiB  free   0008:01:00.0,  root:kvm
                                       0009:01:00.0
egm5       1  447 GiB  447 GiB  free   0018:01:00.0,  root:kvm
                                       0019:01:00.0
";
    for columns in [62, 40, 1] {
        assert_eq!(terminal(columns, "list --color never", &[]).unwrap(), narrow, "{columns}");
    }
}

#[test]
fn colours_are_used_only_on_terminals_that_support_them() {
    let Some(shown) = terminal(120, "list", &[]) else { return };
    assert!(shown.contains("\x1b[1mDEVICE"), "{shown:?}");
    let plain = |shown: String| !shown.contains('\x1b');
    assert!(plain(terminal(120, "list", &[("NO_COLOR", "1")]).unwrap()));
    assert!(plain(terminal(120, "list --color never", &[]).unwrap()));
    assert!(plain(terminal(120, "list --color never --help", &[]).unwrap()));
    assert!(!plain(terminal(120, "--color=always list -h", &[("NO_COLOR", "1")]).unwrap()));
    assert!(!plain(terminal(120, "list --color=always", &[("NO_COLOR", "1")]).unwrap()));
    assert!(!plain(terminal(120, "list", &[("NO_COLOR", "")]).unwrap()));
    let piped = gb200(&["list"]).output().unwrap();
    assert!(plain(text(&piped.stdout)));
    let piped = gb200(&["list", "--color", "always"]).output().unwrap();
    assert!(!plain(text(&piped.stdout)));
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    let archive = support::machine("gb200-full-gpu-list");
    let archive = archive.to_str().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let before = run(&["--from", archive, "--color", "never", "list"]);
    assert_eq!(before, run(&["list", "--from", archive, "--color", "never"]));
    assert_eq!(before, run(&["ls", &format!("--from={archive}")]));
}

#[test]
fn usage_errors_go_to_stderr_with_their_own_exit_code() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["list", "--frobnicate"],
        &["list", "-o", ""],
        &["list", "-o", "DEVICE,,SIZE"],
        &["list", "-o", "+"],
        &["list", "-O", "-o", "SIZE"],
        &["list", "--sysroot", "/", "--from", "x"],
        &["--sysroot", "/", "list", "--from", "x"],
        &["--from", "x", "list", "--sysroot", "/"],
        &["stanza", "--remove", "--all", "--domain", "-", "--in-place"],
        &["stanza", "--remove", "--all", "--domain", "-", "--from", "-"],
        &["show", "egm٤"],
        &["show", "--gpu", "\x1b[31m"],
    ] {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert!(!output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    for args in [&["--help"][..], &["-h"], &["help"], &["list", "--help"], &["--version"]] {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty() && !output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn arguments_that_are_not_text_are_refused() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let junk = OsStr::from_bytes(b"\xff\xfe");
    for args in [vec![junk], vec!["list".as_ref(), junk], vec!["show".as_ref(), junk]] {
        let output = Command::new(PROGRAM).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
    }
    // A path may have any bytes.
    let output =
        Command::new(PROGRAM).args(["list".as_ref(), "--from".as_ref(), junk]).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}
