//! POSIX access ACLs (acl(5)).

use std::fmt;

use crate::values::numbers::decimal;
use crate::values::text::excerpt;

/// The extended attribute with the binary form.
pub(super) const ATTRIBUTE: &str = "system.posix_acl_access";

/// Maximum size of either form; the kernel's limit for the value of an attribute.
pub(super) const LIMIT: usize = 64 * 1024;

/// An access ACL with more than the permission bits: entries for certain users or groups, and a
/// mask, which the mode shows as the permission of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// Sorted as in the kernel, by kind; at most one of each kind without a name.
    entries: Vec<Entry>,
}

/// An entry and its permission bits.
pub(crate) type Entry = (Tag, u32);

/// The subject of an entry. Users and groups have a name or a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tag {
    Owner,
    User(String),
    OwningGroup,
    Group(String),
    Mask,
    Other,
}

impl Acl {
    /// The binary form (`struct posix_acl_xattr_header`, Linux
    /// `include/uapi/linux/posix_acl_xattr.h`). `None` if it is equivalent to the mode.
    pub(super) fn of_bytes(bytes: &[u8], mode: u32) -> Result<Option<Self>, String> {
        const VERSION: u32 = 2;
        let (version, rest) = bytes.split_first_chunk().ok_or("shorter than its header")?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(format!("version {} (expected 2)", u32::from_le_bytes(*version)));
        }
        let (entries, left) = rest.as_chunks::<8>();
        if !left.is_empty() || entries.is_empty() {
            return Err("incomplete entry".into());
        }
        let entry = |[t0, t1, p0, p1, id @ ..]: &[u8; 8]| {
            let id = u32::from_le_bytes(*id);
            let named = || Some(id.to_string()).filter(|_| id != u32::MAX);
            let tag = match u16::from_le_bytes([*t0, *t1]) {
                0x01 => Some(Tag::Owner),
                0x02 => named().map(Tag::User),
                0x04 => Some(Tag::OwningGroup),
                0x08 => named().map(Tag::Group),
                0x10 => Some(Tag::Mask),
                0x20 => Some(Tag::Other),
                _ => None,
            };
            let permission = u32::from(u16::from_le_bytes([*p0, *p1]));
            tag.zip(Some(permission).filter(|it| *it <= 7)).ok_or("invalid entry")
        };
        let entries = entries.iter().map(entry).collect::<Result<_, _>>()?;
        Self::new(entries, mode)
    }

    /// The text form of `tar --acls` and setfacl(1), `user:64055:rw-,mask::rw-`. Entries of the
    /// mode may be missing. star and bsdtar add the number, `user:qemu:rw-:107`.
    pub(crate) fn of_text(text: &str, mode: u32) -> Result<Option<Self>, String> {
        if text.len() > LIMIT {
            return Err(format!("larger than {LIMIT} bytes"));
        }
        let entries = text.split([',', '\n']).map(str::trim).filter(|entry| !entry.is_empty());
        let entry = |text: &str| {
            let invalid = || format!("invalid entry {}", excerpt(text, 40));
            let fields: Vec<_> = text.split(':').collect();
            let (kind, name, permission, id) = match fields[..] {
                [kind, name, permission] => (kind, name, permission, None),
                [kind, name, permission, id] => (kind, name, permission, Some(id)),
                // Written by some for these two, which have no name.
                [kind @ ("mask" | "m" | "other" | "o"), permission] => (kind, "", permission, None),
                _ => return Err(invalid()),
            };
            let id = id.filter(|id| decimal::<u32>(id).is_some());
            let tag = match (kind, name) {
                ("user" | "u", "") => Tag::Owner,
                ("user" | "u", name) => Tag::User(id.unwrap_or(name).to_owned()),
                ("group" | "g", "") => Tag::OwningGroup,
                ("group" | "g", name) => Tag::Group(id.unwrap_or(name).to_owned()),
                ("mask" | "m", "") => Tag::Mask,
                ("other" | "o", "") => Tag::Other,
                _ => return Err(invalid()),
            };
            Ok((tag, bits(permission).ok_or_else(invalid)?))
        };
        Self::new(entries.map(entry).collect::<Result<_, _>>()?, mode)
    }

    fn new(mut entries: Vec<Entry>, mode: u32) -> Result<Option<Self>, String> {
        let is_extended =
            |(tag, _): &Entry| matches!(tag, Tag::User(_) | Tag::Group(_) | Tag::Mask);
        if !entries.iter().any(is_extended) {
            return Ok(None);
        }
        let usual = [(Tag::Owner, 6), (Tag::OwningGroup, 3), (Tag::Mask, 3), (Tag::Other, 0)];
        for (tag, shift) in usual {
            if !entries.iter().any(|(found, _)| *found == tag) {
                entries.push((tag, mode >> shift & 7));
            }
        }
        entries.sort();
        if entries.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err("two entries for the same user or group".into());
        }
        Ok(Some(Self { entries }))
    }

    /// The entries in the kernel's order.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The mode of a file with this ACL; the kernel keeps them equal.
    pub(super) fn mode(&self, mode: u32) -> u32 {
        self.entries.iter().fold(mode, |mode, (tag, permission)| {
            let shift = match tag {
                Tag::Owner => 6,
                Tag::Mask => 3,
                Tag::Other => 0,
                Tag::User(_) | Tag::OwningGroup | Tag::Group(_) => return mode,
            };
            mode & !(7 << shift) | permission << shift
        })
    }
}

/// `rw-`
fn bits(text: &str) -> Option<u32> {
    let expected = "rwx".chars().zip([4, 2, 1]);
    let found = |(char, (letter, bit))| match char {
        '-' => Some(0),
        char if char == letter => Some(bit),
        _ => None,
    };
    let bits = text.chars().zip(expected).map(found).sum::<Option<u32>>()?;
    (text.len() == 3).then_some(bits)
}

/// The text form, in one line.
impl fmt::Display for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (tag, permission)) in self.entries.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (kind, name) = match tag {
                Tag::Owner => ("user", ""),
                Tag::User(name) => ("user", name.as_str()),
                Tag::OwningGroup => ("group", ""),
                Tag::Group(name) => ("group", name.as_str()),
                Tag::Mask => ("mask", ""),
                Tag::Other => ("other", ""),
            };
            let letter = |(letter, bit)| if permission & bit == 0 { '-' } else { letter };
            let letters: String = [('r', 4), ('w', 2), ('x', 1)].map(letter).iter().collect();
            write!(f, "{comma}{kind}:{name}:{letters}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Acl;

    const FULL: &str = "user::rw-,user:64055:rw-,group::---,mask::rw-,other::---";

    /// Entries of tag, permission and number.
    fn binary(version: u32, entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut bytes = version.to_le_bytes().to_vec();
        for (tag, permission, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(permission.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn both_forms_are_read() {
        const NONE: u32 = u32::MAX;
        let usual = [(1, 6, NONE), (4, 0, NONE), (0x10, 6, NONE), (0x20, 0, NONE)];
        let bytes = |entry| binary(2, &[&usual[..], &[entry]].concat());
        let acl = Acl::of_bytes(&bytes((2, 6, 64055)), 0o660).unwrap().unwrap();
        assert_eq!((acl.to_string().as_str(), acl.mode(0o20600)), (FULL, 0o20660));
        for bad in [
            bytes((2, 8, 64055)),
            bytes((2, 6, NONE)),
            bytes((3, 6, 1)),
            bytes((1, 6, NONE)),
            binary(1, &usual),
            binary(2, &[]),
            bytes((2, 6, 1))[..43].to_vec(),
            vec![2, 0],
        ] {
            assert!(Acl::of_bytes(&bad, 0o660).is_err(), "{bad:?}");
        }
        for (text, mode, expected) in [
            ("user::rw-\nuser:64055:rw-\ngroup::---\nmask::rw-\nother::---\n", 0o660, FULL),
            ("u:64055:rw-,m::rw-,g::---", 0o600, FULL),
            ("user:qemu:rw-:64055,group::---", 0o660, FULL),
            ("group:kvm:r--", 0o640, "user::rw-,group::r--,group:kvm:r--,mask::r--,other::---"),
        ] {
            let acl = Acl::of_text(text, mode).unwrap().unwrap();
            assert_eq!(acl.to_string(), expected, "{text}");
        }
        assert_eq!(Acl::of_text("user::rw-,group::r--,other::---", 0o640), Ok(None));
        assert_eq!(Acl::of_text("", 0o640), Ok(None));
        for bad in ["x", "u:1:rwxr", "u:1:wr-", "u:1", "m:1:rw-", "x:1:rw-", "u:1:rw-,u:1:r--"] {
            assert!(Acl::of_text(bad, 0o660).is_err(), "{bad}");
        }
    }
}
