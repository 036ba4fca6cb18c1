//! The table of error messages of QEMU, libvirt, the kernel and kubelet, the only place that defines them,
//! and the search for a message in it.

/// A known error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownError {
    /// The program that prints it: `QEMU`, `libvirt`, `kernel` or `kubelet`.
    pub printer: &'static str,
    /// Its forms, with `*` for variable parts.
    pub texts: &'static [&'static str],
    /// The reason for it.
    pub cause: &'static str,
    /// The checks and the rules for domains that find the cause.
    pub codes: &'static [&'static str],
    /// The remedy.
    pub remedy: &'static str,
}

macro_rules! errors {
    ($($printer:ident [$($text:literal)*] $cause:literal [$($code:literal)*] $remedy:literal;)*) => {
        /// All known error messages, by the program that prints them.
        pub const ERRORS: &[KnownError] = &[$(KnownError {
            printer: stringify!($printer),
            texts: &[$($text),*],
            cause: $cause,
            codes: &[$($code),*],
            remedy: $remedy,
        }),*];
    };
}

errors! {
    QEMU [
        "vfio_container_dma_map(*) = -14 (Bad address)"
        "IOMMU_IOAS_MAP failed: Bad address"
        "Bad address"
    ]
        "iommufd maps EGM memory and the memory of the GPUs only with NVIDIA's changes to both the kernel and QEMU. At least one of them is missing."
        ["D09"]
        "install NVIDIA's kernel, and a version of NVIDIA's QEMU that is newer than 11.0.0+nvidia1-1";
    QEMU ["VFIO_MAP_DMA failed: Cannot allocate memory" "Cannot allocate memory"]
        "vfio locks all memory of the guest, and QEMU may not lock as much."
        ["D19" "EGM220"]
        "set LimitMEMLOCK=infinity in the service of libvirt, and remove a <hard_limit> that is less than the memory of the domain";
    QEMU ["Parameter 'qom-type' does not accept value 'acpi-egm-memory'"]
        "This QEMU does not support EGM. NVIDIA's QEMU does, but no upstream release so far."
        ["D17"]
        "use NVIDIA's QEMU, and name it in <emulator> of the domain";
    QEMU ["group * is not viable"]
        "A device in the IOMMU group of the GPU is not bound to vfio."
        ["D07" "D08"]
        "bind all devices of the group to vfio, except bridges, or move the others to other slots";
    QEMU ["Permission denied"]
        "If the message names a device /dev/egm<N>: the user that QEMU runs as has no access to the device, or AppArmor or SELinux denies it."
        ["D11" "D12" "D15" "D16"]
        "run `egm-probe doctor` to see which of them it is; `egm-probe udev install` gives QEMU's group access; with KubeVirt, set device_ownership_from_security_context = true in the configuration of the container runtime";
    QEMU ["Operation not permitted"]
        "If the message names a device /dev/egm<N>: the cgroup of the guest does not allow the device. NVIDIA's libvirt allows the devices of a domain, but not those in <qemu:arg>."
        ["D13" "EGM028"]
        "use <memory model='egm'> with NVIDIA's libvirt, or add the device to cgroup_device_acl in /etc/libvirt/qemu.conf; with KubeVirt, request all GPUs of the region as one resource, so that the Pod gets the device";
    QEMU ["Device or resource busy"]
        "If the message names a device /dev/egm<N>: another process has opened the region, and the driver allows only one."
        ["D21" "D26" "EGM108"]
        "find the process with `egm-probe list` and stop it, or use another region";
    QEMU ["total memory for NUMA nodes (*) should equal RAM size (*)"]
        "libvirt rounds each memory device up to 2 MiB and each cell up to 1 MiB, so the sums differ if a size is not a multiple of 2 MiB."
        ["EGM011" "EGM014"]
        "use sizes that are multiples of 2 MiB, and make each cell the sum of its EGM devices";
    QEMU ["Specified node * is invalid"]
        "The <acpi nodeset> of a device names a NUMA cell that the guest does not have."
        ["D25" "EGM019"]
        "add the cells, or correct the list; `egm-probe stanza --gpu-cells 8` adds eight cells for each GPU";
    kernel ["soft lockup"]
        "The driver clears a whole region when it is opened. Kernels before linux-nvidia 6.17 of February 2026 do so in one piece."
        ["D22"]
        "use a newer NVIDIA kernel, and do not let the kernel panic on soft lockups (kernel.softlockup_panic=0)";
    libvirt ["cannot use/hotplug a memory device when domain 'maxMemory' is not defined"]
        "libvirt requires <maxMemory> in a domain with memory devices of any model."
        ["EGM033"]
        "add <maxMemory> with the value of <memory>; `egm-probe stanza --with numa` does so";
    libvirt ["maximum memory size must be equal or greater than the actual memory size"]
        "<maxMemory> is less than the sum of the cells and memory devices, or one of these sizes has the wrong unit."
        ["EGM011" "EGM016"]
        "correct the sizes of the cells; then set <maxMemory> to their sum or more";
    libvirt ["failed to find an empty memory slot"]
        "The domain has a dimm or nvdimm in addition to EGM, and <maxMemory> has no slot for it."
        ["EGM016" "EGM027" "EGM038"]
        "remove the device, or give <maxMemory> a slot for it (`slots`), and add its size";
    libvirt ["ACPI requires UEFI on this architecture"]
        "The domain has <acpi/> but no UEFI firmware."
        ["EGM035"]
        "use <os firmware='efi'>";
    libvirt ["hotplug is not supported for the egm device"]
        "EGM is the memory that a guest starts with, so it cannot be added to a running guest."
        []
        "add the device to the definition while the guest is shut off";
    libvirt ["path is required for model 'egm'"]
        "An EGM device has no <source><path>, or it is empty."
        ["EGM001"]
        "add the device of the region, such as <source><path>/dev/egm4</path></source>";
    libvirt ["pciDev is required for model 'egm'"]
        "An EGM device has no <pciDev> in its <target>, or it is empty or misspelt."
        ["EGM002"]
        "add the alias of the GPU's <hostdev>, such as <pciDev>ua-hostdev0</pciDev>";
    libvirt ["missing <target> element for <memory> device"]
        "An EGM device has no <target>."
        ["EGM002" "EGM008" "EGM014"]
        "add <target> with <size>, <node> and <pciDev>; `egm-probe stanza` generates the whole device";
    libvirt [
        "can't add memory backend for guest node '*' as the guest has only '*' NUMA nodes configured"
        "invalid value of memory device node"
    ]
        "The <node> of an EGM device is not the number of a NUMA cell of the guest."
        ["EGM008"]
        "use the number of a <cell> in <cpu><numa>, without spaces; `egm-probe stanza --with numa` writes the cells";
    libvirt ["Invalid value for attribute 'model' in element 'memory': '*'."]
        "This libvirt does not support the memory model: it is misspelt, it is not in lower case, or it is egm and libvirt is not NVIDIA's."
        ["D18" "EGM037" "EGM092"]
        "write model='egm', and install NVIDIA's libvirt";
    libvirt ["Invalid value for attribute 'access' in element 'memory': '*'."]
        "The access of a memory device is neither shared nor private."
        ["EGM013"]
        "write access='shared'";
    libvirt [
        "Invalid value for attribute 'id' in element 'cell': '*'. Expected non-negative integer value"
        "Duplicate NUMA cell info for cell id '*'"
        "Exactly one 'cell' element per guest NUMA cell allowed, non-contiguous ranges or ranges not starting from 0 are not allowed"
    ]
        "The guest's NUMA cells are not numbered 0, 1, .. without gaps."
        ["EGM015"]
        "number the cells in <cpu><numa> from 0, each number once";
    libvirt ["Invalid value for attribute '*' in element '*': '*'."]
        "libvirt does not know this value of the attribute."
        ["EGM090"]
        "correct the value; `egm-probe validate` and `virt-xml-validate` show its line";
    libvirt [
        "Invalid value '*' for element or attribute './size'"
        "missing element or attribute './size'"
    ]
        "The <size> of a memory device is missing, or is not a whole decimal number."
        ["EGM014"]
        "write a number without spaces, and its unit in the attribute: <size unit='KiB'>8388608</size>";
    libvirt [
        "Invalid value '*' for element or attribute './@memory'"
        "missing element or attribute './@memory'"
    ]
        "The memory of a NUMA cell is missing, or is not a whole decimal number."
        ["EGM011"]
        "set the `memory` of the <cell> to the sum of its EGM devices, with the unit in `unit`";
    libvirt ["Invalid value '*' for element or attribute './memory[1]'"]
        "The <memory> of the domain is not a whole decimal number."
        ["EGM012"]
        "write the sum of the cells, with the unit in the attribute";
    libvirt ["unknown suffix '*'"]
        "libvirt does not know the unit of a size."
        ["EGM011" "EGM014"]
        "use KiB, MiB, GiB or TiB";
    libvirt ["value too large: *"]
        "A size has more than 64 bits when it is converted to bytes."
        ["EGM014"]
        "correct the number or its unit";
    libvirt ["Failed to parse bitmap '*'"]
        "A list of CPUs or cells is invalid."
        ["EGM017" "EGM019"]
        "write ranges with a hyphen and separate them with commas, such as 0-71,144";
    libvirt [
        "'sibling_id *' does not refer to a valid cell within NUMA 'cell id *'"
        "'value *' is invalid for 'sibling id *' under NUMA 'cell id *'"
    ]
        "A distance is that of a missing cell, or the distance of a cell to itself is not 10."
        ["EGM021"]
        "correct <distances>; `egm-probe stanza --with distances` writes all of them";
    libvirt ["Argument 'cellid' in memnode element must correspond to existing guest's NUMA cell"]
        "<numatune> places the memory of a cell that the guest does not have."
        ["EGM031"]
        "correct `cellid` in <memnode>, or remove the element";
    libvirt [
        "Number of CPUs in <numa> exceeds the <vcpu> count"
        "NUMA cells * and * have overlapping vCPU ids"
    ]
        "The cells have more virtual CPUs than the domain, or two of them have the same one."
        ["EGM017"]
        "correct `cpus` of the cells, or <vcpu>";
    libvirt [
        "maximum vcpus count must be an integer"
        "maximum vCPU count must not be less than current vCPU count"
        "vcpu id '*' is out of range of maximum vcpu count"
    ]
        "<vcpu> is not a number, or is less than its attribute `current` or than a CPU in <vcpus>."
        ["EGM017"]
        "set <vcpu> to the number of the guest's virtual CPUs";
    libvirt ["CPU topology doesn't match maximum vcpu count"]
        "The product of the numbers in <topology> is not <vcpu>."
        ["EGM018"]
        "correct <topology> or <vcpu>";
    libvirt ["Hostdev already exists in the domain configuration"]
        "Two <hostdev> or <interface> elements are the same PCI function."
        ["EGM020"]
        "remove one of them";
    libvirt [
        "Invalid PCI address bus='*', must be <= 0xFF"
        "Invalid PCI address slot='*', must be <= 0x1F"
    ]
        "A part of a PCI address is out of range, often because the parts of 0009:01:00.0 are in the wrong attributes."
        ["EGM004" "EGM022"]
        "write 0009:01:00.0 as domain='0x0009' bus='0x01' slot='0x00' function='0x0'";
    libvirt ["non unique alias detected: *"]
        "Two devices have the same alias."
        ["EGM006"]
        "give each device an alias of its own, such as ua-hostdev0 and ua-hostdev1";
    libvirt ["USB is disabled for this domain, but USB devices are present in the domain XML"]
        "The domain has USB devices but no USB controller; the machine type virt has none by default."
        ["EGM042"]
        "add a controller, or remove the devices";
    libvirt ["No PCI buses available"]
        "The architecture or the machine type of the domain is not that of a Grace guest."
        ["EGM026"]
        "use <type arch='aarch64' machine='virt'>hvm</type>";
    libvirt ["an os <type> must be specified"]
        "The domain has no <os>, or no <type> in it."
        ["EGM036"]
        "add <os><type arch='aarch64' machine='virt'>hvm</type></os>";
    libvirt ["missing name information" "name * cannot contain '/'"]
        "The name of the domain is missing or empty, or contains a slash."
        ["EGM030"]
        "correct <name>";
    libvirt ["expecting root element of 'domain', not '*'"]
        "The file is not the definition of a domain; files in /run/libvirt/qemu contain the state of running domains."
        []
        "use the output of `virsh dumpxml --inactive`";
    libvirt ["Opening and ending tag mismatch: * line * and *"]
        "The file is not well-formed XML."
        []
        "correct the tag; `egm-probe validate` shows its line";
    libvirt ["Start tag expected, '<' not found"]
        "The file is not XML, or is in UTF-16, which libvirt refuses."
        ["EGM043"]
        "convert it to UTF-8: `iconv -f UTF-16 -t UTF-8`";
    // pkg/kubelet/cm/topologymanager: topology_manager.go, scope.go.
    kubelet ["unsupported on machines with more than * NUMA Nodes"]
        "A Grace host has more NUMA nodes than the topology manager accepts, so kubelet does not start."
        ["D27"]
        "set max-allowable-numa-nodes in topologyManagerPolicyOptions of /var/lib/kubelet/config.yaml to the number of the host's nodes";
    kubelet ["Resources cannot be allocated with Topology locality" "TopologyAffinityError"]
        "No NUMA node, or no set of nodes that the policy of the topology manager accepts, has the GPUs and the dedicated CPUs that the Pod requests. single-numa-node never accepts the GPUs of two sockets."
        ["D28"]
        "request the GPUs of one region with CPUs of its socket, or set topologyManagerPolicy to restricted or best-effort";
    // pkg/kubelet/cm/devicemanager/manager.go.
    kubelet [
        "requested number of devices unavailable for *. Requested: *, Available: *"
        "UnexpectedAdmissionError"
    ]
        "The device plugin offers fewer devices than the Pod requests: others are in use, or the plugin leaves out regions whose GPUs are not all bound and of one kind."
        ["D08" "D29"]
        "run `egm-probe list` on the node to see which regions are free, and `egm-probe doctor --consumer kubernetes`";
    // pkg/kubelet/cm/cpumanager/state/state_checkpoint.go.
    kubelet ["configured policy * differs from state checkpoint policy *"]
        "cpuManagerPolicy was changed, but kubelet's file of the previous policy is still there."
        ["D28"]
        "drain the node, remove /var/lib/kubelet/cpu_manager_state, and restart kubelet";
}

/// A shorter text is in too many messages.
const MIN_LETTERS: usize = 4;

/// The minimum number of letters that an incomplete message has in common with a known one.
const MIN_COMMON: usize = 8;

/// The minimum similarity of a text with a typo.
const SIMILAR: f64 = 0.85;

/// Whether a text is too short to be searched for.
#[must_use]
pub fn is_too_short(text: &str) -> bool {
    letters(text) < MIN_LETTERS
}

/// The known errors whose message is in a text, such as a line of a log, most specific first. If
/// there is none, those whose message contains the text or ends it.
///
/// ```
/// use egm_probe::doctor::errors::find;
///
/// let found = find("qemu-system-aarch64: vfio 0009:01:00.0: group 12 is not viable");
/// assert_eq!(found[0].texts, ["group * is not viable"]);
/// assert_eq!(find("not viable"), found);
/// assert!(find("no such message").is_empty());
/// ```
#[must_use]
pub fn find(text: &str) -> Vec<&'static KnownError> {
    if is_too_short(text) {
        return Vec::new();
    }
    let text = squeezed(text);
    let best = |error: &'static KnownError| {
        let matches = error.texts.iter().filter_map(|form| match_with(form, &text));
        Some((matches.max()?, error))
    };
    let mut found: Vec<_> = ERRORS.iter().filter_map(best).collect();
    if found.iter().any(|(it, _)| it.is_whole) {
        found.retain(|(it, _)| it.is_whole);
    }
    if found.is_empty() {
        return similar(&text);
    }
    // Stable: equally good ones stay in the order of the table.
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    found.into_iter().map(|(_, error)| error).collect()
}

/// The known errors that differ from a short text by a typo.
fn similar(text: &str) -> Vec<&'static KnownError> {
    let is_similar =
        |form: &&str| strsim::normalized_damerau_levenshtein(&squeezed(form), text) >= SIMILAR;
    let is_short = text.len() <= 200;
    let similar = |error: &&KnownError| is_short && error.texts.iter().any(is_similar);
    ERRORS.iter().filter(similar).collect()
}

/// The common part of a text and a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Match {
    /// The message is in the text.
    is_whole: bool,
    /// The letters that they have in common.
    letters: usize,
}

/// Compares a text with one form of a message. The message may have any text before and after it,
/// and in place of each `*`; the text may begin and end anywhere in that.
fn match_with(form: &str, text: &str) -> Option<Match> {
    let form = squeezed(form);
    let parts: Vec<_> = form.split('*').collect();
    let inner = text.trim_matches(|c: char| " .:;,'\"`".contains(c));
    if parts.iter().all(|part| !part.contains(inner)) {
        let matches = (0..=parts.len()).map(|first| match_from(first, &parts, text));
        let best = matches.max()?;
        return (best.is_whole || best.letters >= MIN_COMMON).then_some(best);
    }
    let whole = match_from(0, &parts, text);
    Some(if whole.is_whole { whole } else { Match { is_whole: false, letters: letters(inner) } })
}

/// The same for a text that begins before the part `first`, and after the one before that, or in it.
fn match_from(first: usize, parts: &[&str], text: &str) -> Match {
    let before = first.checked_sub(1).and_then(|before| parts.get(before)).copied();
    let begun = before.map_or("", |part| overlap(part, text));
    let mut rest = text.get(begun.len()..).unwrap_or_default();
    let mut common = letters(begun);
    for part in parts.iter().skip(first) {
        let Some((_, after)) = rest.split_once(part) else {
            common += letters(overlap(rest, part));
            return Match { is_whole: false, letters: common };
        };
        common += letters(part);
        rest = after;
    }
    Match { is_whole: first == 0, letters: common }
}

/// The longest beginning of `after` that `before` ends with, if it is more than a word.
fn overlap<'a>(before: &str, after: &'a str) -> &'a str {
    let longest = before.len().min(after.len());
    let ends = (1..=longest).rev().filter_map(|length| after.get(..length));
    let found = ends.into_iter().find(|start| before.ends_with(start));
    found.filter(|it| it.trim().contains(' ')).unwrap_or_default()
}

/// In lower case, with one space for each run of spaces, line breaks and control characters.
fn squeezed(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").to_ascii_lowercase()
}

fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphabetic()).count()
}

#[cfg(test)]
mod tests {
    use super::{ERRORS, MIN_COMMON, find, is_too_short, letters};
    use crate::check::RULES;
    use crate::doctor::CHECKS;

    /// The first forms of the errors found.
    fn found(text: &str) -> Vec<&'static str> {
        find(text).into_iter().map(|error| error.texts[0]).collect()
    }

    #[test]
    fn every_form_finds_its_entry_first() {
        for error in ERRORS {
            for form in error.texts {
                for text in [form.replace('*', ".."), form.replace('*', "0"), form.to_uppercase()] {
                    assert_eq!(find(&text).first(), Some(&error), "{text}");
                }
            }
        }
    }

    #[test]
    fn entries_are_complete() {
        let codes: Vec<_> =
            CHECKS.iter().map(|it| it.code).chain(RULES.iter().map(|it| it.code)).collect();
        for error in ERRORS {
            assert!(["QEMU", "libvirt", "kernel", "kubelet"].contains(&error.printer), "{error:?}");
            assert!(error.codes.iter().all(|code| codes.contains(code)), "{error:?}");
            assert!(error.codes.is_sorted(), "{error:?}");
            assert!(error.cause.ends_with('.') && !error.remedy.ends_with('.'), "{error:?}");
            assert!(!error.texts.is_empty() && !error.remedy.is_empty());
            assert!(error.texts.iter().all(|text| letters(text) >= MIN_COMMON), "{error:?}");
        }
    }

    #[test]
    fn a_message_is_found_in_a_line_of_a_log() {
        let map = "vfio_container_dma_map(*) = -14 (Bad address)";
        let max = "cannot use/hotplug a memory device when domain 'maxMemory' is not defined";
        for (text, expected) in [
            (
                "2026-11-30T09:12:01.123456Z qemu-system-aarch64: vfio_container_dma_map(0xaaaae5, \
                 0x8000, 0x4000, 0xfff) = -14 (Bad address)",
                map,
            ),
            (
                "Nov 30 09:12:01 gb200 virtqemud[900]: unsupported configuration: cannot \
                 use/hotplug a memory device when domain 'maxMemory' is not defined\n",
                max,
            ),
            (
                "error: Failed to define domain from vm1.xml\nerror: unsupported configuration: \
                 cannot  use/hotplug\n a memory\tdevice when domain 'maxMemory' is not defined",
                max,
            ),
            (
                "watchdog: BUG: SOFT LOCKUP - CPU#12 stuck for 27s! [qemu-system-aar:4242]",
                "soft lockup",
            ),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn a_part_of_a_message_is_enough() {
        let group = "group * is not viable";
        let path = "path is required for model 'egm'";
        let ram = "total memory for NUMA nodes (*) should equal RAM size (*)";
        for (text, expected) in [
            ("not viable", group),
            ("NOT  viable.", group),
            ("`is not viable'", group),
            ("group 12 is not via", group),
            // The end of the line is missing.
            ("error : virDomainMemoryDefValidate:99 : path is required for", path),
            // The beginning is missing.
            ("should equal RAM size (0x1000)", ram),
            ("nodes (0x1000) should equal RAM size", ram),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn the_most_specific_message_is_first() {
        let text = "XML error: Invalid value for attribute 'model' in element 'memory': 'EGM'.";
        assert_eq!(
            found(text),
            [
                "Invalid value for attribute 'model' in element 'memory': '*'.",
                "Invalid value for attribute '*' in element '*': '*'.",
            ]
        );
        let both = "group 7 is not viable\nVFIO_MAP_DMA failed: Cannot allocate memory";
        assert_eq!(found(both).len(), 2);
    }

    #[test]
    fn a_typo_is_tolerated() {
        for (text, expected) in [
            ("Bad adress", "vfio_container_dma_map(*) = -14 (Bad address)"),
            ("sotf lockup", "soft lockup"),
            ("TopologyAfinityError", "Resources cannot be allocated with Topology locality"),
            (
                "Resources can not be allocated with topology locallity",
                "Resources cannot be allocated with Topology locality",
            ),
        ] {
            assert_eq!(found(text).first(), Some(&expected), "{text}");
        }
    }

    #[test]
    fn other_texts_find_nothing() {
        for text in [
            "the disk is full",
            "group of devices",
            "****",
            "....",
            "0123456789",
            "line 3 and column 7",
            "VFIO_DEVICE_SET_IRQS failed: Invalid argument",
        ] {
            assert!(find(text).is_empty(), "{text}: {:?}", found(text));
        }
        assert!(["", "-14", "abc", "= -14 (x", "\x1b[0m\n"].iter().all(|text| is_too_short(text)));
        assert!(find("abc").is_empty() && find("").is_empty());
    }

    #[test]
    fn long_texts_with_controls_are_searched() {
        let junk = "\u{1b}[31mé\u{202e}\0 group vfio_container_dma_map( ".repeat(20_000);
        assert!(find(&junk).len() < ERRORS.len());
        assert_eq!(
            found(&(junk.clone() + "7 is not\u{7}viable" + &junk)),
            ["group * is not viable"]
        );
    }
}
