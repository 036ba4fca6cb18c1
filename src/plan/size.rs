//! How much each GPU gets.

use std::collections::BTreeMap;

use super::{Choice, Objection, Placement, Request, Rest};
use crate::host::Region;
use crate::units::Bytes;

const MIB: u64 = 1 << 20;

/// Gives each placement its size: libvirt rounds what is not whole MiB (`qemuDomainAlignMemorySizes`,
/// `src/qemu/qemu_domain.c`), and then nothing adds up.
pub(super) fn share_out(
    request: &Request,
    rest: &Rest<'_>,
    choices: &[Choice<'_>],
    placements: &mut [Placement],
    objections: &mut Vec<Objection>,
) {
    if let Some(size) = request.size.filter(|size| size.0 == 0 || size.0 % MIB != 0) {
        let below = size.0 - size.0 % MIB;
        let near = [Some(below), below.checked_add(MIB)].into_iter().flatten();
        let near = near.filter(|size| *size > 0).map(Bytes).collect();
        objections.push(Objection::NotWholeMib { size, near });
        return;
    }
    let regions: BTreeMap<_, _> =
        choices.iter().map(|choice| (&choice.region.name, choice.region)).collect();
    for (name, region) in regions {
        let size = match request.size {
            Some(size) => size,
            None => match share(region) {
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
            let most = size.0.saturating_sub(others) / count.max(1);
            let most = Some(Bytes(most - most % MIB)).filter(|most| most.0 > 0);
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

/// What each GPU of a region gets: the region, shared out evenly in whole MiB.
fn share(region: &Region) -> Result<Bytes, Objection> {
    let name = || region.name.clone();
    let size = region.size.ok_or_else(|| Objection::NoSize { region: name() })?;
    let gpus = region.gpus.len();
    let count = u64::try_from(gpus).unwrap_or(u64::MAX).max(1);
    let share = size.0 / count;
    if size.0.is_multiple_of(count) && share.is_multiple_of(MIB) {
        return Ok(Bytes(share));
    }
    let instead = Some(Bytes(share - share % MIB)).filter(|size| size.0 > 0);
    Err(Objection::UnevenShare { region: name(), size, gpus, instead })
}
