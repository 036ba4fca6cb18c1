//! Complete archives of hosts.

use egm_probe::sysroot::Sysroot;

use super::host::holds;

/// Any bytes; if they are like a tar, its checksums are corrected first.
pub fn archive(data: &[u8]) {
    let mut tar = data.to_vec();
    put_right(&mut tar);
    if let Ok(root) = Sysroot::from_tar(&tar[..]) {
        holds(&root, data);
    }
}

/// Corrects the checksums, which random changes would never match.
fn put_right(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        if header.iter().all(|byte| *byte == 0) {
            return;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let digits = header[124..136].iter().take_while(|byte| (b'0'..b'8').contains(byte));
        let size = digits.fold(0_usize, |size, digit| size * 8 + usize::from(digit - b'0'));
        let Some(next) =
            size.checked_next_multiple_of(512).and_then(|size| size.checked_add(at + 512))
        else {
            return;
        };
        at = next;
    }
}
