//! The bytes of a domain file, decoded.

use super::{BadDomain, line_and_column};

/// The text of a file, and its encoding.
///
/// UTF-16 is detected by its byte order mark or its first character.
///
/// ```
/// use egm_probe::domain::{Encoding, SourceText};
///
/// let bytes: Vec<u8> = "\u{feff}<domain/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
/// let source = SourceText::decode(&bytes)?;
/// assert_eq!(source.text(), "\u{feff}<domain/>");
/// assert_eq!(source.encoding(), Encoding::Utf16);
/// # Ok::<(), egm_probe::domain::BadDomain>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    text: String,
    encoding: Encoding,
}

/// The encoding of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// UTF-16, in either byte order.
    Utf16,
}

impl SourceText {
    /// Decodes the bytes of a file.
    ///
    /// # Errors
    /// They are in neither encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDomain> {
        match bytes {
            [0xff, 0xfe, ..] | [b'<', 0, ..] => Self::utf16(bytes, u16::from_le_bytes),
            [0xfe, 0xff, ..] | [0, b'<', ..] => Self::utf16(bytes, u16::from_be_bytes),
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Self { text: text.to_owned(), encoding: Encoding::Utf8 }),
                Err(error) => {
                    let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
                    let good = String::from_utf8_lossy(good);
                    let (line, column) = line_and_column(&good, good.len());
                    let byte = bytes.get(good.len()).copied().unwrap_or_default();
                    let problem = format!("byte 0x{byte:02x} is not valid UTF-8");
                    Err(BadDomain { line, column, problem })
                }
            },
        }
    }

    fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Self, BadDomain> {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let mut text = String::with_capacity(pairs.len());
        let mut is_good = rest.is_empty();
        for decoded in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
            let Ok(c) = decoded else {
                is_good = false;
                break;
            };
            text.push(c);
        }
        if is_good {
            return Ok(Self { text, encoding: Encoding::Utf16 });
        }
        Err(BadDomain::at(&text, text.len(), "invalid UTF-16"))
    }

    /// The text, with its byte order mark if it has one.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The encoding of the file; libvirt reads only UTF-8.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }
}

#[cfg(test)]
mod tests {
    use super::SourceText;

    #[test]
    fn every_encoding_is_decoded() {
        let text = "<domain><name>\u{fc}\u{1f600}</name></domain>\r\n";
        let little: Vec<_> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<_> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
        for bytes in
            [text.as_bytes().to_vec(), [b"\xef\xbb\xbf", text.as_bytes()].concat(), little, big]
        {
            let source = SourceText::decode(&bytes).unwrap();
            assert!(source.text().ends_with(text));
        }
    }

    #[test]
    fn an_invalid_encoding_is_refused_with_the_place() {
        for (bytes, place) in [
            (&b"<a>\n\xff</a>"[..], "2:1: byte 0xff"),
            (b"<\0a\0>", "1:3: invalid UTF-16"),
            (b"\xff\xfe<\0\0\xd8", "1:3: invalid UTF-16"),
            (b"<\0\x00\xdcx\0", "1:2: invalid UTF-16"),
        ] {
            let error = SourceText::decode(bytes).unwrap_err().to_string();
            assert!(error.starts_with(place), "{error}");
        }
    }
}
