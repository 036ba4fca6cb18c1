//! The selected GPUs, and objections to them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Alignment, Choice, Objection, Plan, Request, Rest, Size};
use crate::claims::{Claim, Sight};
use crate::domain::Domain;
use crate::host::{Host, Needs, NotFound, Region, is_passthrough};
use crate::report::{Report, State, labels};
use crate::values::{Bytes, PciAddress, RegionName};
use crate::warning::Warning;

impl Plan {
    /// The parts of a host that a report needs for a plan.
    pub const NEEDS: Needs = Needs::OTHER_GPUS.union(Needs::CLAIMS).union(Needs::DEVICE_NODE);
}

/// The requested GPUs, each once, by region and address.
pub(super) fn choose<'a>(
    report: &'a Report,
    request: &Request,
    objections: &mut Vec<Objection>,
) -> Vec<Choice<'a>> {
    let host = &report.host;
    if host.regions.is_empty() && (request.all || request.gpus.is_empty()) {
        let asked = request.regions.first().map(|name| format!("{name}: ")).unwrap_or_default();
        objections.push(NotFound::no_egm(host, asked).into());
        return Vec::new();
    }
    let mut chosen: BTreeMap<_, BTreeMap<PciAddress, Choice<'a>>> = BTreeMap::new();
    let mut add = |region: &'a Region, wanted: Option<PciAddress>| {
        let gpus = region.gpus.iter().filter(|gpu| wanted.is_none_or(|it| it == gpu.address));
        let of_region = chosen.entry(&region.name).or_default();
        of_region.extend(gpus.map(|gpu| (gpu.address, Choice { gpu, region })));
    };
    for address in &request.gpus.iter().copied().collect::<BTreeSet<_>>() {
        match region_of(host, *address) {
            Ok(region) => add(region, (!request.peers).then_some(*address)),
            Err(objection) => objections.push(objection),
        }
    }
    let leased = leased(report, request, objections);
    let mut regions = BTreeMap::new();
    for name in &request.regions.iter().chain(leased).collect::<BTreeSet<_>>() {
        match host.find_region(name) {
            Ok(region) => drop(regions.insert(&region.name, region)),
            Err(error) => objections.push(error.into()),
        }
    }
    if request.all && host.is_changing {
        objections.push(Objection::DriverChanging);
    }
    let all = host.regions.iter().filter(|_| request.all);
    regions.extend(all.map(|region| (&region.name, region)));
    for region in regions.into_values() {
        if region.gpus.is_empty() {
            objections.push(Objection::NoGpus { region: region.name.clone() });
        } else if region.has_inferred_gpus() {
            objections.push(Objection::Inferred { region: region.name.clone() });
        }
        add(region, None);
    }
    let choices: Vec<_> = chosen.into_values().flat_map(BTreeMap::into_values).collect();
    let mut regions: BTreeMap<PciAddress, &Region> = BTreeMap::new();
    for choice in &choices {
        if let Some(first) = regions.insert(choice.gpu.address, choice.region) {
            objections.push(two_regions(choice.gpu.address, first, choice.region));
        }
    }
    choices
}

/// The regions reserved for the virtual machine, if the request selects nothing else.
fn leased<'a>(
    report: &'a Report,
    request: &Request,
    objections: &mut Vec<Objection>,
) -> Vec<&'a RegionName> {
    let is_selected = request.all || !request.gpus.is_empty() || !request.regions.is_empty();
    let Some(owner) = request.owner.as_ref().filter(|_| !is_selected) else { return Vec::new() };
    let has_lease = |region: &&Region| {
        let own = report.availability(region, Some(owner)).own;
        own.iter().any(|claim| matches!(claim, Claim::Lease(_)))
    };
    let regions = report.host.regions.iter().filter(has_lease);
    let leased: Vec<_> = regions.map(|region| &region.name).collect();
    if leased.is_empty() {
        objections.push(Objection::NothingReserved { owner: owner.clone() });
    }
    leased
}

fn two_regions(address: PciAddress, first: &Region, second: &Region) -> Objection {
    Objection::TwoRegions { address, first: first.name.clone(), second: second.name.clone() }
}

/// The one region of a GPU.
fn region_of(host: &Host, address: PciAddress) -> Result<&Region, Objection> {
    let is_named = |region: &&Region| region.gpus.iter().any(|gpu| gpu.address == address);
    let mut regions = host.regions.iter().filter(is_named);
    match (regions.next(), regions.next()) {
        (Some(region), None) => return Ok(region),
        (Some(first), Some(second)) => return Err(two_regions(address, first, second)),
        (None, _) => {}
    }
    let Some((gpu, _)) = host.gpu(address) else {
        return Err(NotFound::gpu_of_region(host, address).into());
    };
    if host.regions.is_empty() {
        return Err(NotFound::no_egm(host, format!("GPU {address}: ")).into());
    }
    let driver = gpu.driver.clone();
    let hint = suspected_of(host, address).map_or(String::new(), |region| {
        format!("; it may belong to {}: bind it to nvgrace_gpu_vfio_pci", region.name)
    });
    Err(Objection::NotEgm { address, driver, hint })
}

/// The region that a GPU probably belongs to.
fn suspected_of(host: &Host, peer: PciAddress) -> Option<&Region> {
    host.regions.iter().find(|region| {
        let is_it = |warning: &Warning| matches!(warning, Warning::SuspectedPeer { address, .. } if *address == peer);
        region.warnings.iter().any(is_it)
    })
}

/// Checks each region and GPU of a plan.
pub(super) fn judge(
    report: &Report,
    request: &Request,
    domain: Option<&Domain>,
    rest: &Rest<'_>,
    choices: &[Choice<'_>],
    kept: &BTreeMap<PciAddress, Bytes>,
    objections: &mut Vec<Objection>,
) {
    let regions: BTreeMap<_, _> =
        choices.iter().map(|choice| (&choice.region.name, choice.region)).collect();
    for region in regions.into_values() {
        judge_claims(report, request, domain, region, objections);
        if let Some(problem) = region.node_problem() {
            let (region, problem) = (region.name.clone(), problem.clone());
            objections.push(Objection::Node { region, problem });
        }
        let path = region.device.path.to_string_lossy();
        let has = |address: PciAddress| {
            choices.iter().any(|choice| choice.gpu.address == address)
                || rest.of_path(&path).any(|rest| rest.gpu == Some(address))
        };
        let missing: Vec<_> =
            region.gpus.iter().map(|gpu| gpu.address).filter(|gpu| !has(*gpu)).collect();
        if !missing.is_empty() {
            objections.push(Objection::Partial { region: region.name.clone(), missing });
        }
        let of_region = |choice: &&Choice<'_>| choice.region.name == region.name;
        let has_size = |choice: Choice<'_>| kept.contains_key(&choice.gpu.address);
        let is_given = matches!(request.size, Size::Each(_));
        if !is_given && !choices.iter().filter(of_region).copied().all(has_size) {
            objections.extend(suspected_peers(region, request.alignment));
        }
    }
    for Choice { gpu, region } in choices {
        if !gpu.is_there {
            let region = region.name.clone();
            objections.push(Objection::Gone { address: gpu.address, region });
        } else if !is_passthrough(gpu) || gpu.lacks_memory_access() {
            let driver = gpu.driver.clone();
            objections.push(Objection::Driver { address: gpu.address, driver });
        }
    }
}

fn judge_claims(
    report: &Report,
    request: &Request,
    domain: Option<&Domain>,
    region: &Region,
    objections: &mut Vec<Objection>,
) {
    let owner = request.owner.as_deref().or(domain.map(|domain| domain.name.as_str()));
    let mut availability = report.availability(region, owner);
    let name = || region.name.clone();
    if !availability.holders.is_empty() {
        let holders = labels(availability.holders);
        objections.push(Objection::InUse { region: name(), holders });
    } else if availability.state == State::Unknown {
        let skipped = report.claims.sight == Sight::Skipped;
        objections.push(Objection::Unknown { region: name(), skipped });
    } else if request.owner.is_none() {
        // The name in a file may be outdated.
        availability.own.retain(|claim| claim.is_held());
        if !availability.own.is_empty() {
            let holders = labels(availability.own);
            objections.push(Objection::Own { region: name(), holders });
        }
    }
    for lease in availability.leases {
        objections.push(Objection::Reserved { region: name(), lease: lease.clone() });
    }
    if !availability.defined.is_empty() {
        let domains = labels(availability.defined);
        objections.push(Objection::Defined { region: name(), domains });
    }
}

/// Further GPUs that may belong to a region.
fn suspected_peers(region: &Region, alignment: Alignment) -> Vec<Objection> {
    let peers: Vec<_> = region
        .warnings
        .iter()
        .filter_map(|warning| match warning {
            Warning::SuspectedPeer { address, driver } => Some((*address, driver.clone())),
            _ => None,
        })
        .collect();
    let count = u64::try_from(region.gpus.len() + peers.len()).unwrap_or(u64::MAX);
    let share = region.size.and_then(|size| alignment.below(Bytes(size.0 / count.max(1))));
    let objection = |(peer, driver)| Objection::SuspectedPeer {
        region: region.name.clone(),
        peer,
        driver,
        share,
    };
    peers.into_iter().map(objection).collect()
}
