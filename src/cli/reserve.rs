//! `egm-probe reserve` and `egm-probe release`

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::args::{Global, parse_gpu, parse_region, parse_time};
use super::error::Error;
use super::{Exit, Session};
use crate::claims::leases::is_name;
use crate::host::{Host, Needs, NotFound, Region};
use crate::leases::{LeaseObjection, LeaseStore, objections};
use crate::output::columns;
use crate::output::json;
use crate::output::table::{self, Format, Style};
use crate::report::{Report, State};
use crate::sysroot::Sysroot;
use crate::values::text::{SHOWN, excerpt};
use crate::values::{Bytes, PciAddress, RegionName, parse_option};

/// The columns that are printed of what was reserved.
const COLUMNS: &str = "DEVICE,NODE,SIZE,STATE,GPUS,HOLDER";

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("wanted").required(true).multiple(true).args(["regions", "gpus", "all", "any"]))]
pub(super) struct ReserveArgs {
    /// Regions, as egm4 or /dev/egm4
    #[arg(value_name = "REGION", value_parser = parse_region)]
    regions: Vec<RegionName>,
    /// The regions of these GPUs
    #[arg(long = "gpu", value_name = "ADDRESS", value_parser = parse_gpu, value_delimiter = ',')]
    gpus: Vec<PciAddress>,
    /// All regions
    #[arg(long, conflicts_with = "any")]
    all: bool,
    /// Any N regions that are free
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(conflicts_with_all = ["regions", "gpus"])]
    any: Option<u32>,
    /// With --any: regions with at least so many GPUs
    #[arg(long = "gpus", value_name = "G", requires = "any")]
    least_gpus: Option<usize>,
    /// With --any: regions of at least this size
    #[arg(long, requires = "any", value_parser = parse_option)]
    size: Option<Bytes>,
    /// The virtual machine's name
    #[arg(long = "for", value_name = "NAME")]
    owner: String,
    /// For how long, as 90s, 10m or 1h
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_ttl)]
    ttl: Duration,
    /// Also where it is not known who holds a region, or whether it is reserved
    #[arg(long)]
    force: bool,
    /// JSON (egm-probe.list/1) of the regions
    #[arg(short = 'J', long)]
    json: bool,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("given_up").required(true).multiple(true).args(["regions", "all"]))]
pub(super) struct ReleaseArgs {
    /// Regions, as egm4 or /dev/egm4
    #[arg(value_name = "REGION", value_parser = parse_region)]
    regions: Vec<RegionName>,
    /// All regions that are kept for NAME
    #[arg(long, conflicts_with = "regions")]
    all: bool,
    /// The virtual machine's name
    #[arg(long = "for", value_name = "NAME")]
    owner: String,
}

pub(super) fn reserve(args: &ReserveArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    check_name(&args.owner)?;
    let (directory, root) = place(session.global)?;
    let store = LeaseStore::below(directory, &root)?;
    let host = Host::read(&root, Needs::empty());
    if host.regions.is_empty() {
        return Err(NotFound::no_egm(&host, "").into());
    }
    store.create()?;
    let locked = store.lock()?;
    // No other process can reserve regions from here on.
    let mut report = Report::read(&root, Needs::all());
    if report.host.regions.is_empty() {
        return Err(NotFound::no_egm(&report.host, "").into());
    }
    if let Some(problem) = report.claims.leases_unread.take().filter(|_| !args.force) {
        return Err(Error::NotReserved(vec![LeaseObjection::Unread(problem)]));
    }
    let wanted = match args.any {
        Some(count) => choose(args, count, &report)?,
        None => wanted(args, &report)?,
    };
    let objections = objections(&report, &wanted, &args.owner, args.force);
    if !objections.is_empty() {
        return Err(Error::NotReserved(objections));
    }
    let replaced = locked.take(&wanted, &args.owner, args.ttl, args.force)?;
    let mut report = Report::read(&root, Needs::all());
    report.claims.warnings.extend(replaced);
    report.host.regions.retain(|region| wanted.contains(&region.name));
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

pub(super) fn release(args: &ReleaseArgs, session: &mut Session<'_>) -> Result<Exit, Error> {
    check_name(&args.owner)?;
    let (directory, root) = place(session.global)?;
    let store = LeaseStore::below(directory, &root)?;
    let regions: BTreeSet<_> = args.regions.iter().cloned().collect();
    let wanted = (!args.all).then_some(&regions);
    let given_up =
        if store.exists() { store.lock()?.give_up(wanted, &args.owner)? } else { BTreeSet::new() };
    for region in &given_up {
        writeln!(session.out, "{region}")?;
    }
    let missing: Vec<_> = regions.difference(&given_up).map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(Exit::Done);
    }
    let (missing, owner) = (missing.join(", "), excerpt(&args.owner, SHOWN));
    Err(Error::NotEnough(format!("{missing} is not reserved for {owner}")))
}

/// Below which directory leases are, and the host that they are of.
fn place(global: &Global) -> Result<(&Path, Sysroot), Error> {
    if global.from.is_some() {
        return Err(Error::Usage(
            "a capture cannot be changed; --sysroot changes what is unpacked of one",
        ));
    }
    if global.no_occupancy {
        return Err(Error::Usage("who holds a region must be looked at; leave --no-occupancy out"));
    }
    let directory = global.sysroot.as_deref().unwrap_or(Path::new("/"));
    Ok((directory, global.root()?))
}

fn check_name(name: &str) -> Result<(), Error> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::Usage(
        "--for NAME is the name of a virtual machine: not empty, at most 200 bytes, and one line",
    ))
}

/// The regions that are named, by themselves or by their GPUs.
fn wanted(args: &ReserveArgs, report: &Report) -> Result<BTreeSet<RegionName>, Error> {
    let host = &report.host;
    let mut wanted = BTreeSet::new();
    for name in &args.regions {
        wanted.insert(host.find_region(name)?.name.clone());
    }
    for address in &args.gpus {
        let named = host.gpu(*address).and_then(|(_, region)| region);
        let of_regions = || host.regions.iter().flat_map(|region| &region.gpus);
        let region = named.ok_or_else(|| {
            NotFound::gpu(host, *address, of_regions().map(|gpu| gpu.address).collect())
        })?;
        wanted.insert(region.name.clone());
    }
    if args.all {
        wanted.extend(host.regions.iter().map(|region| region.name.clone()));
    }
    Ok(wanted)
}

/// So many regions that are free and do, the smallest first: what is large stays for who needs it.
fn choose(args: &ReserveArgs, count: u32, report: &Report) -> Result<BTreeSet<RegionName>, Error> {
    let does = |region: &&Region| {
        let is_free = matches!(report.row(region).capacity.state, State::Free | State::Defined);
        is_free
            && objections(report, &[region.name.clone()].into(), &args.owner, args.force).is_empty()
            && region.gpus.len() >= args.least_gpus.unwrap_or(0)
            && args.size.is_none_or(|least| region.size.is_some_and(|size| size >= least))
    };
    let mut free: Vec<_> = report.host.regions.iter().filter(does).collect();
    // Those that no virtual machine is defined with before the others.
    let is_defined = |region: &Region| report.row(region).capacity.state == State::Defined;
    free.sort_by_key(|region| {
        (is_defined(region), region.size.unwrap_or(Bytes(u64::MAX)), region.name.clone())
    });
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if free.len() < wanted {
        return Err(Error::NotEnough(format!(
            "{wanted} free regions are asked for, and {} of {} would do; see `egm-probe list`",
            free.len(),
            report.host.regions.len()
        )));
    }
    Ok(free.into_iter().take(wanted).map(|region| region.name.clone()).collect())
}

/// A minute as `1m`: at least a second, at most thirty days.
fn parse_ttl(text: &str) -> Result<Duration, String> {
    const MOST: Duration = Duration::from_secs(30 * 86_400);
    let time = parse_time(text)?;
    if time < Duration::from_secs(1) || time > MOST {
        return Err("expected 1s to 30days".into());
    }
    Ok(time)
}
