//! Single words: PCI addresses, lists of numbers, sizes.

use egm_probe::doctor::errors;
use egm_probe::values::{Bytes, IdList, PciAddress, parse_libvirt, parse_option};

pub fn pci_address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let address = text.parse::<PciAddress>();
    let of_kernel = PciAddress::from_kernel_name(text);
    let Ok(address) = address else {
        assert_eq!(of_kernel, None, "{text:?}");
        return;
    };
    let shown = address.to_string();
    assert_eq!(shown.parse(), Ok(address), "{text:?}");
    assert_eq!(of_kernel, (shown == text).then_some(address), "{text:?}");
    assert_eq!(PciAddress::from_kernel_name(&shown), Some(address));
    assert_eq!(address.nearest(&[address]), [address]);
    let (domain, bus, slot) = (address.domain(), address.bus(), address.slot());
    assert_eq!(PciAddress::new(domain, bus, slot, address.function()), Some(address));
}

/// Two lists, one per line.
pub fn id_list(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(first) = first.parse::<IdList>() else { return };
    assert_eq!(first.to_string().parse(), Ok(first.clone()), "{text:?}");
    assert_eq!(first.is_empty(), first.iter().next().is_none());
    let numbers: Vec<u32> = first.iter().take(1000).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{first}");
    assert!(numbers.iter().all(|number| first.contains(*number)), "{first}");
    assert_eq!(numbers.len() as u64, first.len().min(1000), "{first}");

    let Ok(second) = second.parse::<IdList>() else { return };
    let both = first.with(&second);
    assert_eq!(both, second.with(&first));
    assert_eq!((both.with(&first), both.first_beyond(&both)), (both.clone(), None));
    assert_eq!(first.first_beyond(&both), None, "{first} within {both}");
    assert_eq!(both.last(), first.last().max(second.last()));
    // Computed by definition, number by number.
    let beyond = first.iter().take(1000).find(|number| !second.contains(*number));
    if first.len() <= 1000 {
        assert_eq!(first.first_beyond(&second), beyond, "{first} beyond {second}");
    }
    if second.len() <= 1000 {
        let out: Vec<u32> = second.iter().collect();
        let rest = first.without(&out);
        assert!(out.iter().all(|number| !rest.contains(*number)), "{first} without {second}");
        let shared = out.iter().filter(|number| first.contains(**number)).count();
        assert_eq!(rest.len() + shared as u64, first.len(), "{first} without {second}");
        assert_eq!(rest.with(&first), first);
    }
}

/// A size, or with a line break a number and a unit.
pub fn size(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((number, unit)) = text.split_once('\n') {
        let Some(size) = parse_libvirt(number, Some(unit)) else { return };
        let number: u64 = number.trim().trim_start_matches('+').parse().unwrap();
        assert!(size.0 >= number && (number == 0 || size.0 % number == 0), "{text:?} is {size:?}");
        if !unit.is_empty() {
            assert_eq!(parse_option(&format!("{number}{unit}")), Ok(size), "{text:?}");
        }
    }
    let Ok(size) = parse_option(text) else { return };
    assert_eq!(parse_option(&format!("{}B", size.0)), Ok(size), "{text:?}");
    // A small number needs its unit.
    let quantity = size.quantity();
    assert!(size.0 < 1 << 20 || parse_option(&quantity) == Ok(size), "{text:?}: {quantity}");
    assert_eq!(parse_libvirt(&size.0.to_string(), Some("bytes")), Some(size));
    if size.0 % 1024 == 0 {
        assert_eq!(parse_libvirt(&(size.0 >> 10).to_string(), None), Some(size));
    }
    // The displayed size is rounded to a tenth, and not further.
    let shown = size.to_string();
    let (number, unit) = shown.split_once(' ').unwrap();
    let whole = number.split('.').next().unwrap();
    match parse_option(&format!("{whole}{unit}")) {
        Ok(Bytes(lowest)) => {
            let tenth = parse_option(&format!("1{unit}")).unwrap().0 / 10 + 1;
            assert!(size.0.saturating_add(tenth) >= lowest, "{size:?} is shown as {shown}");
            assert!(size.0 - lowest.min(size.0) <= tenth * 11, "{size:?} is shown as {shown}");
        }
        Err(_) => assert_eq!(shown, "16 EiB", "{size:?}"),
    }
}

/// A text pasted from a log.
pub fn explain(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let found = errors::find(text);
    assert!(found.is_empty() || !errors::is_too_short(text), "{text:?}");
    // A message without gaps is found in any text that contains it.
    let is_whole =
        errors::ERRORS.iter().any(|error| error.texts.iter().any(|it| text.contains(it)));
    assert!(!is_whole || !found.is_empty(), "{text:?}");
}
