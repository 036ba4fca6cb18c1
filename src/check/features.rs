//! The parts of a Grace guest that some versions of libvirt do not support yet.

use std::ops::Range;

use memchr::memmem;
use roxmltree::Node;

use crate::domain::Dialect;
use crate::domain::xml::{is_named, start_tag};

/// A part of a domain that only newer versions of libvirt support.
pub(super) struct Feature {
    /// Its name in messages.
    pub(super) name: &'static str,
    /// The parent of the element that may use it; any parent if empty.
    parent: &'static str,
    element: &'static str,
    usage: Usage,
    /// How libvirt's schema defines it.
    definition: Definition,
}

/// How an element uses a feature.
enum Usage {
    Present,
    /// Not the first one of its name.
    Repeated,
    Attribute(&'static str),
    Without(&'static str),
    Value(&'static str, &'static str),
}

/// The sign that a file of libvirt's schema defines a feature: the attribute or element of its
/// name, or a text, anywhere or between two others.
enum Definition {
    Usual,
    Text(&'static str),
    Within(&'static str, &'static str, &'static str),
}

use Definition::{Text, Usual, Within};
use Usage::{Attribute, Present, Repeated, Value, Without};

macro_rules! features {
    ($($name:literal: $parent:literal $element:literal $usage:expr => $definition:expr;)*) => {
        /// Every feature, EGM itself first.
        pub(super) const FEATURES: &[Feature] = &[$(Feature {
            name: $name,
            parent: $parent,
            element: $element,
            usage: $usage,
            definition: $definition,
        }),*];
    };
}

// The elements of `schema/egm-domain.rng`, and of the schemas of libvirt 9.0 to 12.8.
features! {
    "<memory model='egm'>": "devices" "memory" Value("model", "egm") => Text("<value>egm</value>");
    "<maxMemory> without slots": "domain" "maxMemory" Without("slots")
        => Within("<element name=\"maxMemory\">", "</element>", "<optional>");
    "<iommufd> of a domain": "domain" "iommufd" Present => Usual;
    "`clusters` of a <topology>": "cpu" "topology" Attribute("clusters") => Usual;
    "<ras> in <features>": "features" "ras" Present => Usual;
    "`memReserve` of a controller": "controller" "target" Attribute("memReserve") => Usual;
    "more than one <iommu>": "devices" "iommu" Repeated => Text("<attribute name=\"pciBus\"");
    "`pciBus` of an <iommu>": "iommu" "driver" Attribute("pciBus") => Usual;
    "`accel` of an <iommu>": "iommu" "driver" Attribute("accel") => Usual;
    "`ssidSize` of an <iommu>": "iommu" "driver" Attribute("ssidSize") => Usual;
    "`ssidsize` of an <iommu>": "iommu" "driver" Attribute("ssidsize") => Usual;
    "`pasid` of an <iommu>": "iommu" "driver" Attribute("pasid") => Usual;
    "`cmdqv` of an <iommu>": "iommu" "driver" Attribute("cmdqv") => Usual;
    "`iommufd` of a <hostdev>": "hostdev" "driver" Attribute("iommufd") => Usual;
    "<vpasidCapOffset> of a <hostdev>": "hostdev" "vpasidCapOffset" Present => Usual;
    "`nodeset` of an <acpi>": "" "acpi" Attribute("nodeset")
        => Within("<define name=\"acpi\">", "</define>", "\"nodeset\"");
}

impl Feature {
    /// Whether it is EGM itself.
    pub(super) fn is_egm(&self) -> bool {
        matches!(self.usage, Value("model", "egm"))
    }

    /// The dialect that has this spelling, if others spell it differently.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        let Attribute(name) = self.usage else { return None };
        Dialect::ALL.iter().copied().find(|dialect| dialect.pasid_attribute() == name)
    }

    /// Whether a file of libvirt's schema defines it.
    pub(super) fn is_defined_in(&self, schema: &[u8]) -> bool {
        let find = |text: &[u8], part: &str| memmem::find(text, part.as_bytes());
        let is_there = |text: &str| find(schema, text).is_some();
        match (&self.definition, &self.usage) {
            (Usual, Attribute(name)) => is_there(&format!("<attribute name=\"{name}\"")),
            (Usual, _) => is_there(&format!("<element name=\"{}\"", self.element)),
            (Text(text), _) => is_there(text),
            (Within(start, end, text), _) => {
                let inside = || {
                    let inside = schema.get(find(schema, start)?..)?;
                    inside.get(..find(inside, end)?)
                };
                inside().is_some_and(|inside| find(inside, text).is_some())
            }
        }
    }

    /// Where an element uses it.
    fn used_by(&self, node: Node<'_, '_>) -> Option<Range<usize>> {
        let is_of_parent = self.parent.is_empty()
            || node.parent().is_some_and(|parent| is_named(parent, self.parent));
        if !is_of_parent || !is_named(node, self.element) {
            return None;
        }
        let tag = || start_tag(node);
        match self.usage {
            Present => Some(tag()),
            Repeated => {
                let mut before = node.prev_siblings().skip(1);
                before.any(|other| is_named(other, self.element)).then(tag)
            }
            Attribute(name) => node.attribute_node(name).map(|it| it.range()),
            Without(name) => node.attribute(name).is_none().then(tag),
            Value(name, value) => (node.attribute(name) == Some(value)).then(tag),
        }
    }
}

/// The features that a domain uses, each with its first place.
pub(super) fn used(domain: Node<'_, '_>) -> Vec<(&'static Feature, Range<usize>)> {
    let mut places = vec![None; FEATURES.len()];
    for node in domain.descendants().filter(Node::is_element) {
        for (place, feature) in places.iter_mut().zip(FEATURES) {
            if place.is_none() {
                *place = feature.used_by(node);
            }
        }
    }
    FEATURES.iter().zip(places).filter_map(|(feature, place)| Some((feature, place?))).collect()
}
