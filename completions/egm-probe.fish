# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_egm_probe_global_optspecs
    string join \n sysroot= from= no-occupancy color= h/help V/version
end

function __fish_egm_probe_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_egm_probe_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_egm_probe_using_subcommand
    set -l cmd (__fish_egm_probe_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c egm-probe -n "__fish_egm_probe_needs_command" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_needs_command" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_needs_command" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_needs_command" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "list" -d 'List the EGM regions, one per line'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "ls" -d 'List the EGM regions, one per line'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "show" -d 'Show everything known about regions or GPUs'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "topology" -d 'Show sockets, regions and GPUs as a tree or picture'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "stanza" -d 'Generate XML that gives EGM memory to a virtual machine'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "validate" -d 'Check the XML of virtual machines that have EGM memory'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "capture" -d 'Record this host in a file, for --from and for bug reports'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "watch" -d 'Print changes of the regions as they happen'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "metrics" -d 'Print metrics for Prometheus'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "export" -d 'Write the regions and GPUs for container runtimes and Kubernetes'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "reserve" -d 'Reserve regions for a virtual machine for a limited time'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "release" -d 'Release reserved regions'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "doctor" -d 'Check this host for EGM, from the firmware to QEMU'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "udev" -d 'Manage the udev rules that let QEMU open the regions'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "completions" -d 'Print shell completions'
complete -c egm-probe -n "__fish_egm_probe_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s o -l output -d 'Show these columns; +LIST adds them to the default ones' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s O -l output-all -d 'Show all columns'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s b -l bytes -d 'Show sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s n -l noheadings -d 'Omit the header'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s r -l raw -d 'Separate columns with a single space; escape spaces in values'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s P -l pairs -d 'Print NAME="value" pairs, for shells'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s J -l json -d 'Print JSON (egm-probe.list/1), always with all fields and sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s H -l list-columns -d 'List the available columns, and exit'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s o -l output -d 'Show these columns; +LIST adds them to the default ones' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s O -l output-all -d 'Show all columns'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s b -l bytes -d 'Show sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s n -l noheadings -d 'Omit the header'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s r -l raw -d 'Separate columns with a single space; escape spaces in values'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s P -l pairs -d 'Print NAME="value" pairs, for shells'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s J -l json -d 'Print JSON (egm-probe.list/1), always with all fields and sizes in bytes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s H -l list-columns -d 'List the available columns, and exit'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand ls" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l gpu -d 'Show these GPUs, such as 0009:01:00.0 or pci_0009_01_00_0' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -s J -l json -d 'Print JSON (egm-probe.show/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l svg -d 'Write an SVG picture to FILE; - is standard output' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l ascii -d 'Draw with ASCII characters only'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l all-nodes -d 'Show each NUMA node on its own line'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -s J -l json -d 'Print JSON (egm-probe.topology/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand topology" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l gpu -d 'Use these GPUs, such as 0009:01:00.0 or pci_0009_01_00_0' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l region -d 'Use all GPUs of these regions, such as egm4 or /dev/egm4' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l size -d 'Memory per GPU, such as 8GiB, a multiple of 2MiB; or share, its share of the region [default: as in the domain, else share]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l guest-node -d 'Guest NUMA node that a region backs [default: as in the domain, or the first free one]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l alias -d 'Alias of the GPU, if only one is selected; must begin with ua-' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l alias-prefix -d 'Prefix of the GPU aliases, followed by a number [default: ua-hostdev]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l with -d 'Also write these parts of the domain' -r -f -a "hostdev\t'The <hostdev> of each GPU'
numa\t'Memory, memory backing and NUMA cells'
machine\t'UEFI, ACPI, GICv3, the host\'s CPU, topology, and no balloon'
pci\t'An expander bus, a root port and an SMMUv3 for each GPU, and the 64-bit PCI hole'
distances\t'The distances between the NUMA cells'
pinning\t'Pinning of virtual CPUs to the CPUs of their regions\' nodes'
all\t'All of these'"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l name -d 'Name of the new domain, for --complete without --domain' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l vcpus -d 'Distribute N virtual CPUs over the cells [default: keep the domain\'s]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l gpu-cells -d 'Add N empty NUMA cells for each GPU that has none; Grace GPUs need 8' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l device -d 'Also assign these PCI functions, such as NICs, near to the guest NUMA node N [default: that of their host node]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l distances -d 'Source of distances [default: host if all are known, else grace]' -r -f -a "host\t'Distances of the host, at least 11 between different nodes'
grace\t'Fixed distances: 11 within a GPU, 40 between sockets and between GPUs, 80 and 120 from CPUs to GPUs'"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l smmu -d 'SMMUs of the guest' -r -f -a "own\t'One for each device'
shared\t'One for the devices behind the same SMMU of the host'"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l managed -d 'Whether libvirt binds the devices to the driver for passthrough' -r -f -a "yes\t'libvirt binds them before the start, and back at the end'
no\t'They must be bound beforehand'"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l memory -d 'With --remove: memory of the domain if no EGM memory is left' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l move-to -d 'Move the domain\'s EGM memory and GPUs to this region, from the one given with --region [default: the domain\'s only one]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l libvirt -d 'Target libvirt [default: the installed one if it supports EGM, else nvidia-12.4]' -r -f -a "nvidia-12.4\t''
nvidia-11.9\t''
upstream\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l format -d 'Output format' -r -f -a "xml\t'libvirt\'s XML'
json\t'The plan, the XML and QEMU\'s arguments (egm-probe.stanza/1)'
qemu-args\t'QEMU\'s arguments, one per line'"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l indent -d 'Number of spaces per XML level [default: as in the domain, or 2]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l domain -d 'Merge into the domain XML in FILE and print the result; - is standard input. Without --gpu, --region or --all, use the GPUs that the domain has' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l for -d 'Name of the virtual machine; its own regions are not conflicts. Without --gpu, --region or --all, use the regions reserved for it [default: the domain\'s]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l for-other -d 'Confirm the NAME of --for if the domain has another name' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l allow -d 'Downgrade warnings of this rule, such as EGM106, to notes' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l all -d 'Use all GPUs of all regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l peers -d 'Also use the other GPUs of their regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l complete -d 'Write a whole Grace guest: --with all --gpu-cells 8; without --domain, a new domain'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l replace -d 'Replace existing parts of the domain that differ: guest addresses, huge pages, CPU mode and topology, SMMU attributes, distances and pinning'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l remove -d 'Take the EGM memory of these GPUs or regions out of the domain, and what --with names of theirs if no other device uses it'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l shell -d 'Quote QEMU\'s arguments for a shell'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l in-place -d 'Write the result back to the file given with --domain'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l dry-run -d 'Show the changes without writing them'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l force -d 'Proceed even if a region is in use or some of its GPUs were not detected'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l strict -d 'Treat warnings as errors'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l schema -d 'Use libvirt\'s schema in DIR [default: on the running host, /usr/share/libvirt/schemas]' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l libvirt -d 'Expect the XML spelling of this libvirt: nvidia-12.4, nvidia-11.9, upstream [default: that of the schema if it supports EGM, else nvidia-12.4]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l allow -d 'Downgrade findings of this rule, such as EGM027, to notes' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l severity -d 'Minimum severity to report' -r -f -a "note\t''
warning\t''
error\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l explain -d 'Explain a rule, such as EGM011, and exit; "all" lists them' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l no-host -d 'Skip the rules about this host'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l start -d 'Check as if the domain were about to start: regions held by, or reserved for, another virtual machine, or with unknown holders, are errors'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l no-schema -d 'Skip libvirt\'s schema'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l strict -d 'Treat warnings as errors'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s q -l quiet -d 'Print nothing; only set the exit status'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s J -l json -d 'Print JSON (egm-probe.validate/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -l with-claims -d 'Also record the claims on the regions: processes that hold them, libvirt\'s definitions as far as they concern EGM, and reservations'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand capture" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l interval -d 'How often to read everything again, such as 500ms or 2s: reservations and definitions send no events, and neither do holders if the driver does not count them' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l until -d 'Exit when a region is free, in-use or gone' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l timeout -d 'Give up after this time, such as 90s or 10m' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l initial -d 'Print the current state first, as if it had just appeared'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -s J -l json -d 'Print one line of JSON per change (egm-probe.watch/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -s o -l output -d 'Write to FILE atomically, as node_exporter\'s textfile collector requires' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand metrics" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -f -a "cdi" -d 'Write a CDI specification, for container runtimes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -f -a "nfd" -d 'Write labels for Node Feature Discovery, as a file of its features.d'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -f -a "node-feature" -d 'Write a NodeFeature object, for kubectl'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and not __fish_seen_subcommand_from cdi nfd node-feature help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -s o -l output -d 'Write to FILE atomically, and only if it changes; - is standard output' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -l kind -d 'Kind of the devices: a vendor and a class' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from cdi" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -s o -l output -d 'Write to FILE atomically, and only if it changes; - is standard output' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -l expiry -d 'Let the labels expire after TIME, such as 1h, unless they are written again' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from nfd" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -s o -l output -d 'Write to FILE atomically, and only if it changes; - is standard output' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -l node -d 'Name of this host in Kubernetes' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from node-feature" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from help" -f -a "cdi" -d 'Write a CDI specification, for container runtimes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from help" -f -a "nfd" -d 'Write labels for Node Feature Discovery, as a file of its features.d'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from help" -f -a "node-feature" -d 'Write a NodeFeature object, for kubectl'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand export; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l gpu -d 'Reserve the regions of these GPUs' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l any -d 'Reserve any N free regions, the smallest suitable ones first' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l gpus -d 'Require at least G GPUs per region' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l size -d 'Require at least this size per region' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l for -d 'Name of the virtual machine' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l ttl -d 'Time until the reservation expires, such as 90s or 1h [default: 10m; with COMMAND, never]' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l wait -d 'Wait until the regions are available, at most this long, such as 90s or 10m' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l all -d 'Reserve all regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l force -d 'Reserve even if holders or reservations of a region cannot be determined'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -s J -l json -d 'Print the regions as JSON (egm-probe.list/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -l for -d 'Name of the virtual machine' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -l all -d 'Release all regions reserved for NAME'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l consumer -d 'Make the checks for virtual machines that this software starts [default: detected]' -r -f -a "libvirt\t''
kubernetes\t''
kata\t''
qemu\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l qemu -d 'Examine this QEMU [default: on the running host, the installed one]' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l schema -d 'Read libvirt\'s schema in DIR [default: on the running host, /usr/share/libvirt/schemas]' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l allow -d 'Downgrade this check, such as D20, or violations of this rule, such as EGM215, to notes' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l explain -d 'Explain a check, such as D11, or an error message, such as "Bad address", and exit; "all" lists the checks' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -s J -l json -d 'Print JSON (egm-probe.doctor/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -s q -l quiet -d 'Print nothing; only set the exit status'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l fix-plan -d 'Print the suggested fixes as a shell script to review; nothing is run'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "print" -d 'Print the rules'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "install" -d 'Install the rules, apply them, and verify the result'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "status" -d 'Show whether the devices match the rules'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "uninstall" -d 'Remove the installed rules, and reset devices that no other rule covers'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "links" -d 'Print the links of a region\'s device (called by the rules)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "refresh" -d 'Make udev process all regions again (called by the rules when a GPU is added or removed)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and not __fish_seen_subcommand_from print install status uninstall links refresh help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l user -d 'Owner of the devices' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l group -d 'Group of the devices; QEMU\'s user must be in it' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l mode -d 'Permission bits of the devices' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l selinux -d 'SELinux label of the devices, such as system_u:object_r:svirt_image_t:s0' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from print" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l user -d 'Owner of the devices' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l group -d 'Group of the devices; QEMU\'s user must be in it' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l mode -d 'Permission bits of the devices' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l selinux -d 'SELinux label of the devices, such as system_u:object_r:svirt_image_t:s0' -r
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l root -d 'Write below DIR only, as packagers do, and leave the running system alone' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l no-reload -d 'Write the file without reloading udev'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l dry-run -d 'Show the changes without making them'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -s J -l json -d 'Print JSON (egm-probe.udev/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l force -d 'Allow a missing user or group and a world-accessible mode; replace a file not written by egm-probe, saving it as 60-egm.rules.orig'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from install" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -s J -l json -d 'Print JSON (egm-probe.udev/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from status" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l root -d 'Write below DIR only, as packagers do, and leave the running system alone' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l no-reload -d 'Write the file without reloading udev'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l dry-run -d 'Show the changes without making them'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -s J -l json -d 'Print JSON (egm-probe.udev/1)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from uninstall" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from links" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from links" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from links" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from links" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from links" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from links" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from refresh" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from refresh" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from refresh" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from refresh" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from refresh" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from refresh" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "print" -d 'Print the rules'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "install" -d 'Install the rules, apply them, and verify the result'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "status" -d 'Show whether the devices match the rules'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "uninstall" -d 'Remove the installed rules, and reset devices that no other rule covers'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "links" -d 'Print the links of a region\'s device (called by the rules)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "refresh" -d 'Make udev process all regions again (called by the rules when a GPU is added or removed)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand udev; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l sysroot -d 'Read a host from its root directory DIR (with sys, proc, ..)' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l from -d 'Read a host from the capture FILE (tar or tar.gz); - is standard input' -r -F
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l color -d 'When to use colours; auto means on a terminal, unless NO_COLOR is set' -r -f -a "auto\t''
always\t''
never\t''"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -l no-occupancy -d 'Do not look for holders of the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -s h -l help -d 'Print help'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand completions" -s V -l version -d 'Print version'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "list" -d 'List the EGM regions, one per line'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "show" -d 'Show everything known about regions or GPUs'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "topology" -d 'Show sockets, regions and GPUs as a tree or picture'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "stanza" -d 'Generate XML that gives EGM memory to a virtual machine'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "validate" -d 'Check the XML of virtual machines that have EGM memory'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "capture" -d 'Record this host in a file, for --from and for bug reports'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "watch" -d 'Print changes of the regions as they happen'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "metrics" -d 'Print metrics for Prometheus'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "export" -d 'Write the regions and GPUs for container runtimes and Kubernetes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "reserve" -d 'Reserve regions for a virtual machine for a limited time'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "release" -d 'Release reserved regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "doctor" -d 'Check this host for EGM, from the firmware to QEMU'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "udev" -d 'Manage the udev rules that let QEMU open the regions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "completions" -d 'Print shell completions'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and not __fish_seen_subcommand_from list show topology stanza validate capture watch metrics export reserve release doctor udev completions help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from export" -f -a "cdi" -d 'Write a CDI specification, for container runtimes'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from export" -f -a "nfd" -d 'Write labels for Node Feature Discovery, as a file of its features.d'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from export" -f -a "node-feature" -d 'Write a NodeFeature object, for kubectl'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from udev" -f -a "print" -d 'Print the rules'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from udev" -f -a "install" -d 'Install the rules, apply them, and verify the result'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from udev" -f -a "status" -d 'Show whether the devices match the rules'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from udev" -f -a "uninstall" -d 'Remove the installed rules, and reset devices that no other rule covers'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from udev" -f -a "links" -d 'Print the links of a region\'s device (called by the rules)'
complete -c egm-probe -n "__fish_egm_probe_using_subcommand help; and __fish_seen_subcommand_from udev" -f -a "refresh" -d 'Make udev process all regions again (called by the rules when a GPU is added or removed)'

function __fish_egm_probe_values
    egm-probe complete-values $argv[1] -- (commandline -opc) 2>/dev/null
end

complete -c egm-probe -n "__fish_egm_probe_using_subcommand list ls" -l output -s o -x -a "(__fish_complete_list , '__fish_egm_probe_values columns')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand list ls; and not contains -- -- (commandline -opc)" -f -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show" -l gpu -x -a "(__fish_complete_list , '__fish_egm_probe_values gpus')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand show; and not contains -- -- (commandline -opc)" -f -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l gpu -x -a "(__fish_complete_list , '__fish_egm_probe_values gpus')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l region -x -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l move-to -x -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand stanza" -l allow -x -a "(__fish_complete_list , '__fish_egm_probe_values rules')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l allow -x -a "(__fish_complete_list , '__fish_egm_probe_values rules')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand validate" -l explain -x -a "(__fish_complete_list , '__fish_egm_probe_values rules')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch" -l until -x -a "(__fish_complete_list , '__fish_egm_probe_values states')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand watch; and contains -- (commandline -opc)[-2] --until" -f -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve" -l gpu -x -a "(__fish_complete_list , '__fish_egm_probe_values gpus')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand reserve; and not contains -- -- (commandline -opc)" -f -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand release; and not contains -- -- (commandline -opc)" -f -a "(__fish_complete_list , '__fish_egm_probe_values regions')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l allow -x -a "(__fish_complete_list , '__fish_egm_probe_values checks')"
complete -c egm-probe -n "__fish_egm_probe_using_subcommand doctor" -l explain -x -a "(__fish_complete_list , '__fish_egm_probe_values checks')"
