//! The size of each GPU's memory.

use std::collections::BTreeMap;

use super::naming::Named;
use super::{Alignment, Objection, Request, Rest, RestDevice, Size};
use crate::domain::{Domain, Maybe};
use crate::host::Region;
use crate::values::text::{SHOWN, excerpt};
use crate::values::{Bytes, PciAddress};

/// The sizes that GPUs keep: those that the domain has, unless others are requested.
pub(super) fn kept(
    request: &Request,
    domain: Option<&Domain>,
    named: &[Named<'_>],
) -> BTreeMap<PciAddress, Bytes> {
    let domain = domain.filter(|_| request.size == Size::Kept);
    let size = |gpu: &Named<'_>| {
        let mut devices = domain?.egm.iter();
        Some((gpu.gpu, devices.find(|device| gpu.has(device))?.size.known()?))
    };
    named.iter().filter_map(size).collect()
}

/// The size of each GPU: the one that it keeps, the requested one, or its share.
pub(super) fn share_out(
    request: &Request,
    rest: &Rest<'_>,
    named: &[Named<'_>],
    kept: BTreeMap<PciAddress, Bytes>,
    objections: &mut Vec<Objection>,
) -> BTreeMap<PciAddress, Bytes> {
    let mut sizes = kept;
    let (alignment, step) = (request.alignment, request.alignment.step());
    if let Size::Each(size) = request.size
        && !named.is_empty()
        && !alignment.fits(size)
    {
        let below = alignment.below(size);
        let above = below.map_or(0, |below| below.0).checked_add(step.0).map(Bytes);
        let near = below.into_iter().chain(above).collect();
        objections.push(Objection::Unaligned { size, step, near });
        return sizes;
    }
    for gpus in named.chunk_by(|a, b| a.region.name == b.region.name) {
        let Some(Named { region, path, .. }) = gpus.first() else { continue };
        let is_new = |gpu: &&Named<'_>| !sizes.contains_key(&gpu.gpu);
        let new: Vec<_> = gpus.iter().filter(is_new).map(|gpu| gpu.gpu).collect();
        let each = match request.size {
            Size::Each(size) => size,
            _ if new.is_empty() => Bytes(0),
            Size::Kept | Size::Share => match share(region, alignment) {
                Ok(share) => share,
                Err(objection) => {
                    objections.push(objection);
                    continue;
                }
            },
        };
        let others = sum(rest.of_path(path).filter_map(|rest| rest.device.size.known()));
        let kept = sum(gpus.iter().filter_map(|gpu| sizes.get(&gpu.gpu).copied()));
        let kept = kept.saturating_add(others);
        let count = |gpus: usize| u64::try_from(gpus).unwrap_or(u64::MAX);
        let asked = u128::from(each.0) * u128::from(count(new.len())) + u128::from(kept);
        if let Some(size) = region.size.filter(|size| asked > u128::from(size.0)) {
            // `--size` is for all of these GPUs.
            let left = size.0.saturating_sub(others) / count(gpus.len()).max(1);
            objections.push(Objection::TooLarge {
                region: region.name.clone(),
                size,
                asked,
                each,
                gpus: count(new.len()),
                kept: Bytes(kept),
                stray: rest.of_path(path).find_map(|rest| stray(rest, region)),
                most: alignment.below(Bytes(left)),
            });
        }
        sizes.extend(new.into_iter().map(|gpu| (gpu, each)));
    }
    sizes
}

/// An EGM device that belongs to no GPU of its region, in words.
fn stray(RestDevice { device, gpu }: &RestDevice<'_>, region: &Region) -> Option<String> {
    let Some(alias) = &device.pci_dev else {
        return Some("one of its EGM devices has no <pciDev>".into());
    };
    let alias = excerpt(&alias.text, SHOWN);
    let is_its = |address: PciAddress| region.gpus.iter().any(|it| it.address == address);
    match *gpu {
        None => Some(format!("its EGM device with <pciDev>{alias}</pciDev> names no GPU")),
        Some(gpu) if is_its(gpu) => None,
        Some(gpu) => Some(format!("its EGM device {alias} is for {gpu}, which is not a GPU of it")),
    }
}

fn sum(sizes: impl Iterator<Item = Bytes>) -> u64 {
    sizes.map(|size| size.0).fold(0, u64::saturating_add)
}

/// The share of each GPU: the region divided by its GPUs, without remainder.
fn share(region: &Region, alignment: Alignment) -> Result<Bytes, Objection> {
    let name = || region.name.clone();
    let size = region.size.ok_or_else(|| Objection::NoSize { region: name() })?;
    let gpus = region.gpus.len();
    let count = u64::try_from(gpus).unwrap_or(u64::MAX).max(1);
    let share = Bytes(size.0 / count);
    if size.0.is_multiple_of(count) && alignment.fits(share) {
        return Ok(share);
    }
    let (step, instead) = (alignment.step(), alignment.below(share));
    Err(Objection::UnevenShare { region: name(), size, gpus, step, instead })
}
