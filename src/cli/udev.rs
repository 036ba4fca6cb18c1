//! `egm-probe udev`

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use nix::errno::Errno;
use nix::unistd::{alarm, geteuid};

use super::args::{Global, parse_region};
use super::error::Error;
use super::udev_nodes::{explain, give_back, look};
use super::{Exit, Session, difference};
use crate::host::{Accounts, Host, Needs, no_egm};
use crate::output::udev::{self as output, Action, UdevReport};
use crate::sysroot::Sysroot;
use crate::udev_rules::file::{Change, RulesFile};
use crate::udev_rules::udevadm::Udev;
use crate::udev_rules::{
    AccountName, Asked, Helper, HostRules, Label, Mode, Settings, links, nodes, open_to_all,
};
use crate::values::RegionName;

/// Timeout in seconds of commands that the rules call: udev waits for them before it changes the
/// device's mode.
const HELPER_LIMIT: u32 = 2;

/// Account numbers below this are system accounts (`SYS_GID_MAX`, login.defs(5)).
const FIRST_PERSON: u32 = 1000;

/// Path at which udev looks for a program that a rule names without a path.
const UDEV_PROGRAM: &str = "/usr/lib/udev/egm-probe";

#[derive(Debug, Subcommand)]
pub(super) enum UdevCommand {
    /// Print the rules
    Print(RuleArgs),
    /// Install the rules, apply them, and verify the result
    Install(UdevInstallArgs),
    /// Show whether the devices match the rules
    Status {
        /// Print JSON (egm-probe.udev/1)
        #[arg(short = 'J', long)]
        json: bool,
    },
    /// Remove the installed rules, and reset devices that no other rule covers
    Uninstall(UdevFileArgs),
    /// Print the links of a region's device (called by the rules)
    #[command(hide = true)]
    Links {
        /// The region, such as egm4
        #[arg(value_name = "REGION", value_parser = parse_region)]
        region: RegionName,
    },
    /// Make udev process all regions again (called by the rules when a GPU is added or removed)
    #[command(hide = true)]
    Refresh,
}

#[derive(Args, Debug)]
pub(super) struct RuleArgs {
    /// Owner of the devices
    #[arg(long, value_name = "NAME", default_value = "root")]
    user: AccountName,
    /// Group of the devices; QEMU's user must be in it
    #[arg(long, value_name = "NAME", default_value = "kvm")]
    group: AccountName,
    /// Permission bits of the devices
    #[arg(long, value_name = "MODE", default_value = "0660")]
    mode: Mode,
    /// SELinux label of the devices, such as system_u:object_r:svirt_image_t:s0
    #[arg(long, value_name = "CONTEXT")]
    selinux: Option<Label>,
}

#[derive(Args, Debug)]
pub(super) struct UdevFileArgs {
    /// Write below DIR only, as packagers do, and leave the running system alone
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Write the file without reloading udev
    #[arg(long)]
    no_reload: bool,
    /// Show the changes without making them
    #[arg(long)]
    dry_run: bool,
    /// Print JSON (egm-probe.udev/1)
    #[arg(short = 'J', long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct UdevInstallArgs {
    #[command(flatten)]
    rule: RuleArgs,
    #[command(flatten)]
    file: UdevFileArgs,
    /// Allow a missing user or group and a world-accessible mode; replace a file not written
    /// by egm-probe, saving it as 60-egm.rules.orig
    #[arg(long)]
    force: bool,
}

pub(super) fn run(command: &UdevCommand, session: &mut Session<'_>) -> Result<Exit, Error> {
    let global = session.global;
    match command {
        UdevCommand::Print(args) => {
            let rules = settings(args, Settings::default().helper).to_string();
            session.out.write_all(rules.as_bytes())?;
            Ok(Exit::Done)
        }
        UdevCommand::Install(args) => {
            no_other_root(global)?;
            install(args, session)
        }
        UdevCommand::Uninstall(args) => {
            no_other_root(global)?;
            uninstall(args, session)
        }
        UdevCommand::Status { json } => status(&global.root()?, *json, session),
        UdevCommand::Links { region } => {
            alarm::set(HELPER_LIMIT);
            let links = links(&global.root()?, region);
            if links.is_empty() {
                let problem = "NUMA node and GPUs are unknown";
                let _ = writeln!(session.err, "egm-probe: {region}: {problem}");
                return Ok(Exit::No);
            }
            writeln!(session.out, "{}", links.join(" "))?;
            Ok(Exit::Done)
        }
        UdevCommand::Refresh => {
            no_other_root(global)?;
            alarm::set(HELPER_LIMIT);
            refresh()
        }
    }
}

fn no_other_root(global: &Global) -> Result<(), Error> {
    if global.sysroot.is_some() || global.from.is_some() {
        return Err(Error::Usage(
            "--sysroot and --from: not supported here (--root writes below another directory)",
        ));
    }
    Ok(())
}

fn settings(args: &RuleArgs, helper: Helper) -> Settings {
    Settings {
        user: args.user.clone(),
        group: args.group.clone(),
        mode: args.mode,
        label: args.selinux.clone(),
        helper,
    }
}

/// The file's place, and the running system's udev if it is to read the file.
struct Destination {
    root: Sysroot,
    file: RulesFile,
    udev: Option<Udev>,
    is_live: bool,
}

impl Destination {
    fn of(args: &UdevFileArgs) -> Result<Self, Error> {
        let directory = args.root.as_deref().unwrap_or(Path::new("/"));
        let file = RulesFile::below(directory)?;
        let root = Sysroot::directory(directory)?;
        let is_live = root.may_ask_system();
        if is_live && !args.dry_run && !geteuid().is_root() {
            return Err(Error::NotRoot(file.path().to_owned()));
        }
        let notifies = is_live && !args.dry_run && !args.no_reload;
        let udev = if notifies { Some(Udev::find()?) } else { None };
        Ok(Self { root, file, udev, is_live })
    }
}

fn install(args: &UdevInstallArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let target = Destination::of(&args.file)?;
    let mut report = UdevReport::new(Action::Install);
    let (helper, note) = helper(target.is_live);
    report.warnings.extend(note);
    let settings = settings(&args.rule, helper);
    let accounts = Accounts::of(&target.root);
    for problem in unwise(&settings, &accounts, &mut report.warnings) {
        if !args.force {
            return Err(Error::Unwise(problem));
        }
        report.warnings.push(problem);
    }
    let rules = settings.to_string();
    report.file = Some(target.file.path().to_owned());
    if args.file.dry_run {
        let change = target.file.plan_install(&rules, args.force)?;
        return show_difference(args.file.json, report, &change, session);
    }
    let change = target.file.install(&rules, args.force)?;
    report.add_change(&change);
    if let Some(udev) = &target.udev {
        look(&target.root, &settings, &mut report);
        if report.changed || !report.is_right() {
            if let Err(problem) = udev.reload() {
                let undone = if report.changed { target.file.undo(&change) } else { Ok(()) };
                return Err(match undone {
                    Ok(()) => problem.into(),
                    Err(also) => Error::NotUndone(Box::new(problem), Box::new(also)),
                });
            }
            // udev labels a device only when it is added.
            notify(udev, settings.label.is_some(), &mut report);
            look(&target.root, &settings, &mut report);
        }
        explain((&target.root, target.file.path()), &settings, &mut report);
    }
    finish(args.file.json, &report, session)
}

fn uninstall(args: &UdevFileArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let target = Destination::of(args)?;
    let mut report = UdevReport::new(Action::Uninstall);
    report.file = Some(target.file.path().to_owned());
    if args.dry_run {
        return show_difference(args.json, report, &target.file.plan_uninstall()?, session);
    }
    let gave = HostRules::read(&target.root);
    report.add_change(&target.file.uninstall()?);
    if let Some(udev) = target.udev.as_ref().filter(|_| report.changed) {
        if let Err(problem) = udev.reload() {
            report.warnings.push(problem.to_string());
        }
        notify(udev, false, &mut report);
        give_back(&target.root, &gave, &mut report);
    }
    finish(args.json, &report, session)
}

fn notify(udev: &Udev, as_added: bool, report: &mut UdevReport) {
    let notified = udev.trigger(as_added);
    report.udev_told = Some(notified.is_ok());
    if let Err(problem) = notified {
        report.warnings.push(problem.to_string());
    }
}

fn status(root: &Sysroot, json: bool, session: &mut Session<'_>) -> Result<Exit, Error> {
    let mut report = UdevReport::new(Action::Status);
    let rules = HostRules::read(root);
    let host = Host::read(root, Needs::DEVICE_NODE);
    report.nodes = nodes(&host, &Accounts::of(root), |region| {
        Asked::of_rules(&rules.for_region(&region.name))
    });
    for region in &host.regions {
        report.warnings.extend(region.warnings.iter().map(ToString::to_string));
    }
    let mut names: Vec<RegionName> = host.regions.iter().map(|it| it.name.clone()).collect();
    if names.is_empty() {
        // Show the effect of the rules on any region.
        names.extend("egm4".parse());
        report.warnings.push(no_egm(host.class).to_owned());
    }
    for name in &names {
        let effective = rules.for_region(name);
        report.add_rules(&effective);
        if effective.given().next().is_some() && !effective.gives_access() {
            report.warnings.push(format!("{name}: no udev rule gives QEMU access"));
        }
    }
    report.warnings.extend(rules.problems(&names).iter().map(ToString::to_string));
    report.warnings.extend(
        open_to_all(&host.regions)
            .into_iter()
            .map(|node| format!("every user may open {node}, and opening it clears the region")),
    );
    report.shadowed.clone_from(&rules.shadowed);
    report.warnings.extend(rules.warnings.iter().map(ToString::to_string));
    let masked = rules.shadowed.iter().any(|shadowed| shadowed.masked);
    if report.rules.is_empty() && !masked {
        let missing = if rules.is_empty() { "missing" } else { "none sets permissions" };
        report.warnings.push(format!(
            "udev rules for EGM devices: {missing} (`egm-probe udev install` writes one)"
        ));
    }
    let has_rules = report.rules.iter().any(|rule| rule.counts == Some(true));
    let exit = finish(json, &report, session)?;
    Ok(if has_rules { exit } else { Exit::No })
}

fn show_difference(
    json: bool,
    mut report: UdevReport,
    change: &Change,
    session: &mut Session<'_>,
) -> Result<Exit, Error> {
    report.dry_run = true;
    report.add_change(change);
    if !json {
        let name = report.file.as_deref().unwrap_or(Path::new("")).display().to_string();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        difference::write(session.out, &name, &text(change.before()), &text(&change.after))?;
        session.out.flush()?;
        if !report.changed {
            session.note("nothing would change");
        }
        if let Some(note) = report.backup_note() {
            session.note(note);
        }
    }
    finish(json, &report, session)
}

/// Writes the report. A node that differs from the request is a failure.
fn finish(json: bool, report: &UdevReport, session: &mut Session<'_>) -> Result<Exit, Error> {
    if json {
        output::write_json(session.out, report)?;
    } else {
        if !report.dry_run {
            output::write(session.out, report)?;
            session.out.flush()?;
        }
        for warning in &report.warnings {
            session.warn(warning);
        }
    }
    Ok(if report.is_right() { Exit::Done } else { Exit::No })
}

/// Problems of the settings that need `--force`.
fn unwise(settings: &Settings, accounts: &Accounts<'_>, notes: &mut Vec<String>) -> Vec<String> {
    let Settings { user, group, mode, .. } = settings;
    let mut problems = Vec::new();
    let (users_known, groups_known) = accounts.are_known();
    for (kind, name, id, is_known, file) in [
        ("user", user, accounts.uid(user.as_str()), users_known, "passwd"),
        ("group", group, accounts.gid(group.as_str()), groups_known, "group"),
    ] {
        match id {
            None if name.as_str() == "root" || name.as_str() == "0" => {}
            None if is_known && name.is_number() => {
                problems.push(format!("{kind} {name}: no {kind} of this system has this number"));
            }
            None if is_known => problems.push(format!(
                "{kind} {name}: missing on this system, so udev would ignore it or the whole rule"
            )),
            None => notes.push(format!(
                "{kind} {name}: not checked (/etc/{file} is missing below this root)"
            )),
            Some(id) if id >= FIRST_PERSON => notes.push(format!(
                "{kind} {name}: {id} is not the number of a system {kind} (systemd 258 and 259 ignore \
                 such a rule)"
            )),
            Some(_) => {}
        }
    }
    if mode.is_open_to_all() {
        problems.push(format!(
            "mode {mode}: gives every process access to the memory of virtual machines; access for \
             QEMU's group is enough, as in 0660"
        ));
    }
    if !mode.lets_anybody_in() {
        notes.push(format!("mode {mode}: denies QEMU read and write access"));
    }
    problems
}

/// The program that the rules call: the one in udev's directory if it is there, else this one if
/// only root can change it, since udev runs it as root.
fn helper(is_live: bool) -> (Helper, Option<String>) {
    let relative = Settings::default().helper;
    if !is_live || Path::new(UDEV_PROGRAM).exists() {
        return (relative, None);
    }
    let program = std::env::current_exe().and_then(fs::canonicalize).ok();
    if let Some(helper) = program.filter(|path| is_roots(path)).and_then(|path| Helper::at(&path)) {
        return (helper, None);
    }
    let note = format!(
        "{UDEV_PROGRAM}: missing, so /dev/grace-egm gets no links (the rules cannot call this program: \
         its path is writable by non-root users, or has characters that a rule cannot have)"
    );
    (relative, Some(note))
}

/// Whether only root can replace a file.
fn is_roots(path: &Path) -> bool {
    let only_root = |path: &Path| {
        fs::metadata(path).is_ok_and(|file| file.uid() == 0 && file.mode() & 0o022 == 0)
    };
    path.ancestors().all(only_root)
}

/// Asks the kernel for an event of each region, as `udevadm trigger` does. Regions that have been
/// removed meanwhile are ignored; any other error is returned after all regions were tried.
fn refresh() -> Result<Exit, Error> {
    let host = Host::read(&Sysroot::host(), Needs::empty());
    let mut first = None;
    for region in &host.regions {
        let path = region.path.join("uevent");
        let opened = fs::OpenOptions::new().write(true).open(&path);
        let written = opened.and_then(|mut file| file.write_all(b"change"));
        let Err(cause) = written else { continue };
        let is_gone = cause.kind() == io::ErrorKind::NotFound
            || cause.raw_os_error() == Some(Errno::ENODEV as i32);
        if !is_gone {
            first.get_or_insert(Error::Doing { problem: path.display().to_string(), cause });
        }
    }
    first.map_or(Ok(Exit::Done), Err)
}
