//! Every system call of every command fails once, in each of several ways: the program must exit with
//! a code and a message, leave no partial file, and report nothing as free because of the fault.
//!
//! By default a few runs, spread evenly over all of them;
//! `EGM_PROBE_FAULTS` asks for another number, for those of one call by its name, or for `all`, which is
//! what `tests/faults` does.
//!
//! The calls of the loader and of the runtime before `main` are skipped: counting starts after the
//! runtime has set up its last signal handler.

mod commands;
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::holders::{Holder, Host};
use crate::live::{can, can_strace};
use commands::{CASES, Case};
use stage::{Run, Stage};

const ERRORS: [&str; 5] =
    ["error=EIO", "error=ENOMEM", "error=EACCES", "error=EINTR", "error=ENOENT"];

/// How many runs are made where nothing is said.
const SHORT: usize = 150;

/// A fault: the n-th call of a name.
struct Fault {
    case: &'static Case,
    call: String,
    nth: usize,
    error: &'static str,
}

/// The calls of a command: name, and number of previous calls of that name.
fn calls(stage: &Stage, case: &Case) -> Vec<(String, usize)> {
    stage.reset(case.files);
    let run = stage.run(&[], case.args);
    assert!(matches!(run.code, Some(0 | 1)), "{:?}: {}", case.args, run.stderr);
    let sound = sound(case, stage, &run);
    assert_eq!(sound, Ok(()), "{:?} without any fault", case.args);
    let log = stage.log();
    let mut is_main = false;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut calls = Vec::new();
    // Only the calls of the program itself, not of its children.
    let program = log.split_whitespace().next().unwrap_or_default().to_owned();
    for line in log.lines() {
        let Some((pid, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        let Some((name, _)) = rest.split_once('(') else { continue };
        if pid != program || name.starts_with('<') || name.starts_with('-') || name.starts_with('+')
        {
            continue;
        }
        let count = counts.entry(name).or_default();
        *count += 1;
        // The standard library panics if one of these fails. Linux never reports an error for its uses
        // of them: closing directories, waiting (on a busy machine also by restart_syscall), seeding hash
        // tables.
        let is_fatal =
            ["exit_group", "futex", "close", "getrandom", "clock_nanosleep", "restart_syscall"]
                .contains(&name);
        if is_main && !is_fatal {
            calls.push((name.to_owned(), *count));
        }
        is_main |= rest.starts_with("rt_sigaction(SIGBUS, {sa_handler=0x");
    }
    assert!(calls.len() > 10, "{:?} makes no calls: {log}", case.args);
    calls
}

/// The conditions for every run.
fn sound(case: &Case, stage: &Stage, run: &Run) -> Result<(), String> {
    match run.code {
        Some(0..=4) => {}
        Some(124 | 137) => return Err("it never ends".into()),
        code => return Err(format!("ends with {code:?}: {}", run.stderr)),
    }
    if run.stderr.contains("panicked") {
        return Err(run.stderr.clone());
    }
    commands::is_right(case, run)?;
    (case.judge)(stage, run)
}

/// Does one run; returns the violated condition, and whether the fault occurred.
fn with_fault(stage: &Stage, fault: &Fault) -> (Result<(), String>, bool) {
    let Fault { case, call, nth, error } = fault;
    stage.reset(case.files);
    let inject = format!("inject={call}:{error}:when={nth}");
    let trace = format!("trace={call}");
    let run = stage.run(&["--seccomp-bpf", "-e", &trace, "-e", &inject], case.args);
    let came = stage.log().contains("(INJECTED)");
    (sound(case, stage, &run), came)
}

/// A host, and a process that holds its egm4; `None` if they are not possible here.
fn held() -> Option<(Host, Holder)> {
    if !can("nsenter", &["nsenter", "--version"]) || !can_strace() {
        return None;
    }
    let host = Host::new()?;
    let mut holder = Holder::start();
    holder.tell(&format!("open {}", host.node("egm4")));
    holder.tell("map 0 1048576");
    // Mapped and closed, so that the mapping is the only evidence.
    holder.tell("close");
    Some((host, holder))
}

/// Past findings: the command, the state of egm5, and the fault for calls with the path of one file
/// (`WORK` is the user's directory), or for all calls since the start of `MAIN`.
const FOUND: &[(&str, &str, &str, &str)] = &[
    // The standard library panics if it cannot start a thread or wait.
    ("doctor", "free", "", "clone,clone3:error=EAGAIN"),
    ("watch --initial --timeout 50ms", "free", "", "clone,clone3:error=EAGAIN"),
    // A lease that was missing for a moment was ignored, and even removed.
    ("list --json", "reserved", "/run/egm-probe/leases.json", "openat:error=ENOENT:when=1"),
    (
        "list --json",
        "reserved",
        "/run/egm-probe/leases.json",
        "newfstatat,statx:error=ENOENT:when=1",
    ),
    (
        "release --all --for other",
        "reserved",
        "/run/egm-probe/leases.json",
        "openat:error=ENOENT:when=1",
    ),
    // A failed release was reported as done.
    ("release egm5 --for vm1", "reserved", "", "rename,renameat,renameat2:error=ENOENT"),
    // An unreadable definition was reported, but the region was free.
    ("list --json", "defined", "/etc/libvirt/qemu/vm2.xml", "newfstatat,statx:error=EINTR"),
    ("list --json", "defined", "/etc/libvirt/qemu/vm2.xml", "openat:error=EIO"),
    ("list --json", "defined", "/etc/libvirt/qemu/vm2.xml", "openat:error=ENOENT:when=1"),
    ("list --json", "defined", "/etc/libvirt/qemu", "openat:error=EACCES"),
    // Rules that were missing for a moment were overwritten.
    (
        "udev install --root root --force",
        "free",
        "WORK/root/etc/udev/rules.d/60-egm.rules",
        "openat:error=ENOENT",
    ),
];

#[test]
fn past_findings_are_fixed() {
    let Some((_host, holder)) = held() else { return };
    let Some(stage) = Stage::new(holder.pid()) else { return };
    for (args, egm5, path, inject) in FOUND {
        let is_it = |case: &&Case| case.args.join(" ") == *args && case.egm5 == *egm5;
        let case = CASES.iter().find(is_it).expect("no such case");
        let call = inject.split([',', ':']).next().unwrap();
        let of_main = calls(&stage, case).into_iter().find(|(name, _)| name == call);
        let first = of_main.map_or(1, |(_, nth)| nth);
        stage.reset(case.files);
        let path = path.replace("WORK", stage.work().to_str().unwrap());
        let inject = format!("inject={}", inject.replace("MAIN", &first.to_string()));
        let mut options = vec!["-e", &inject];
        if !path.is_empty() {
            options.extend(["-P", &path]);
        }
        let run = stage.run(&options, case.args);
        assert!(stage.log().contains("(INJECTED)"), "{args}, {inject} of {path}: nothing fails");
        assert_eq!(sound(case, &stage, &run), Ok(()), "{args}, {inject} of {path}");
    }
}

#[test]
fn any_failing_call_gives_a_correct_answer_or_none() {
    let Some((_host, holder)) = held() else { return };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let stages: Option<Vec<_>> = (0..workers).map(|_| Stage::new(holder.pid())).collect();
    let Some(stages) = stages else { return };

    let (mut faults, mut count) = (Vec::new(), 0);
    for case in CASES {
        for (call, nth) in calls(&stages[0], case) {
            count += 1;
            // brk fails differently: it returns an end other than the requested one.
            let errors = if call == "brk" { &["retval=0"][..] } else { &ERRORS };
            for error in errors {
                // The C library treats this as the end of a directory: the kernel reports it for removed ones.
                if call == "getdents64" && *error == "error=ENOENT" {
                    continue;
                }
                faults.push(Fault { case, call: call.clone(), nth, error });
            }
        }
    }
    let wanted = env::var("EGM_PROBE_FAULTS").unwrap_or_else(|_| SHORT.to_string());
    if wanted != "all" && wanted.parse::<usize>().is_err() {
        faults.retain(|fault| fault.call == wanted);
    }
    let all = faults.len();
    let most = wanted.parse().unwrap_or(all);
    // Not a multiple of the number of errors, so that each of them occurs.
    let mut step = (all / most.max(1)).max(1);
    if step > 1 {
        step += usize::from(step.is_multiple_of(ERRORS.len()));
    }
    let chosen: Vec<_> = faults.iter().step_by(step).collect();
    let start = Instant::now();
    let (next, came) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let findings = Mutex::new(BTreeSet::new());
    thread::scope(|scope| {
        for stage in &stages {
            let (chosen, next, came, findings) = (&chosen, &next, &came, &findings);
            scope.spawn(move || {
                while let Some(fault) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (result, has_come) = with_fault(stage, fault);
                    came.fetch_add(usize::from(has_come), Ordering::Relaxed);
                    if let Err(problem) = result {
                        let Fault { case, call, nth, error } = fault;
                        let (args, egm5) = (case.args.join(" "), case.egm5);
                        let finding =
                            format!("{args} ({egm5}), {call} {nth} {error}: {}", problem.trim());
                        if most == all {
                            eprintln!("{finding}");
                        }
                        findings.lock().unwrap().insert(finding);
                    }
                }
            });
        }
    });
    let came = came.into_inner();
    let findings = findings.into_inner().unwrap();
    if most != SHORT {
        eprintln!(
            "{} commands, {} calls, {} runs of {all}, {came} with the fault, {:.0?}, {} findings",
            CASES.len(),
            count,
            chosen.len(),
            start.elapsed(),
            findings.len()
        );
    }
    assert!(findings.is_empty(), "{findings:#?}");
    // Faults that do not occur test nothing.
    assert!(came * 10 > chosen.len() * 9, "only {came} of {} faults came", chosen.len());
}
