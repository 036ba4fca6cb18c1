//! Numbers as the kernel and libvirt write them.

use std::str::FromStr;

/// A decimal number: only digits, whereas the standard library accepts a sign.
pub(crate) fn decimal<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A number in the kernel's notation: hexadecimal with `0x`, or decimal.
pub(crate) fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // from_str_radix accepts a sign.
    let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| u64::from_str_radix(digits, radix).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_read_in_both_bases_up_to_64_bits() {
        for (text, value) in [
            ("0x6fc0000000", Some(479_962_595_328)),
            ("0X6FC0000000", Some(479_962_595_328)),
            ("479962595328", Some(479_962_595_328)),
            ("0", Some(0)),
            ("0xffffffffffffffff", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("0x10000000000000000", None),
            ("18446744073709551616", None),
            ("6fc0000000", None),
            ("0x", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("0x+1", None),
            ("1 2", None),
            ("1G", None),
        ] {
            assert_eq!(number(text), value, "{text:?}");
        }
    }
}
