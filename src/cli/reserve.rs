//! `egm-probe reserve` and `egm-probe release`

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use clap::{ArgGroup, Args};

use super::args::{
    Global, Target, parse_gpu, parse_owner, parse_target, parse_time, parse_time_up_to,
};
use super::error::Error;
use super::signals::EndSignals;
use super::{Exit, Session};
use crate::claims::keeper::Keeper;
use crate::claims::leases::Lease;
use crate::files::locked_directory::DirectoryProblem;
use crate::host::{Host, Needs, NotFound};
use crate::leases::{
    self, LeaseObjection, LeaseStore, PATIENCE, Released, Requirements, choose, objections,
};
use crate::output::columns;
use crate::output::json;
use crate::output::table::{self, Format, Style};
use crate::report::Report;
use crate::sysroot::Sysroot;
use crate::values::text::{SHOWN, excerpt};
use crate::values::{Bytes, Moment, PciAddress, RegionName, parse_option};
use crate::warning::Warning;

/// Time until a reservation without a command expires.
const TTL: Duration = Duration::from_secs(600);

/// How often to try again with `--wait`, and how long to wait for the lock then.
const INTERVAL: Duration = Duration::from_millis(500);

/// The least pause between two attempts, as a multiple of the time that one takes: searching all
/// processes may be slow, and locks out others.
const PAUSE: u32 = 9;

/// The columns printed for reserved regions.
const COLUMNS: &str = "DEVICE,NODE,SIZE,STATE,GPUS,HOLDER";

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("wanted").required(true).multiple(true).args(["regions", "gpus", "all", "any"]))]
pub(super) struct ReserveArgs {
    /// Regions, such as egm4 or /dev/egm4, or GPUs of regions
    #[arg(value_name = "REGION", value_parser = parse_reserved)]
    regions: Vec<Target>,
    /// Reserve the regions of these GPUs
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu, value_delimiter = ',')]
    gpus: Vec<PciAddress>,
    /// Reserve all regions
    #[arg(long, conflicts_with = "any")]
    all: bool,
    /// Reserve any N free regions, the smallest suitable ones first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with_all = ["regions", "gpus"])]
    any: Option<u32>,
    /// Require at least G GPUs per region
    #[arg(long = "gpus", value_name = "G")]
    least_gpus: Option<usize>,
    /// Require at least this size per region
    #[arg(long, value_parser = parse_option)]
    size: Option<Bytes>,
    /// Name of the virtual machine
    #[arg(long = "for", value_name = "NAME", value_parser = parse_owner)]
    owner: String,
    /// Time until the reservation expires, such as 90s or 1h [default: 10m; with COMMAND, never]
    #[arg(long, value_name = "TIME", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Wait until the regions are available, at most this long, such as 90s or 10m
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    wait: Option<Duration>,
    /// Reserve even if holders or reservations of a region cannot be determined
    #[arg(long)]
    force: bool,
    /// Print the regions as JSON (egm-probe.list/1)
    #[arg(short = 'J', long)]
    json: bool,
    /// Execute this command, and keep the regions reserved until it exits
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "json")]
    command: Vec<OsString>,
}

impl ReserveArgs {
    fn requirements(&self) -> Requirements<'_> {
        let Self { owner, size, least_gpus, force, .. } = self;
        Requirements { domain: owner, least_size: *size, least_gpus: *least_gpus, force: *force }
    }
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("given_up").required(true).multiple(true).args(["regions", "all"]))]
pub(super) struct ReleaseArgs {
    /// Regions, such as egm4 or /dev/egm4, or GPUs of regions
    #[arg(value_name = "REGION", value_parser = parse_target)]
    regions: Vec<Target>,
    /// Release all regions reserved for NAME
    #[arg(long, conflicts_with = "regions")]
    all: bool,
    /// Name of the virtual machine
    #[arg(long = "for", value_name = "NAME", value_parser = parse_owner)]
    owner: String,
}

pub(super) fn reserve(args: &ReserveArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let (directory, root) = place(session.global)?;
    let store = LeaseStore::below(directory, &root)?;
    let host = Host::read(&root, Needs::empty());
    if host.regions.is_empty() {
        return Err(NotFound::no_egm(&host, "").into());
    }
    store.create()?;
    let command = args.command.split_first();
    let process = command.map(|_| this_process()).transpose()?;
    let (regions, replaced) = match args.wait {
        None => take(args, &root, &store, process.as_ref(), PATIENCE)?,
        Some(limit) => {
            let signals = EndSignals::block()?;
            let started = Instant::now();
            loop {
                let attempt = Instant::now();
                let error = match take(args, &root, &store, process.as_ref(), INTERVAL) {
                    Ok(taken) => break taken,
                    Err(error) => error,
                };
                let left = limit.saturating_sub(started.elapsed());
                if left.is_zero() || !may_pass(&error) {
                    return Err(error);
                }
                let pause = INTERVAL.max(PAUSE * attempt.elapsed());
                if let Some(number) = signals.wait(pause.min(left))? {
                    return Ok(Exit::Signal(number));
                }
            }
        }
    };
    if let (Some((program, arguments)), Some(process)) = (command, process) {
        if let Some(warning) = replaced {
            session.warn(warning);
        }
        // In place of this program, so that the process that keeps the lease is the command's own:
        // neither can outlive the other, signals reach it (they are not blocked any more), and its
        // exit status is ours.
        let cause = process::Command::new(program).args(arguments).exec();
        // If this fails, the lease is void as soon as this process exits.
        let _ = store.lock(PATIENCE).and_then(|locked| locked.give_back(&process));
        return Err(Error::NotExecuted { command: program.clone(), cause });
    }
    let mut report = Report::read(&root, Needs::all());
    report.claims.warnings.extend(replaced);
    report.host.regions.retain(|region| regions.contains(&region.name));
    report.gone.clear();
    if args.json {
        json::write_list(session.out, &report)?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = report.rows().collect();
    table::write(session.out, &rows, &columns::choose(COLUMNS)?, Style::new(Format::Table))?;
    session.out.flush()?;
    session.warn_of(&report, &report.host.regions);
    Ok(Exit::Done)
}

/// Reserves the requested regions once they can be had, and returns them.
fn take(
    args: &ReserveArgs,
    root: &Sysroot,
    store: &LeaseStore<'_>,
    process: Option<&Keeper>,
    patience: Duration,
) -> Result<(BTreeSet<RegionName>, Option<Warning>), Error> {
    let locked = store.lock(patience)?;
    // No other process can reserve regions from here on.
    let mut report = Report::read(root, Needs::all());
    if report.host.regions.is_empty() {
        return Err(NotFound::no_egm(&report.host, "").into());
    }
    if let Some(problem) = report.claims.leases_unread.take().filter(|_| !args.force) {
        return Err(Error::NotReserved(vec![LeaseObjection::Unread(problem)]));
    }
    let regions = match args.any {
        Some(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            choose(&report, count, &args.requirements()).map_err(Error::NotReserved)?
        }
        None => wanted(args, &report, root)?,
    };
    let objections = objections(&report, &regions, &args.requirements());
    if !objections.is_empty() {
        return Err(Error::NotReserved(objections));
    }
    let expires = match (args.ttl, process) {
        (None, Some(_)) => Moment::LAST,
        (ttl, _) => Moment::now().after(ttl.unwrap_or(TTL)),
    };
    let domain = args.owner.clone();
    let (process, more) = (process.cloned(), serde_json::Map::new());
    let lease = Lease { regions: regions.clone(), domain, expires, process, more };
    Ok((regions, locked.take(lease, args.force)?))
}

/// Whether waiting may help against an error.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::NotReserved(objections) => leases::may_pass(objections),
        Error::Directory(problem) => matches!(problem, DirectoryProblem::Busy { .. }),
        _ => false,
    }
}

/// This process, as the one that keeps a lease.
fn this_process() -> Result<Keeper, Error> {
    Keeper::this_process().ok_or_else(|| {
        let problem = "cannot keep regions for a command".into();
        Error::Doing { problem, cause: io::Error::other("/proc does not show this process") }
    })
}

pub(super) fn release(args: &ReleaseArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    let (directory, root) = place(session.global)?;
    let store = LeaseStore::below(directory, &root)?;
    let report = Report::read(&root, Needs::GPUS | Needs::DEVICE_LINKS);
    let regions = args.regions.iter().map(|target| target.name(&report, &root));
    let regions = regions.collect::<Result<BTreeSet<_>, _>>()?;
    let wanted = (!args.all).then_some(&regions);
    let released = if store.exists() {
        store.lock(PATIENCE)?.give_up(wanted, &args.owner)?
    } else {
        Released::default()
    };
    for region in &released.regions {
        writeln!(session.out, "{region}")?;
    }
    let owner = excerpt(&args.owner, SHOWN);
    let mut problems = Vec::new();
    for (region, process) in &released.kept {
        problems.push(format!("{region}: reserved for {owner} while process {process} runs"));
    }
    let is_missing = |region: &&RegionName| {
        !(released.regions.contains(*region) || released.kept.contains_key(*region))
    };
    let missing: Vec<_> = regions.iter().filter(is_missing).map(ToString::to_string).collect();
    if !missing.is_empty() {
        problems.push(format!("{}: not reserved for {owner}", missing.join(", ")));
    }
    if problems.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Error::NotEnough(problems.join("; ")))
}

/// The root directory of the leases, and their host.
fn place(global: &Global) -> Result<(&Path, Sysroot), Error> {
    if global.from.is_some() {
        return Err(Error::Usage("--from: captures are read-only (unpack it, and use --sysroot)"));
    }
    if global.no_occupancy {
        return Err(Error::Usage("--no-occupancy: not supported here, holders must be checked"));
    }
    let directory = global.sysroot.as_deref().unwrap_or(Path::new("/"));
    Ok((directory, global.root()?))
}

/// The regions selected by name or by GPU.
fn wanted(
    args: &ReserveArgs,
    report: &Report,
    root: &Sysroot,
) -> Result<BTreeSet<RegionName>, Error> {
    let host = &report.host;
    let mut wanted = BTreeSet::new();
    let gpus = args.gpus.iter().copied().map(Target::Gpu);
    for target in args.regions.iter().cloned().chain(gpus) {
        let name = &target.region(report, root)?.name;
        // A region that is gone cannot be reserved.
        wanted.insert(host.find_region(name)?.name.clone());
    }
    if args.all {
        wanted.extend(host.regions.iter().map(|region| region.name.clone()));
    }
    Ok(wanted)
}

/// A region, or the first word of a command that lacks `--` before it.
fn parse_reserved(text: &str) -> Result<Target, String> {
    parse_target(text).map_err(|error| format!("{error}; `--` precedes a command"))
}

fn parse_ttl(text: &str) -> Result<Duration, String> {
    parse_time_up_to(text, 30)
}
