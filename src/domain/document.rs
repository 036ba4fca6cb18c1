//! A domain together with its XML.

use roxmltree::Node;

use super::{BadDomain, Domain, Encoding, SourceText, xml};

/// The XML of a domain, parsed once: the domain, and the element tree.
#[derive(Debug)]
pub struct Document<'a> {
    xml: roxmltree::Document<'a>,
    domain: Domain,
    encoding: Encoding,
}

impl<'a> Document<'a> {
    /// Parses a definition or a status file, as [`Domain::parse`] does.
    ///
    /// # Errors
    /// As [`Domain::parse`].
    pub fn parse(text: &'a str) -> Result<Self, BadDomain> {
        let xml = xml::parse(text)?;
        let domain = Domain::of(&xml)?;
        Ok(Self { xml, domain, encoding: Encoding::Utf8 })
    }

    /// Parses a file in the same way.
    ///
    /// # Errors
    /// As [`Domain::parse`].
    pub fn of(source: &'a SourceText) -> Result<Self, BadDomain> {
        Ok(Self { encoding: source.encoding(), ..Self::parse(source.text())? })
    }

    pub(crate) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub(crate) fn xml(&self) -> &roxmltree::Document<'a> {
        &self.xml
    }

    /// The `<domain>` element.
    pub(crate) fn element(&self) -> Node<'_, 'a> {
        // `parse` has checked that it exists.
        xml::domain_of(&self.xml).map_or(self.xml.root_element(), |(domain, _)| domain)
    }
}
