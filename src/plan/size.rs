//! The size of each GPU's memory.

use std::collections::BTreeMap;

use super::naming::Named;
use super::{Alignment, Objection, Request, Rest};
use crate::domain::Maybe;
use crate::host::Region;
use crate::values::{Bytes, RegionName};

/// The size per GPU of each region.
pub(super) fn share_out<'a>(
    request: &Request,
    rest: &Rest<'_>,
    named: &[Named<'a>],
    objections: &mut Vec<Objection>,
) -> BTreeMap<&'a RegionName, Bytes> {
    let mut sizes = BTreeMap::new();
    let (alignment, step) = (request.alignment, request.alignment.step());
    let unaligned = request.size.filter(|size| !named.is_empty() && !alignment.fits(*size));
    if let Some(size) = unaligned {
        let below = alignment.below(size);
        let above = below.map_or(0, |below| below.0).checked_add(step.0).map(Bytes);
        let near = below.into_iter().chain(above).collect();
        objections.push(Objection::Unaligned { size, step, near });
        return sizes;
    }
    for gpus in named.chunk_by(|a, b| a.region.name == b.region.name) {
        let Some(Named { region, path, .. }) = gpus.first() else { continue };
        let each = match request.size.map_or_else(|| share(region, alignment), Ok) {
            Ok(size) => size,
            Err(objection) => {
                objections.push(objection);
                continue;
            }
        };
        sizes.insert(&region.name, each);
        let count = u64::try_from(gpus.len()).unwrap_or(u64::MAX);
        let others = rest.of_path(path).filter_map(|rest| rest.device.size.known());
        let others = others.map(|size| size.0).fold(0, u64::saturating_add);
        let asked = u128::from(each.0) * u128::from(count) + u128::from(others);
        if let Some(size) = region.size.filter(|size| asked > u128::from(size.0)) {
            let most = alignment.below(Bytes(size.0.saturating_sub(others) / count.max(1)));
            objections.push(Objection::TooLarge {
                region: region.name.clone(),
                size,
                asked,
                each,
                gpus: count,
                kept: Bytes(others),
                most,
            });
        }
    }
    sizes
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
