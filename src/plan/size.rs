//! How much each GPU gets.

use std::collections::BTreeMap;

use super::{Alignment, Choice, Objection, Placement, Request, Rest};
use crate::host::Region;
use crate::values::Bytes;

/// Gives each placement its size.
pub(super) fn share_out(
    request: &Request,
    rest: &Rest<'_>,
    choices: &[Choice<'_>],
    placements: &mut [Placement],
    objections: &mut Vec<Objection>,
) {
    let (alignment, step) = (request.alignment, request.alignment.step());
    if let Some(size) = request.size.filter(|size| !alignment.fits(*size)) {
        let below = alignment.below(size);
        let above = below.map_or(0, |below| below.0).checked_add(step.0).map(Bytes);
        let near = below.into_iter().chain(above).collect();
        objections.push(Objection::Unaligned { size, step, near });
        return;
    }
    let regions: BTreeMap<_, _> =
        choices.iter().map(|choice| (&choice.region.name, choice.region)).collect();
    for (name, region) in regions {
        let size = match request.size {
            Some(size) => size,
            None => match share(region, alignment) {
                Ok(size) => size,
                Err(objection) => {
                    objections.push(objection);
                    continue;
                }
            },
        };
        let mut count: u64 = 0;
        for placement in placements.iter_mut().filter(|placement| placement.region == *name) {
            placement.size = size;
            count += 1;
        }
        let (each, path) = (size, region.device.path.to_string_lossy());
        let others = rest.of_path(&path).filter_map(|rest| rest.device.size.as_ref()?.value);
        let others = others.map(|size| size.0).fold(0, u64::saturating_add);
        let asked = u128::from(size.0) * u128::from(count) + u128::from(others);
        if let Some(size) = region.size.filter(|size| asked > u128::from(size.0)) {
            let most = alignment.below(Bytes(size.0.saturating_sub(others) / count.max(1)));
            objections.push(Objection::TooLarge {
                region: name.clone(),
                size,
                asked,
                each,
                gpus: count,
                kept: Bytes(others),
                most,
            });
        }
    }
}

/// The share of each GPU: the region divided by its GPUs, without a rest.
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
